"""Several optimizer steps each time Lightning asks for one: its own bookkeeping costs as much as a small network."""

import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, Timer, TQDMProgressBar
from omegaconf import DictConfig
from torch import Tensor

from agebench.module import ImageModule
from agebench.training.callbacks import STEP_HOOKS, Speed
from agebench.training.sweep_progress import SweepProgress

TURN_S = 0.25  # after which callbacks get their say
# Schedules that move without being told a metric.
KNOWN = tuple(f"agebench.training.schedules.{name}" for name in ("constant", "cosine", "one_cycle", "step"))
# Their hooks of a step do as well when they are called once for several.
PATIENT = (LearningRateMonitor, Speed, SweepProgress, Timer, TQDMProgressBar)


class TurnModule(ImageModule):
    """An ImageModule that steps for some milliseconds in a row, each step what automatic optimization would do.

    Lightning hands it the batches to take (its `dataloader_iter` flavour of a training step) and leaves optimization to
    it. Callbacks are called once a turn; steps, batches and logged figures are counted one by one, as ever. A turn ends
    before a step at which something is logged, so that nothing is missed.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.automatic_optimization = False

    def training_step(self, dataloader_iter: Any) -> None:  # type: ignore[override]  # Lightning's other flavour
        """Take steps until the time is up, something is to be logged, or the epoch ends."""
        trainer, optimizer = cast(Any, self.trainer), self.optimizers(use_pl_optimizer=False)
        loop, every = trainer.fit_loop.epoch_loop, trainer.log_every_n_steps
        steps = loop.manual_optimization.optim_step_progress
        until = time.perf_counter() + TURN_S
        before = taken = loop._batches_that_stepped
        for batch, index, _ in dataloader_iter:
            self._step(optimizer, batch._make(each.to(self.device, non_blocking=True) for each in batch))
            steps.increment_by(1)
            self._schedule("step", index)
            taken += 1
            done = dataloader_iter.done or 0 <= trainer.max_steps <= trainer.global_step
            if done or time.perf_counter() > until or (every and (taken + 1) % every == 0):
                break
        if dataloader_iter.done:
            self._schedule("epoch", self.current_epoch)
        # Lightning counts a turn as one step.
        loop._batches_that_stepped += taken - before - 1
        loop.batch_progress.increment_by(taken - before - 1)

    def _step(self, optimizer: Any, batch: Any) -> None:
        def closure() -> Tensor:
            with self.trainer.precision_plugin.train_step_context():
                loss = self.loss_of(batch)
            optimizer.zero_grad()
            loss.backward()
            return loss

        # Lightning has the whole turn within autocast, where a backward pass and an update have no place.
        with torch.autocast(self.device.type, enabled=False):
            optimizer.step(closure)
        torch.clear_autocast_cache()  # it holds the weights as they were

    def _schedule(self, interval: str, index: int) -> None:
        each: Any
        for each in self.trainer.lr_scheduler_configs:
            if each.interval == interval and (index + 1) % each.frequency == 0:
                each.scheduler.step()


def takes_turns(cfg: DictConfig, callbacks: Sequence[Callback]) -> bool:
    """Return whether several steps in a row can be told from as many single ones by nobody."""
    trainer = cfg.trainer
    return (
        trainer.devices == 1
        and trainer.num_nodes == 1
        and trainer.strategy == "auto"
        and trainer.precision in ("32-true", "bf16-mixed")
        and trainer.accumulate_grad_batches == 1
        and trainer.gradient_clip_val is None
        and trainer.val_check_interval in (None, 1.0)
        and cfg.scheduler._target_ in KNOWN
        and not any(map(_wants_each_step, callbacks))
    )


def _wants_each_step(callback: Callback) -> bool:
    if isinstance(callback, ModelCheckpoint):
        return bool(callback._every_n_train_steps or callback._train_time_interval)
    own = [hook for hook in STEP_HOOKS if getattr(type(callback), hook) is not getattr(Callback, hook)]
    return bool(own) and not isinstance(callback, PATIENT)
