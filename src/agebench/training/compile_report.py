"""Whether `compile` pays: the time that compiling took, and that of a step with and without it."""

import logging
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from agebench.module import ImageModule
from agebench.training.callbacks import Speed

log = logging.getLogger(__name__)
ROUNDS = 5  # measurements of each network, after one that warms up


class CompileReport(Callback):
    """Logs once, after two epochs of this process, whether compiling the network pays.

    The time of compiling is that by which the first epoch is longer than the second. The time of a step is measured on
    blank images, without an update. It changes neither weights, gradients, statistics nor random numbers.

    Args:
        setting: The value of the key `compile`.
        speed: Measures the epochs.
        shape: The shape of a batch, (B, C, S, S).
    """

    def __init__(self, setting: bool | str, speed: Speed, shape: tuple[int, ...]) -> None:
        self.setting, self.speed, self.shape = str(setting).lower(), speed, shape
        self._first_epoch = 0
        self._is_done = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Store the epoch at which this process starts."""
        self._first_epoch = trainer.current_epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log after the second epoch, before the time of the next one is measured."""
        seconds = self.speed.warm_up_s
        if self._is_done or seconds is None or not trainer.is_global_zero:
            return
        self._is_done = True
        with trainer.precision_plugin.train_step_context():
            compiled, eager = measure_steps(cast(ImageModule, pl_module), self.shape)
        pays, sentence = judge(
            self.setting,
            compile_s=seconds,
            steps_s=(compiled, eager),
            batches=int(trainer.num_training_batches),
            epochs=max(0, (trainer.max_epochs or 0) - self._first_epoch),
        )
        log.log(logging.INFO if pays else logging.WARNING, "%s", sentence)

    on_train_end = on_train_epoch_start


def judge(
    setting: str, *, compile_s: float, steps_s: tuple[float, float], batches: int, epochs: int
) -> tuple[bool, str]:
    """Return whether compiling pays in a run, and a sentence that says so.

    Args:
        setting: The value of the key `compile`.
        compile_s: Seconds that compiling took.
        steps_s: Seconds of a step of the network, compiled and not.
        batches: Number of batches of an epoch.
        epochs: Number of epochs of the run; 0 if it is unlimited.
    """
    compiled, eager = (1000 * each for each in steps_s)
    facts = (
        f"compiling took {max(0.0, compile_s):.0f} s, and a step of the network takes {compiled:.3g} ms instead of "
        f"{eager:.3g} ms"
    )
    saved = (eager - compiled) / 1000 * batches  # seconds per epoch
    if saved <= 0:
        return False, f"compile={setting} does not pay: {facts}; set compile=false"
    needed = max(1, math.ceil(compile_s / saved))
    pays_after = f"it pays after {needed:,} epoch{'s' if needed > 1 else ''}"
    if epochs and needed > epochs:
        return False, f"compile={setting} does not pay in {epochs} epochs: {facts}; {pays_after}; set compile=false"
    return True, f"compile   {facts}: {pays_after}"


def measure_steps(module: ImageModule, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the median seconds of a forward and backward pass of the network, compiled and not.

    Args:
        module: The module, in training.
        shape: The shape of the blank images, (B, C, S, S).
    """
    parameters = [p for p in module.model.parameters() if p.requires_grad]
    images = torch.zeros(shape, device=module.device, dtype=parameters[0].dtype).to(memory_format=module.memory_format)
    networks: Sequence[Callable[[Tensor], Any]] = (module.compiled or module.model, module.model)

    def once(network: Callable[[Tensor], Any]) -> float:
        start = time.perf_counter()
        # Not `backward`: nothing is added to the gradients, and DDP does not notice it.
        torch.autograd.grad(network(images).float().sum(), parameters, allow_unused=True)
        if module.device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - start

    kept = [(buffer, buffer.clone()) for buffer in module.model.buffers()]
    devices = [module.device] if module.device.type == "cuda" else []
    module.train()
    with torch.random.fork_rng(devices):
        rounds = [[once(network) for network in networks] for _ in range(1 + ROUNDS)]
    with torch.no_grad():
        for buffer, before in kept:  # statistics of batch norm
            buffer.copy_(before)
    compiled, eager = (statistics.median(times) for times in zip(*rounds[1:], strict=True))
    return compiled, eager
