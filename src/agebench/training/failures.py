"""Errors that end a training, as sentences."""

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from agebench.errors import FailedError, UserError, is_out_of_memory, one_line_message
from agebench.files import atomic_write
from agebench.runs.writer import RunWriter
from agebench.step_check import NonFiniteError
from agebench.training import resume
from agebench.training.callbacks import failed_callback
from agebench.training.parts import Training
from agebench.user_code import place


def explain_non_finite(error: NonFiniteError, training: Training, writer: RunWriter) -> str:
    """Return a sentence about a step that went wrong. Write what reproduces it, if it is known, to nan.pt."""
    plan, step = training.data.plan, error.step
    names = [str(plan.records.names[plan.split.train[row]]) for rows in step.rows for row in rows.tolist()]
    if not names or not writer.enabled:
        return error.describe(names)
    module, last = training.module, training.run_dir / "checkpoints" / "last.ckpt"
    stored = {
        "what": error.what,
        "step": step.index,
        "epoch": step.epoch,
        "rate": float(step.rate),
        "losses": [float(loss) for loss in step.losses],
        "last_losses": error.last_losses,
        "rows": [rows.cpu() for rows in step.rows],
        "names": names,
        "rng": step.rng,
        "config": training.config,
        "state_dict": module.state_dict() if error.is_current else None,
        "optimizer": training.trainer.optimizers[0].state_dict() if error.is_current else None,
        "checkpoint": str(last) if last.is_file() else None,
    }
    file = training.run_dir / "nan.pt"
    with atomic_write(file) as part:
        torch.save(stored, part)
    return error.describe(names, str(file))


def known_error(error: Exception, training: Training, start: resume.Start) -> Exception | None:
    """Return the error to raise instead of one whose cause is known; None for the bugs of agebench or of the user."""
    trainer, why = training.trainer, f"{one_line_message(error)[:200]}{place(error)}"
    if (name := failed_callback(error)) is not None:
        return UserError(f"the callback {name} cannot be used with agebench ({why}): remove it")
    if isinstance(error, MisconfigurationException) and "conditioned on metric" in why:  # a schedule of the user's
        return UserError(
            f"the schedule needs a metric that this run does not compute ({why}): return another `monitor`"
        )
    if type(error).__name__ == "DistStoreError":
        return FailedError(
            f"not all {trainer.world_size} processes on {trainer.num_nodes} machines connected ({why}): start the "
            "others in time, or set trainer.num_nodes=1"
        )
    if place(error):
        return None
    damaged = isinstance(error, AttributeError | KeyError | TypeError | ValueError | RuntimeError | IndexError)
    if damaged and start.checkpoint and not training.speed.has_started and not is_out_of_memory(error):
        return UserError(
            f"cannot resume from {start.checkpoint} ({type(error).__name__}: {why}): restore it from a copy, or start "
            "over with resume=false"
        )
    return None
