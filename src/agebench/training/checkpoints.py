"""The checkpoint from which a run resumes: written atomically between two epochs."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from agebench.errors import UserError, chain
from agebench.files import atomic_write
from agebench.lightning_internals import (
    can_restart_between_epochs,
    finish_epoch_in,
    is_between_epochs,
    restart_at_epoch,
)

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically. Lightning moves them from /tmp, which is not atomic between two disks.

    Args:
        run_dir: The run directory, the only place where checkpoints are removed.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir.resolve()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a temporary file in the same folder, then rename it."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # With a file object, the error of a full disk is an OSError in the chain. With a path it has no reason.
        with atomic_write(Path(path)) as part, part.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's error about the incomplete file replaces an interrupt while writing
                if any(isinstance(each, KeyboardInterrupt) for each in chain(error)):
                    raise KeyboardInterrupt from error
                raise

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint. A resumed checkpoint names files to remove, and may be a stranger's."""
        if Path(path).resolve().is_relative_to(self.run_dir):
            super().remove_checkpoint(path)
        else:
            log.warning("%s is not removed, because it is not inside the run", path)


class LastCheckpoint(Callback):
    """Saves the training state between two epochs, after schedules, metrics and loggers are updated.

    Lightning saves at an epoch's end before a plateau schedule steps and before the epoch's metrics are logged. After a
    validation within an epoch it saves in the middle of the epoch. A training that resumes from those checkpoints
    differs from an uninterrupted one.

    If Lightning lacks a required attribute, the callback logs one line and writes no checkpoint.

    Args:
        file: The path of the checkpoint. A hard link next to it keeps the best checkpoint so far, because an
            interruption may discard the epoch of a later best checkpoint.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.epochs = 0  # number of complete epochs in the file
        self._metrics: dict[str, float] = {}
        self._saving = False
        self._kept_mtime_ns: int | None = None
        self._trainer: L.Trainer | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Store the trainer, which `state_dict` does not receive."""
        self._trainer = trainer

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the state after the previous epoch. Only an update of the schedule may come before this callback."""
        self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the final state."""
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save after SIGTERM if the epoch is complete: Lightning finishes the current epoch's last step first."""
        if isinstance(exception, SIGTERMException) and trainer.world_size == 1 and is_between_epochs(trainer):
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.current_epoch == self.epochs:
            return
        if not can_restart_between_epochs(trainer):
            return
        for logger in trainer.loggers:
            logger.save()  # so that the event file contains all steps of the checkpoint
        self.epochs, self._saving = trainer.current_epoch, True
        try:
            trainer.save_checkpoint(self.file, weights_only=False)
        finally:
            self._saving = False
        if trainer.is_global_zero:
            self._keep_best(trainer)

    def _keep_best(self, trainer: L.Trainer) -> None:
        best = Path(getattr(trainer.checkpoint_callback, "best_model_path", "") or self.file)
        if best == self.file or not best.is_file() or best.stat().st_mtime_ns == self._kept_mtime_ns:
            return
        self._kept_mtime_ns = best.stat().st_mtime_ns
        keep_best(best)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Set the epoch counters to complete epochs, because Lightning may already count the start of the next one."""
        if not self._saving:
            return
        checkpoint["epoch"] = self.epochs - 1  # Lightning stores the last complete epoch, from 0
        finish_epoch_in(checkpoint)

    def state_dict(self) -> dict[str, Any]:
        """Return what Lightning does not save: whether training should stop, and the metrics of callbacks."""
        trainer = self._trainer
        metrics = {} if trainer is None else {name: float(v) for name, v in trainer.callback_metrics.items()}
        stopped = trainer is not None and bool(trainer.should_stop)
        return {"epochs": self.epochs, "stopped": stopped, "metrics": metrics}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the state. A training that had stopped early stays stopped.

        Raises:
            UserError: If this version of Lightning cannot resume between two epochs.
        """
        for state in checkpoint["callbacks"].values():
            if "best_model_path" in state:
                move_paths(state, self.file.parent)
        own = checkpoint["callbacks"].get(self.state_key)
        if trainer.state.fn != TrainerFn.FITTING or own is None:
            return
        if not can_restart_between_epochs(trainer):
            raise UserError(
                f"{self.file} cannot be resumed: it needs a Lightning that can restart between two epochs, and "
                f"{L.__version__} lacks that; install the version that results.json names, or start over with "
                "resume=false"
            )
        self.epochs, self._metrics = own["epochs"], own["metrics"]
        trainer.should_stop = own["stopped"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start with a full epoch: with max_steps Lightning assumes that a checkpoint lies within an epoch."""
        if not self.epochs:
            return
        restart_at_epoch(trainer)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self._metrics.items()})


def kept_file(folder: Path) -> Path:
    """Return the path of the copy of the best checkpoint from the time when last.ckpt was written."""
    return folder / "best-of-last.ckpt"


def keep_best(best: Path) -> None:
    """Keep the best checkpoint under a second name: as a hard link, or as a copy if the disk does not support links."""
    with atomic_write(kept_file(best.parent)) as part:
        try:
            os.link(best, part)
        except OSError:
            shutil.copyfile(best, part)


def move_paths(state: dict[str, Any], folder: Path) -> None:
    """Update the paths in a ModelCheckpoint's state to its current folder, in case the run was moved."""
    here, there = os.path.realpath(folder), state.get("dirpath")

    def moved(path: str) -> str:
        return str(Path(here, Path(path).name)) if path else path

    if there is None or there == here:
        return
    state["dirpath"] = here
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = moved(state[key])
    state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}
