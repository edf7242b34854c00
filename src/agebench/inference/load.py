"""The trainer of the commands for trained runs."""

from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from agebench.batch_bar import BatchBar
from agebench.errors import UserError, one_line_message


def make_trainer(cfg: DictConfig, trained: DictConfig, **more: Any) -> L.Trainer:
    """Return a Trainer that runs a trained network on new images. It shows a bar and writes nothing.

    Args:
        cfg: The command's config: `accelerator`, and `precision`, where null means that of the run.
        trained: The run's config.
        more: Further arguments of Lightning's Trainer.

    Raises:
        UserError: If this machine has no such device, or the device does not support the precision.
    """
    try:
        return L.Trainer(
            accelerator=cfg.accelerator,
            precision=cfg.precision or trained.trainer.precision,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            callbacks=[BatchBar()],
            **more,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        reason = one_line_message(error).rstrip(".")
        raise UserError(f"accelerator={cfg.accelerator} is not available here: {reason}") from error
