"""What a run shows and writes while it trains: a progress bar, a table of epochs, and how fast it is."""

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

from agebench.metrics.table import live_keys

# What Lightning calls at every step, of every callback and of the module.
STEP_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_backward",
    "on_after_backward",
    "on_before_zero_grad",
    "on_before_optimizer_step",
)


def skip_idle_hooks(module: L.LightningModule, callbacks: Sequence[Callback]) -> None:
    """Have the trainer pass over the hooks of a step that do nothing: it calls none that is None.

    A call costs some microseconds, of which six hooks and eight callbacks make a fifth of a small network's step.
    """
    for owner, base in [(module, L.LightningModule), *((callback, Callback) for callback in callbacks)]:
        for hook in STEP_HOOKS:
            if hook not in vars(owner) and getattr(type(owner), hook) is getattr(base, hook):
                setattr(owner, hook, None)


class Speed(Callback):
    """Measures training: its wall time, without validation, and the part of it spent waiting for batches.

    The first epoch warms things up and is left out when there are more; so is that of every start of a run that was
    interrupted.
    """

    def __init__(self) -> None:
        self._epochs: list[tuple[float, float, int]] = []  # seconds, seconds of waiting, images
        self._firsts = [0]  # which of them began a start
        self._earlier = 0.0  # seconds of earlier starts
        self._began: float | None = None
        self._start = self._paused = self._wait = 0.0
        self._images = 0

    @property
    def images_per_s(self) -> float:
        """Images over the wall time of the training epochs."""
        seconds, _, images = self._total()
        return images / seconds if seconds else 0.0

    @property
    def data_wait_share(self) -> float:
        """Share of that time in which the step waited for its batch, in [0, 1]."""
        seconds, wait, _ = self._total()
        return wait / seconds if seconds else 0.0

    @property
    def now(self) -> float:
        """Images per second of the running epoch so far."""
        seconds = time.perf_counter() - self._start
        return self._images / seconds if self._start and seconds else 0.0

    def begin(self) -> None:
        """Start the clock of the whole training."""
        self._began = time.perf_counter()

    @property
    def fit_s(self) -> float:
        """Seconds since it began, and those of earlier starts up to the epoch from which this one went on."""
        return self._earlier + (time.perf_counter() - self._began if self._began is not None else 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Travel with the checkpoint, so that the figures of a resumed run are those of all its starts."""
        return {"epochs": self._epochs, "firsts": self._firsts, "fit_s": self.fit_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what earlier starts measured."""
        self._epochs = [tuple(epoch) for epoch in state_dict["epochs"]]
        self._firsts, self._earlier = [*state_dict["firsts"], len(self._epochs)], state_dict["fit_s"]

    def _total(self) -> tuple[float, float, int]:
        warm = [epoch for i, epoch in enumerate(self._epochs) if i not in self._firsts]
        epochs = warm or self._epochs
        return sum(e[0] for e in epochs), sum(e[1] for e in epochs), sum(e[2] for e in epochs)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start, self._paused, self._images = time.perf_counter(), 0.0, 0
        self._wait = _waited(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Count the images of all devices."""
        self._images = int(getattr(pl_module, "images_seen", 0)) * trainer.world_size

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock for validation."""
        self._validation = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let it run on."""
        self._paused += time.perf_counter() - self._validation

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the epoch's figures."""
        seconds = time.perf_counter() - self._start - self._paused
        self._epochs.append((seconds, _waited(trainer) - self._wait, self._images))


def _waited(trainer: L.Trainer) -> float:
    return float(getattr(trainer.train_dataloader, "wait_s", 0.0))


class EpochTable(Callback):
    """Keeps every epoch's metrics in metrics.csv, one row an epoch, rewritten whole so that it is never half.

    Args:
        file: Where; None keeps them in memory only.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.rows: list[dict[str, float]] = []
        self._validated = -1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the epoch: in one without validation the trainer still holds the figures of an older one."""
        self._validated = trainer.current_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the epoch's row."""
        parts = ("train/", "val/") if self._validated == trainer.current_epoch else ("train/",)
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(parts)}
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": rate, **metrics}
        self.rows = [old for old in self.rows if old["epoch"] < row["epoch"]] + [row]
        if self.file is not None and trainer.is_global_zero:
            columns = list(dict.fromkeys(key for row in self.rows for key in row))
            part = self.file.with_suffix(".part")
            with part.open("w", newline="", encoding="utf-8") as lines:
                writer = csv.DictWriter(lines, columns)
                writer.writeheader()
                writer.writerows(self.rows)
            part.replace(self.file)

    def state_dict(self) -> dict[str, Any]:
        """Travel with the checkpoint, so that a resumed run keeps its history."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the history up again."""
        self.rows = list(state_dict["rows"])


class Progress(TQDMProgressBar):
    """One bar an epoch with loss, images/s and the time the whole training still needs; plain lines without a terminal.

    Args:
        speed: Where images/s comes from.
        terminal: False prints one line an epoch instead of a bar.
        refresh_rate: Steps between two redraws.
    """

    def __init__(self, speed: Speed, *, terminal: bool, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate if terminal else 0)
        self.speed, self.terminal = speed, terminal
        self._begin = time.perf_counter()
        self._drawn = 0

    def on_train_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Note when training began."""
        super().on_train_start(trainer, *args)
        self._begin, self._first = time.perf_counter(), trainer.current_epoch

    def _should_update(self, current: int, total: int) -> bool:
        """Return whether refresh_rate batches have gone by; Lightning looks for multiples of it, which turns skip."""
        since = current - self._drawn if current > self._drawn else current  # a new bar
        if not self.is_enabled or (since < self.refresh_rate and current != total):
            return False
        self._drawn = current
        return True

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return what stands behind the bar."""
        known = trainer.callback_metrics
        shown: dict[str, Any] = {key: f"{float(known[key]):.3f}" for key in live_keys() if key in known}
        return {"img/s": f"{self.speed.now:,.0f}", "eta": self._eta(trainer), **shown}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the epoch's line where there is no terminal."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self.terminal and trainer.is_global_zero:
            known = trainer.callback_metrics
            text = "  ".join(f"{key} {float(known[key]):.4f}" for key in live_keys() if key in known)
            total = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else "?"
            rate = f"{self.speed.images_per_s:,.0f} img/s"
            eta = self._eta(trainer, done=trainer.current_epoch + 1)
            print(f"epoch {trainer.current_epoch + 1}/{total}  {text}  {rate}  eta {eta}", flush=True)

    def _eta(self, trainer: L.Trainer, done: float | None = None) -> str:
        epochs = trainer.max_epochs or -1
        if done is None:
            batches = trainer.num_training_batches
            done = trainer.current_epoch + trainer.fit_loop.epoch_loop.batch_progress.current.completed / max(
                1, batches
            )
        since = done - getattr(self, "_first", 0)
        if epochs <= 0 or since <= 0:
            return "?"
        left = (time.perf_counter() - self._begin) / since * (epochs - done)
        minutes, seconds = divmod(round(left), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
