"""Multi-stepping: several optimizer steps per call of Lightning, whose bookkeeping costs as much as a small network."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    Callback,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    Timer,
)
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from omegaconf import DictConfig
from torch import Tensor

from agebench.errors import UserError
from agebench.lightning_internals import (
    StepCounters,
    has_step_counters,
    is_between_epochs,
    plain_step,
    saves_within_epoch,
)
from agebench.module import ImageModule
from agebench.step_check import SkippedStepError
from agebench.training.callbacks import STEP_HOOKS, Speed
from agebench.training.sweep_progress import SweepProgress

MAX_SECONDS = 1.0  # maximum duration of a call; callbacks run after each call, and the progress bar moves
# Schedules that depend at most on metrics of complete epochs.
SCHEDULES = tuple(
    f"agebench.training.schedules.{name}" for name in ("constant", "cosine", "one_cycle", "plateau", "step")
)
# Callbacks whose step hooks give the same result when they run once for several steps.
MULTI_STEP_CALLBACKS = (LearningRateMonitor, Speed, SweepProgress, Timer)


class MultiStepModule(ImageModule):
    """An ImageModule that runs several optimizer steps in each call of `training_step`.

    Lightning passes it an iterator over batches (`dataloader_iter`) and uses manual optimization. Each step does what
    automatic optimization does. Callbacks run once per call. Steps, batches and logged metrics are counted one by one.
    A call ends before a step whose metrics are logged, so that the step starts a new call.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.automatic_optimization = False
        self.accumulate, self.clip_val, self.clip_algorithm = 1, None, None
        self._monitor: str | None = None  # the metric of a plateau schedule
        self._plateau_is_due = False  # after a complete epoch

    def take_over(self, cfg: DictConfig) -> DictConfig:
        """Accumulate and clip as a config says. Return the config without it, for a trainer that would refuse both."""
        self.accumulate, self.clip_val = cfg.trainer.accumulate_grad_batches, cfg.trainer.gradient_clip_val
        self.clip_algorithm = cfg.trainer.get("gradient_clip_algorithm")
        rest = cfg.copy()
        rest.trainer.accumulate_grad_batches, rest.trainer.gradient_clip_val = 1, None
        return rest

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and its schedule without the metric, which Lightning ignores with a warning."""
        configured: Any = super().configure_optimizers()
        if isinstance(configured, dict):
            self._monitor = configured["lr_scheduler"].pop("monitor", None)
        return configured  # type: ignore[no-any-return]  # as in the parent

    def log(self, *given: Any, **named: Any) -> None:
        """Log a value, also without a batch size, as the callbacks of a user do between two epochs.

        Lightning demands one from a module that takes an iterator. It is the weight in a mean over steps.
        """
        super().log(*given, **{"batch_size": 1, **named})

    def training_step(self, dataloader_iter: Any) -> None:  # type: ignore[override]  # Lightning accepts either
        """Run steps until MAX_SECONDS have passed, the next step must be logged, or the epoch ends."""
        trainer, optimizer = cast(Any, self.trainer), cast(Any, self.optimizers(use_pl_optimizer=False))
        step = plain_step(optimizer)
        counters, log_every = StepCounters(trainer.fit_loop.epoch_loop), trainer.log_every_n_steps
        until = time.perf_counter() + MAX_SECONDS
        batches = steps = 0
        # Lightning runs the whole call under autocast, but backward passes and updates must run outside it.
        with torch.autocast(self.device.type, enabled=False):
            for batch, index, _ in dataloader_iter:
                batches += 1
                updates = (index + 1) % self.accumulate == 0 or dataloader_iter.done
                self._run_batch(optimizer, step, batch, index, updates=updates)
                if not updates:
                    continue
                counters.count_steps(1)
                self._update_schedules("step", index)
                steps += 1
                ended = self.pace is not None and self.pace.after_step(trainer)
                done = ended or dataloader_iter.done or 0 <= trainer.max_steps <= trainer.global_step
                next_is_logged = log_every and (counters.steps + steps + 1) % log_every == 0
                if done or time.perf_counter() > until or next_is_logged:
                    break
        if dataloader_iter.done:
            self._update_schedules("epoch", self.current_epoch)
            self._plateau_is_due = True
        counters.add(batches=batches - 1, steps=steps - 1)  # Lightning counts the call as one batch and one step

    def _run_batch(self, optimizer: Any, step: Callable[..., Any], batch: Any, index: int, *, updates: bool) -> None:
        """Run the forward and the backward pass of a batch and, if it ends a step, update the weights by `step`."""
        if batch.images.device != self.device:
            batch = batch._make(each.to(self.device, non_blocking=True) for each in batch)
        precision = self.trainer.precision_plugin
        scaler = getattr(precision, "scaler", None)  # of 16-mixed

        def closure() -> Tensor:
            with precision.train_step_context():
                loss = self.training_loss(batch)
                if self.accumulate > 1:
                    loss = loss / self.accumulate
            if index % self.accumulate == 0:
                _clear_gradients(optimizer)
            (loss if scaler is None else scaler.scale(loss)).backward()
            if updates and scaler is None:
                self.on_before_optimizer_step(optimizer)
            return loss

        with suppress(SkippedStepError):
            if not updates:
                closure()
            elif scaler is None:
                step(closure)  # faster than the plugin
            else:
                precision.optimizer_step(optimizer, model=self, closure=closure)
        torch.clear_autocast_cache()  # the cache contains the weights before the update

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Check and clip the gradients, which Lightning does only with automatic optimization."""
        self.configure_gradient_clipping(optimizer, self.clip_val, self.clip_algorithm)

    def follow_pace(self) -> None:
        """Do nothing: the clock was read after each step."""

    def _update_schedules(self, interval: str, index: int) -> None:
        if self.pace is not None or self._monitor is not None:
            return
        config: Any
        for config in self.trainer.lr_scheduler_configs:
            if config.interval == interval and (index + 1) % config.frequency == 0:
                config.scheduler.step()

    def update_plateau(self) -> None:
        """Update a plateau schedule if an epoch is complete. It is called between two epochs."""
        if self._monitor is None or not self._plateau_is_due:
            return
        self._plateau_is_due = False
        metric = self.trainer.callback_metrics.get(self._monitor)
        config: Any
        for config in self.trainer.lr_scheduler_configs:
            if self.current_epoch % config.frequency != 0:  # current_epoch is the number of complete epochs
                continue
            if metric is None:
                raise UserError(
                    f"scheduler=plateau needs {self._monitor}, which this run does not compute: "
                    "set +scheduler.monitor=train/loss, or another scheduler"
                )
            config.scheduler.step(metric)


def _clear_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Set the gradients to None, as `zero_grad` does, which takes seven times as long with a fused optimizer."""
    if getattr(optimizer.zero_grad, "__func__", None) is not torch.optim.Optimizer.zero_grad:  # a user's may do more
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


class PlateauUpdate(Callback):
    """Updates the plateau schedule of a MultiStepModule between two epochs, as Lightning does for single steps.

    It must be the first callback, because others save and log the state between two epochs.
    """

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Update the schedule after the previous epoch."""
        cast(MultiStepModule, pl_module).update_plateau()

    on_train_end = on_train_epoch_start

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Update the schedule if the epoch is complete: after SIGTERM a checkpoint is saved."""
        if is_between_epochs(trainer):
            self.on_train_epoch_start(trainer, pl_module)


def can_multi_step(cfg: DictConfig, callbacks: Sequence[Callback]) -> bool:
    """Return whether multi-stepping is unobservable under a config and its callbacks."""
    trainer = cfg.trainer
    return (
        trainer.devices == 1
        and trainer.num_nodes == 1
        and trainer.strategy == "auto"
        and trainer.precision in ("32-true", "bf16-mixed", "16-mixed")
        and trainer.val_check_interval in (None, 1.0)
        and cfg.scheduler._target_ in SCHEDULES
        and not any(map(_needs_each_step, callbacks))
        and has_step_counters()
    )


def _needs_each_step(callback: Callback) -> bool:
    if isinstance(callback, GradientAccumulationScheduler):  # changes the trainer, and needs automatic optimization
        return True
    if isinstance(callback, ModelCheckpoint):
        return saves_within_epoch(callback)
    overrides_step_hook = any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in STEP_HOOKS)
    return overrides_step_hook and not isinstance(callback, MULTI_STEP_CALLBACKS)
