"""The checkpoint that a run goes on from: written whole, at the end of each epoch, and only then."""

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


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all; Lightning's own way moves it from /tmp, which may be another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a file beside it, then rename that."""
        part = Path(f"{path}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, part)
        part.replace(path)


class LastCheckpoint(Callback):
    """Saves the training between two epochs, where all of an epoch is done: schedule, tables, TensorBoard.

    Lightning's own save at an epoch's end comes before a plateau schedule's step and before the epoch's figures are
    logged; after a validation within an epoch it comes in the middle of one. A training that goes on from those is not
    the training that was interrupted.

    Args:
        file: Where. The best checkpoint as it was at that moment is kept beside it, as a hard link: a later one may be
            of an epoch that is lost when the run is interrupted.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.epochs = 0  # that were finished when the file was written
        self._metrics: dict[str, float] = {}
        self._saves = False
        self._kept: int | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what the epochs before this one came to; this must be the first callback."""
        self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end."""
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save when SIGTERM came in an epoch's last moments: Lightning then finishes the epoch before it stops."""
        progress = trainer.fit_loop.epoch_progress.current
        whole = progress.ready == progress.completed
        if isinstance(exception, SIGTERMException) and trainer.world_size == 1 and whole:
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.current_epoch == self.epochs:
            return
        for logger in trainer.loggers:
            logger.save()  # whatever is in the checkpoint is then on the disk in TensorBoard as well
        self.epochs, self._saves = trainer.current_epoch, True
        try:
            trainer.save_checkpoint(self.file, weights_only=False)
        finally:
            self._saves = False
        if trainer.is_global_zero:
            self._keep_best(trainer)

    def _keep_best(self, trainer: L.Trainer) -> None:
        best = Path(getattr(trainer.checkpoint_callback, "best_model_path", "") or self.file)
        if best == self.file or not best.is_file() or best.stat().st_mtime_ns == self._kept:
            return
        self._kept = best.stat().st_mtime_ns
        keep_best(best)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make it a checkpoint of finished epochs: the next one may have been announced already."""
        if not self._saves:
            return
        checkpoint["epoch"] = self.epochs - 1  # the last finished one, from 0, as Lightning has it
        loops = checkpoint["loops"]["fit_loop"]
        for count in loops["epoch_progress"].values():
            count["ready"] = count["started"] = count["processed"] = count["completed"]

    def state_dict(self) -> dict[str, Any]:
        """Return what Lightning forgets: whether training was told to stop, and the figures that callbacks look at."""
        trainer = self._trainer
        known = {} if trainer is None else {name: float(v) for name, v in trainer.callback_metrics.items()}
        stopped = trainer is not None and bool(trainer.should_stop)
        return {"epochs": self.epochs, "stopped": stopped, "metrics": known}

    _trainer: L.Trainer | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Hold the trainer: a callback's state is asked for without it."""
        self._trainer = trainer

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up a training where it stopped; a training that had ended stays so."""
        for state in checkpoint["callbacks"].values():
            if "best_model_path" in state:
                move_paths(state, self.file.parent)
        mine = checkpoint["callbacks"].get(self.state_key)
        if trainer.state.fn == TrainerFn.FITTING and mine is not None:
            self.epochs, self._metrics = mine["epochs"], mine["metrics"]
            trainer.should_stop = mine["stopped"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with a whole epoch: under max_steps Lightning takes every checkpoint for one from within an epoch."""
        if not self.epochs:
            return
        loop = trainer.fit_loop
        loop._restarting = False  # its setter would refuse
        loop.epoch_loop.restarting = False
        loop.reset_restart_stage()
        loop.epoch_loop.reset_restart_stage()
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self._metrics.items()})


def kept_file(folder: Path) -> Path:
    """Return where the best checkpoint is kept as it was at the last epoch's end."""
    return folder / "best-of-last.ckpt"


def keep_best(best: Path) -> None:
    """Keep a checkpoint that is about to be replaced by a better one, without copying it where the disk can."""
    kept = kept_file(best.parent)
    part = kept.with_suffix(".part")
    part.unlink(missing_ok=True)
    try:
        os.link(best, part)
    except OSError:
        shutil.copyfile(best, part)
    part.replace(kept)
    part.unlink(missing_ok=True)  # a rename between two links to one file does nothing


def move_paths(state: dict[str, Any], folder: Path) -> None:
    """Put the paths in a ModelCheckpoint's state into the folder where its files are now: a run may have been moved."""
    here, there = os.path.realpath(folder), state.get("dirpath")

    def moved(path: str) -> str:
        return str(Path(here, Path(path).name)) if path else path

    if there is None or there == here:
        return
    state["dirpath"] = here
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[key] = moved(state[key])
    state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}
