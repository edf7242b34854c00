"""Callbacks of a run: progress bar, metrics.csv, training speed and the handler of SIGTERM."""

import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from traceback import walk_tb
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from agebench import interrupts
from agebench.batch_bar import count_images
from agebench.files import write_csv
from agebench.lightning_internals import skips_none_hooks
from agebench.metrics.table import find, live_keys
from agebench.progress import Bar, is_shown

# The hooks of callbacks and of the module that Lightning calls at each training step.
STEP_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_backward",
    "on_after_backward",
    "on_before_zero_grad",
    "on_before_optimizer_step",
)


def skip_idle_hooks(module: L.LightningModule, callbacks: Sequence[Callback]) -> None:
    """Set the step hooks without an override to None, so that the trainer skips them.

    A call takes a few microseconds. Six hooks of eight callbacks take a fifth of a small network's step. Nothing
    changes if this version of Lightning does not skip hooks that are None.
    """
    if not skips_none_hooks():
        return
    for owner, base in [(module, L.LightningModule), *((callback, Callback) for callback in callbacks)]:
        for hook in STEP_HOOKS:
            if hook not in vars(owner) and getattr(type(owner), hook) is getattr(base, hook):
                setattr(owner, hook, None)


def failed_callback(error: Exception) -> str | None:
    """Return the name of Lightning's callback that cannot work with agebench's module, if this is why training failed.

    Such a callback raises an error itself, or uses an attribute that the module does not have. The bugs of a user's own
    callback need their traceback, and system errors have their own messages.
    """
    owners = [frame.f_locals.get("self") for frame, _ in walk_tb(error.__traceback__)]
    callbacks = [owner for owner in owners if isinstance(owner, Callback)]
    if not callbacks or not type(callbacks[-1]).__module__.startswith("lightning.") or isinstance(error, OSError):
        return None
    is_refusal = owners[-1] is callbacks[-1] or isinstance(error, AttributeError | NotImplementedError)
    return type(callbacks[-1]).__name__ if is_refusal else None


class OwnSigterm(Callback):
    """Keeps the handler of SIGTERM from agebench.interrupts, if it is set, instead of Lightning's.

    Lightning's handler sends a message to the other DDP processes, which waits forever if they do not expect it.
    """

    def __init__(self) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the handler, which Lightning replaces before each stage."""
        ours = getattr(self._handler, "__module__", None) == interrupts.__name__
        if ours and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)

    on_sanity_check_start = on_test_start = on_train_start


class Speed(Callback):
    """Measures the wall time of training without validation, and the share of that time spent waiting for batches.

    The first epoch of each start of the run is a warm-up. It is excluded, unless there is no other epoch.
    """

    def __init__(self) -> None:
        self._epochs: list[tuple[float, float, int]] = []  # seconds, seconds of waiting, images
        self._firsts = [0]  # indices of the first epoch of each start
        self._earlier = 0.0  # total seconds of earlier starts
        self._began: float | None = None
        self._start = self._paused = self._wait = 0.0
        self.startup_s = 0.0  # of `fit_s`, before the first step of each start: DDP starts the other processes
        self.validation_s: float | None = None  # duration of the last validation
        self._images = 0

    @property
    def images_per_s(self) -> float:
        """Training images per second of wall time, without warm-up epochs."""
        seconds, _, images = self._total()
        return images / seconds if seconds else 0.0

    @property
    def data_wait_share(self) -> float:
        """Share of the wall time in which training waited for a batch, in [0, 1]."""
        seconds, wait, _ = self._total()
        return wait / seconds if seconds else 0.0

    @property
    def warm_up_s(self) -> float | None:
        """Seconds by which the first epoch of this start is longer than the second; None before both are complete."""
        epochs = self._epochs[self._firsts[-1] :]
        return epochs[0][0] - epochs[1][0] if len(epochs) > 1 else None

    @property
    def now(self) -> float:
        """Images per second in the current epoch so far."""
        seconds = time.perf_counter() - self._start
        return self._images / seconds if self._start and seconds else 0.0

    @property
    def has_started(self) -> bool:
        """Whether an epoch has started in this process."""
        return self._start > 0

    def begin(self) -> None:
        """Start measuring the duration of the training."""
        self._began = time.perf_counter()

    @property
    def fit_s(self) -> float:
        """Seconds since `begin`, plus those of earlier starts up to the epoch from which this one resumed."""
        return self._earlier + (time.perf_counter() - self._began if self._began is not None else 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements, so that a resumed run includes those of earlier starts."""
        return {
            "epochs": self._epochs,
            "firsts": self._firsts,
            "fit_s": self.fit_s,
            "startup_s": self.startup_s,
            "validation_s": self.validation_s,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the measurements of earlier starts."""
        self._epochs = [tuple(epoch) for epoch in state_dict["epochs"]]
        self.validation_s, self.startup_s = state_dict.get("validation_s"), state_dict.get("startup_s", 0.0)
        self._firsts, self._earlier = [*state_dict["firsts"], len(self._epochs)], state_dict["fit_s"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure how long the start took."""
        if self._began is not None:
            self.startup_s += time.perf_counter() - self._began

    def _total(self) -> tuple[float, float, int]:
        warm = [epoch for i, epoch in enumerate(self._epochs) if i not in self._firsts]
        epochs = warm or self._epochs
        return sum(e[0] for e in epochs), sum(e[1] for e in epochs), sum(e[2] for e in epochs)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start measuring an epoch."""
        self._start, self._paused, self._images = time.perf_counter(), 0.0, 0
        self._wait = _wait_seconds(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Update the number of images, over all devices."""
        self._images = int(getattr(pl_module, "images_seen", 0)) * trainer.world_size

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Pause the measurement during validation."""
        self._validation = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Continue the measurement."""
        self.validation_s = time.perf_counter() - self._validation
        self._paused += self.validation_s

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Store the measurements of the epoch."""
        seconds = time.perf_counter() - self._start - self._paused
        self._epochs.append((seconds, _wait_seconds(trainer) - self._wait, self._images))


def _wait_seconds(trainer: L.Trainer) -> float:
    return float(getattr(trainer.train_dataloader, "wait_s", 0.0))


class EpochTable(Callback):
    """Writes the metrics of each epoch to metrics.csv, one row per epoch. The file is rewritten atomically.

    Args:
        file: The path of the table; None keeps the rows in memory only.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.rows: list[dict[str, float]] = []
        self._validated = -1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Store the epoch of these validation metrics, because the trainer keeps them in epochs without validation."""
        self._validated = trainer.current_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add a row for the epoch."""
        parts = ("train/", "val/") if self._validated == trainer.current_epoch else ("train/",)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(parts)}
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": rate, **metrics}
        self.rows = [old for old in self.rows if old["epoch"] < row["epoch"]] + [row]
        if self.file is not None and trainer.is_global_zero:
            columns = list(dict.fromkeys(key for row in self.rows for key in row))
            write_csv(self.file, columns, ([row.get(column, "") for column in columns] for row in self.rows))

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, so that a resumed run keeps its history."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the rows."""
        self.rows = list(state_dict["rows"])


class Progress(Callback):
    """Shows a bar of the whole training with metrics, img/s and remaining time; without a terminal, a line per epoch.

    Within long epochs there are further lines, see agebench.progress.

    Args:
        speed: Measures img/s.
        refresh_rate: Steps between two updates of the bar, which is redrawn at most ten times a second.
    """

    def __init__(self, speed: Speed, *, refresh_rate: int = 10) -> None:
        self.speed, self.refresh_rate = speed, refresh_rate
        self.bar: Bar | None = None
        self._per_epoch: int | None = None
        self._updated = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the bar at the epoch at which training starts."""
        if not is_shown():
            return
        count = count_images(trainer.train_dataloader, trainer.num_training_batches)
        self._per_epoch = count
        total = count * trainer.max_epochs if count and trainer.max_epochs and trainer.max_epochs > 0 else None
        self.bar = Bar("training", total=total, done=trainer.current_epoch * (count or 0))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the number of the epoch."""
        self._updated = 0
        if self.bar is not None:
            self.bar.label = f"epoch {_of(trainer)}"

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, unless it was moved fewer than `refresh_rate` steps ago."""
        if self.bar is None or batch_idx + 1 - self._updated < self.refresh_rate:
            return
        self._updated = batch_idx + 1
        share = min(1.0, self._updated / max(1.0, trainer.num_training_batches))
        self._advance(trainer.current_epoch + share)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the metrics of the epoch, as a line if there is no terminal."""
        if self.bar is None:
            return
        known = trainer.callback_metrics
        values = {key: f"{key} {float(known[key]):.4f}" for key in live_keys() if key in known}
        if self.bar.terminal:  # the bar has little room
            shown = [key for key in live_keys(("val",)) if key in values and find(key).computed]
            self.bar.note = "  ".join(values[key] for key in shown)
        elif trainer.is_global_zero:
            self.bar.postpone_line()
        self._advance(trainer.current_epoch + 1)
        if not self.bar.terminal and trainer.is_global_zero:
            rate = f"{self.speed.images_per_s:,.0f} img/s"
            print(f"epoch {_of(trainer)}  {'  '.join(values.values())}  {rate}  eta {self.bar.eta}", flush=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self.on_train_end(trainer, pl_module)

    def _advance(self, epochs: float) -> None:
        if self.bar is not None and self._per_epoch:
            self.bar.advance_to(round(epochs * self._per_epoch))


def _of(trainer: L.Trainer) -> str:
    """Return the number of the epoch, and that of all epochs if it is known."""
    return f"{trainer.current_epoch + 1}/{trainer.max_epochs if (trainer.max_epochs or -1) > 0 else '?'}"
