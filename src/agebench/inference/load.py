"""What a trained run has left: its weights, and the config and labels that travel with them."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from agebench.errors import UserError, told
from agebench.models.weights import hash_tensors
from agebench.trust import check_trusted, find_foreign

log = logging.getLogger(__name__)


def read_checkpoint(
    run_dir: Path, choice: str, results: dict[str, Any], *, trust: bool
) -> tuple[Path, dict[str, Any], DictConfig]:
    """Return the file of a run's weights, what it holds, and the config that they were trained by.

    Relative paths in the config are taken from where the run was started.

    Args:
        run_dir: The run's folder.
        choice: `tested` for the weights that its results are of, `best`, `last`, or a file.
        results: What its results.json holds.
        trust: Whether the config may name any code, which is then looked for where the run was started too.

    Raises:
        UserError: If there is no such file, it is no checkpoint of ours, or its config names code that is not part of
            agebench and `trust` is false.
    """
    name = results.get("best", {}).get("tested", "best") if choice == "tested" else choice
    path = run_dir / "checkpoints" / f"{name}.ckpt" if name in ("best", "last") else Path(name)
    status = results.get("status")
    if not path.is_file():
        raise UserError(f"there are no weights at {path}: the run is {status}; checkpoint=best, last or a file")
    if status != "completed":
        log.warning("%s is %s, not completed: its weights are those of an unfinished run", run_dir, status)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise nearly anything
        kind = type(error).__name__
        raise UserError(f"{path} is damaged or no checkpoint ({kind}): give checkpoint=best, last or a file") from error
    stamp = stored.get("agebench") if isinstance(stored, dict) else None
    if not isinstance(stamp, dict) or not isinstance(stamp.get("config"), dict):
        raise UserError(f"{path} is no checkpoint of agebench's: give one of a run's checkpoints/")
    check_weights(path, stored, results if choice == "tested" else {})
    config: Any = OmegaConf.create(stamp["config"])
    started_in = str(stamp["started_in"])
    if trust:
        sys.path.append(started_in)  # where a network of the user's own was found
    else:
        plain: Any = OmegaConf.to_container(config, resolve=False)
        check_trusted(find_foreign(plain), path)
    _find_paths(config, Path(started_in))
    return path, stored, config


def check_weights(path: Path, stored: dict[str, Any], results: Mapping[str, Any]) -> None:
    """Raise UserError if weights are damaged, not finite, or not those that a run's results describe.

    Args:
        path: Of the checkpoint, for messages.
        stored: What it holds.
        results: What results.json says of the weights in this file; empty if it says nothing.
    """
    found, saved = hash_tensors(stored["state_dict"]), stored["agebench"].get("weights_sha")
    if saved is None:
        raise UserError(f"{path} was saved by an older agebench, without a hash of its weights: train again")
    if found != saved:
        raise UserError(f"{path} is damaged: its weights are not those that were saved; restore it from a copy")
    if results.get("weights_sha") not in (None, found):
        raise UserError(
            f"{path} does not hold the weights that results.json describes: restore it from a copy, or give "
            "checkpoint=best or last to use it all the same"
        )
    if not all(tensor.isfinite().all() for tensor in stored["state_dict"].values()):
        raise UserError(f"{path} holds weights that are not finite, so training diverged: train with a lower optim.lr")


def make_trainer(cfg: DictConfig, trained: DictConfig, **more: Any) -> L.Trainer:
    """Return what runs a trained network on new images, silently and writing nothing.

    Args:
        cfg: The verb's config: `accelerator`, and `precision` or null for the run's.
        trained: The run's config.
        more: Further arguments of Lightning's Trainer.

    Raises:
        UserError: If there is no such device here, or it cannot do that precision.
    """
    try:
        return L.Trainer(
            accelerator=cfg.accelerator,
            precision=cfg.precision or trained.trainer.precision,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            **more,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise UserError(f"accelerator={cfg.accelerator} cannot be had here: {told(error).rstrip('.')}") from error


def _find_paths(config: DictConfig, started: Path) -> None:
    """Make the paths in a config absolute that are found in the folder where the run was started."""
    lists = (f"data.split.{name}" for name in ("file", "train", "val", "test"))
    for key in ("data.root", "data.source.root", *lists, "paths.data", "paths.cache"):
        value = OmegaConf.select(config, key)
        if isinstance(value, str) and (started / value).exists():  # data/split=subset has numbers there
            OmegaConf.update(config, key, str(started / value))
