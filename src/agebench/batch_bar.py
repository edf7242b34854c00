"""A bar of the images that are validated or tested, one batch after the other."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from agebench.progress import Bar


def count_images(loader: Any, batches: float) -> int | None:
    """Return the number of images in the first batches of a loader; None if it cannot be determined."""
    try:
        return round(len(loader.dataset) * min(1.0, batches / len(loader)))
    except (AttributeError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None


class BatchBar(Callback):
    """Shows a bar during each validation and each test."""

    def __init__(self) -> None:
        self._bar: Bar | None = None

    def _start(self, label: str, loader: Any, batches: list[int | float]) -> None:
        self._bar = Bar(label, total=count_images(loader, sum(batches)))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start a bar."""
        if not trainer.sanity_checking:
            self._start("validating", trainer.val_dataloaders, trainer.num_val_batches)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start a bar."""
        self._start("testing", trainer.test_dataloaders, trainer.num_test_batches)

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the images of a batch, on all devices."""
        if self._bar is not None:
            self._bar.update(len(batch.target) * trainer.world_size)

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    on_test_end = on_validation_end

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self.on_validation_end(trainer, pl_module)
