"""A callback that reports the progress of one point to its sweep."""

import time
from multiprocessing.connection import Connection
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from agebench.metrics.table import find, live_keys
from agebench.training.callbacks import Speed

EVERY_S = 0.5  # seconds between two messages within an epoch


class SweepProgress(Callback):
    """Sends epoch, metrics, images/s and remaining time to the process of the sweep.

    Args:
        line: Connection to the process of the sweep.
        speed: Measures images/s.
    """

    def __init__(self, line: Connection, speed: Speed) -> None:
        self.line: Connection | None = line
        self.speed = speed
        self._sent = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Store the time and the epoch at which training starts; a resumed run does not start at epoch 0."""
        self._begin, self._first = time.monotonic(), trainer.current_epoch
        self._send(trainer, done=float(trainer.current_epoch), ended=False)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Send a message if the last one was sent more than EVERY_S ago."""
        if time.monotonic() - self._sent > EVERY_S:
            share = (args[2] + 1) / max(1.0, float(trainer.num_training_batches))
            self._send(trainer, done=trainer.current_epoch + min(1.0, share), ended=False)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Send the metrics of the epoch."""
        self._send(trainer, done=trainer.current_epoch + 1.0, ended=True)

    def _send(self, trainer: L.Trainer, *, done: float, ended: bool) -> None:
        if self.line is None or not trainer.is_global_zero:
            return
        epochs = trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None
        since = done - self._first
        left = (time.monotonic() - self._begin) / since * (epochs - done) if epochs and since > 0 else None
        known = trainer.callback_metrics
        shown = [key for key in live_keys(("val",)) if find(key).computed]  # not the loss, which depends on the head
        message = {
            "epoch": int(done) if ended else trainer.current_epoch + 1,
            "epochs": epochs,
            "metrics": {key: float(known[key]) for key in shown if key in known},
            "images_per_s": self.speed.images_per_s if ended else self.speed.now,
            "left_s": left,
            "epoch_ended": ended,
        }
        try:
            self.line.send(message)
        except (BrokenPipeError, OSError):
            self.line = None  # the sweep has closed it
        self._sent = time.monotonic()
