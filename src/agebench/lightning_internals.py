"""Every private attribute of Lightning and PyTorch that agebench uses, each behind a capability check.

A later version may rename or remove them. The caller then falls back to documented behaviour and logs one line.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from subprocess import Popen
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies.launchers import subprocess_script
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


@cache
@rank_zero_only
def log_missing(name: str, consequence: str) -> None:
    """Log once that the installed version lacks `name`, and the consequence."""
    log.warning("lightning %s, torch %s: no usable %s: %s", L.__version__, torch.__version__, name, consequence)


class StepCounters:
    """The counters of optimizer steps and batches in Lightning's training epoch loop.

    Args:
        loop: trainer.fit_loop.epoch_loop.

    Raises:
        AttributeError: If the loop lacks one of the counters.
    """

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.steps: int = loop._batches_that_stepped
        self.count_batches: Callable[[int], None] = loop.batch_progress.increment_by
        self.count_steps: Callable[[int], None] = loop.manual_optimization.optim_step_progress.increment_by

    def add(self, *, batches: int, steps: int) -> None:
        """Add batches, and batches that end a step, that Lightning does not count itself."""
        self.loop._batches_that_stepped += steps
        self.count_batches(batches)


def has_step_counters() -> bool:
    """Return whether Lightning's epoch loop has the counters that multi-stepping must advance."""
    try:
        StepCounters(cast(Any, L.pytorch.loops)._TrainingEpochLoop(None))  # a loop without a trainer
    except (AttributeError, TypeError) as error:
        log_missing(f"step counters ({error})", "training runs single steps, which is slower for small networks")
        return False
    return True


def saves_within_epoch(checkpoint: ModelCheckpoint) -> bool:
    """Return whether a checkpoint callback saves every n steps or seconds; True if it cannot be determined."""
    try:
        return bool(checkpoint._every_n_train_steps or checkpoint._train_time_interval)
    except AttributeError as error:
        log_missing(f"trigger of ModelCheckpoint ({error})", "training runs single steps")
        return True


def skips_none_hooks() -> bool:
    """Return whether the trainer skips a hook of a callback or module that is None."""
    callback, module = Callback(), L.LightningModule()
    hook = "on_before_backward"
    setattr(callback, hook, None)
    setattr(module, hook, None)
    trainer: Any = SimpleNamespace(lightning_module=None, callbacks=[callback], profiler=PassThroughProfiler())
    try:
        L.pytorch.trainer.call._call_callback_hooks(trainer, hook, None)
        L.pytorch.trainer.call._call_lightning_module_hook(trainer, hook, None, pl_module=module)
    except (AttributeError, TypeError) as error:
        log_missing(f"way to skip a hook ({error})", "empty hooks are called at each step, which costs microseconds")
        return False
    return True


def can_restart_between_epochs(trainer: L.Trainer) -> bool:
    """Return whether a checkpoint can be saved and loaded exactly between two epochs."""
    fit_loop = trainer.fit_loop
    try:
        counters: Sequence[dict[str, int]] = list(fit_loop.state_dict()["epoch_progress"].values())
        for loop in (fit_loop, fit_loop.epoch_loop):
            _ = loop._restarting, loop.restarting, loop.reset_restart_stage
        fields = {"ready", "started", "processed", "completed"}
        if not counters or any(fields - counter.keys() for counter in counters):
            raise KeyError("fields of epoch_progress")
    except (AttributeError, KeyError) as error:
        log_missing(
            f"restart state of the fit loop ({error})",
            "last.ckpt is not written, and an interrupted run starts from the beginning",
        )
        return False
    return True


def finish_epoch_in(checkpoint: dict[str, Any]) -> None:
    """Change the epoch counters in a checkpoint so that the next epoch has not started."""
    for counter in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
        counter["ready"] = counter["started"] = counter["processed"] = counter["completed"]


def is_between_epochs(trainer: L.Trainer) -> bool:
    """Return whether every epoch that started is complete; False if it cannot be determined."""
    try:
        progress = trainer.fit_loop.epoch_progress.current
        return bool(progress.ready == progress.completed)
    except AttributeError as error:
        log_missing(f"progress of epochs ({error})", "SIGTERM at the end of an epoch loses that epoch")
        return False


def restart_at_epoch(trainer: L.Trainer) -> None:
    """Make the loops start a full epoch; with max_steps they would otherwise continue within an epoch."""
    fit_loop: Any = trainer.fit_loop
    fit_loop._restarting = False  # the public setter ignores False with max_steps
    fit_loop.epoch_loop.restarting = False
    fit_loop.reset_restart_stage()
    fit_loop.epoch_loop.reset_restart_stage()


@contextmanager
def observe_ranks(observe: Callable[[list[Popen[bytes]]], None]) -> Iterator[None]:
    """Context manager: pass the processes that Lightning starts for DDP to a function.

    Otherwise Lightning kills this process with SIGKILL when one of them fails.
    """
    module: Any = subprocess_script
    name = "_launch_process_observer"
    if not hasattr(module, name):
        log_missing(name, "a run whose other processes died may end without a status")
        yield
        return
    before = getattr(module, name)
    setattr(module, name, observe)
    try:
        yield
    finally:
        setattr(module, name, before)


def add_summary(writer: Any, summary: Any) -> None:
    """Write a summary that has no public method in SummaryWriter, such as a row of the HPARAMS page."""
    try:
        add = writer._get_file_writer().add_summary
    except AttributeError as error:
        log_missing(
            f"file writer of TensorBoard ({error})", "the HPARAMS page stays empty; results.json has all values"
        )
        return
    add(summary)


def compile_errors() -> tuple[type[BaseException], ...]:
    """Return the exception classes of torch.compile. They are imported only after an exception was raised."""
    try:
        return (torch._dynamo.exc.TorchDynamoException,)
    except AttributeError as error:
        log_missing(f"exceptions of torch.compile ({error})", "an error of torch.compile is shown unchanged")
        return ()


def plain_step(optimizer: torch.optim.Optimizer) -> Callable[..., Any]:
    """Return `optimizer.step` without its hooks and its record in PyTorch's profiler, if there are none.

    They take 0.1 to 0.2 ms per step.
    """
    checked: Any = optimizer
    try:
        library: Any = import_module("torch.optim.optimizer")  # torch.optim hides it
        hooks = (
            checked._optimizer_step_pre_hooks,
            checked._optimizer_step_post_hooks,
            library._global_optimizer_pre_hooks,
            library._global_optimizer_post_hooks,
        )
        is_profiled = torch.autograd.profiler._is_profiler_enabled
    except (AttributeError, ImportError) as error:
        log_missing(f"optimizer step without hooks ({error})", "a step takes 0.1 to 0.2 ms longer")
        return optimizer.step
    hooked: Any = type(optimizer).step
    # A wrapper of a user copies the mark, but is not from PyTorch's module.
    is_hooked = getattr(hooked, "hooked", False) and hooked.__globals__ is vars(library)
    own = vars(optimizer).get("step")  # a scheduler replaces it, to know that it was called
    is_replaced = not (own is None or hasattr(own, "_wrapped_by_lr_sched"))
    if is_profiled or any(hooks) or is_replaced or not is_hooked:
        return optimizer.step
    checked._opt_called = True
    return partial(hooked.__wrapped__, optimizer)
