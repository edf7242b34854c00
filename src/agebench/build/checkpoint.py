"""Read a checkpoint of a run: its weights, with the config and labels in the same file."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from agebench.build.keys import LIGHT, NETWORK, TrainedKeys, check_nodes
from agebench.build.stamp import check_stored
from agebench.errors import UserError
from agebench.models.weights import hash_tensors
from agebench.runs.folder import CRASHED, actual_status
from agebench.runs.identity import path_is_identity
from agebench.runs.own_code import changed_code, own_code
from agebench.schema import check
from agebench.trust import check_trusted, find_foreign

log = logging.getLogger(__name__)

PREDICTING = ("model", "head", "augment")  # nodes of the config whose code may change a prediction


def read_checkpoint(
    run_dir: Path, choice: str, results: dict[str, Any], *, trust: bool
) -> tuple[Path, dict[str, Any], DictConfig]:
    """Return the path of a run's checkpoint, its content, and the config of the training.

    Relative paths in the config are relative to the folder in which the run was started.

    Args:
        run_dir: The run's folder.
        choice: `tested` (the checkpoint that the run tested), `best`, `last`, or a file.
        results: The content of the run's results.json.
        trust: Whether the config may name any code. The folder in which the run was started is then also searched for
            that code.

    Raises:
        UserError: If the file does not exist or is not a checkpoint of agebench, or if its config names code that is
            not part of agebench and `trust` is false.
    """
    name = results.get("best", {}).get("tested", "best") if choice == "tested" else choice
    path = run_dir / "checkpoints" / f"{name}.ckpt" if name in ("best", "last") else Path(name)
    status = actual_status(run_dir, results)
    if not path.is_file():
        raise UserError(f"no checkpoint {path} (the run is {status}): set checkpoint=best, last or a file")
    if status != "completed":
        why = f" ({CRASHED})" if status == "crashed" else ""
        log.warning("%s is %s%s, not completed: its weights are from an unfinished training", run_dir, status, why)
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        kind = type(error).__name__
        raise UserError(f"{path} is damaged or no checkpoint ({kind}): set checkpoint=best, last or a file") from error
    if not isinstance(stored, dict) or "agebench" not in stored:
        raise UserError(f"{path} is not a checkpoint of agebench: give a file in checkpoints/ of a run")
    check_stored(path, stored)
    stamp = stored["agebench"]
    check_weights(path, stored, results if choice == "tested" else {})
    config: Any = OmegaConf.create(stamp["config"])
    plain: Any = OmegaConf.to_container(config, resolve=False)
    started_in = str(stamp["started_in"])
    foreign = find_foreign(plain)
    if trust:
        sys.path.append(started_in)  # the user's own network may be defined there
    else:
        check_trusted(foreign, path)
    _check_config(
        path, plain, own=[name for key, name in foreign if key in {f"{part}._target_" for part in PREDICTING}]
    )
    if changed := changed_network(results, plain):
        log.warning("%s was trained with other code (%s): its weights may predict something else", run_dir, changed)
    _find_paths(config, Path(started_in))
    return path, stored, config


def _check_config(path: Path, config: Mapping[str, Any], *, own: Sequence[str]) -> None:
    """Raise UserError if a stored config is invalid, or does not fit the code that it names.

    Args:
        path: The path of the checkpoint, for messages.
        config: The config, as plain data.
        own: The names of code that is not part of agebench.
    """
    damaged = f"{path} holds a config that does not work"
    try:
        check("", config, TrainedKeys)
    except UserError as error:
        raise UserError(f"{damaged} ({error}): restore it from a copy") from error
    try:
        check_nodes(config, (*LIGHT, *NETWORK))
    except UserError as error:
        if own:
            raise UserError(f"{path} does not fit the code of {', '.join(own)} as it is now: {error}") from error
        raise UserError(f"{damaged} ({error}): restore it from a copy") from error


def changed_network(results: Mapping[str, Any], config: Any) -> str:
    """Return which code of the network, head and augmentation has changed since a training; empty if none has.

    Args:
        results: The content of the run's results.json.
        config: The config of the training: a mapping.
    """
    return changed_code(results.get("code"), own_code({part: config.get(part) for part in PREDICTING}))


def check_weights(path: Path, stored: dict[str, Any], results: Mapping[str, Any]) -> None:
    """Raise UserError if weights are damaged, not finite, or not those that a run's results describe.

    Args:
        path: Path of the checkpoint, for messages.
        stored: Content of the checkpoint.
        results: The content of results.json if it describes this checkpoint, else empty.
    """
    state, saved = stored["state_dict"], stored["agebench"]["weights_sha"]
    found = hash_tensors(state) if all(isinstance(each, Tensor) for each in state.values()) else None
    if found != saved:
        raise UserError(f"{path} is damaged: its weights differ from those that were saved; restore it from a copy")
    if results.get("weights_sha") not in (None, found):
        raise UserError(
            f"{path} does not hold the weights that results.json describes: restore it from a copy, or set "
            "checkpoint=best or last to use it anyway"
        )
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise UserError(f"{path} holds weights that are not finite: training diverged; train with a lower optim.lr")


def is_same_data(trained: DictConfig, cfg: DictConfig) -> bool:
    """Return whether the data set to test is the training data set, so that equal names mean the same image or person.

    A published data set is the same at every path. A user's own folder or table is another data set at another path.
    """
    if cfg.get("data") is None:
        return True
    if trained.data.name != cfg.data.name:
        return False
    roots = {Path(str(data.root)).expanduser().resolve() for data in (trained.data, cfg.data)}
    return len(roots) == 1 or not (_path_is_identity(trained) or _path_is_identity(cfg))


def _path_is_identity(config: DictConfig) -> bool:
    return path_is_identity(str(config.data.source._target_))


def _find_paths(config: DictConfig, started: Path) -> None:
    """Make paths in a config absolute if they exist relative to the folder in which the run was started."""
    lists = (f"data.split.{name}" for name in ("file", "train", "val", "test"))
    for key in ("data.root", "data.source.root", *lists, "paths.data", "paths.cache"):
        value = OmegaConf.select(config, key)
        if isinstance(value, str) and (started / value).exists():  # numbers in data/split=subset
            OmegaConf.update(config, key, str(started / value))
