"""What an earlier start of a run left in its folder, and whether the run goes on from there."""

import contextlib
import logging
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agebench.config import flatten
from agebench.errors import UserError
from agebench.files import atomic_write
from agebench.models.weights import hash_tensors
from agebench.runs.folder import is_first_process, read_results
from agebench.runs.identity import config_hash, has_effect
from agebench.training.checkpoints import keep_best, kept_file, move_paths

log = logging.getLogger(__name__)

# What a run writes beside its checkpoints, and what would be wrong beside those of another; TensorBoard shows nobody's
# features while one projector_config.pbtxt names files that are gone.
WRITTEN = (
    "metrics.csv",
    "predictions.csv",
    "per_class.csv",
    "error_by_decade.csv",
    "cs_curve.csv",
    "projector_config.pbtxt",
)
UNREADABLE = (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, AttributeError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Start:
    """Where a training starts."""

    checkpoint: Path | None = None  # None: at the beginning
    epochs: int = 0  # finished already
    step: int = 0  # the first that is still to come


def read_previous(folder: Path) -> dict[str, Any]:
    """Return the results.json of an earlier start in this folder, empty if there was none."""
    try:
        return read_results(folder)
    except UserError:
        return {}


def finished(
    folder: Path, before: Mapping[str, Any], *, config: str, sha: Callable[[], str], quiet: bool = False
) -> float | None:
    """Return the best value of a run that is complete in this folder already, or None.

    Args:
        folder: The run directory.
        before: What its results.json holds.
        config: The hash of the config that is to run.
        sha: Works out the hash of the images and labels that are there now.
        quiet: Whether to leave out the log line that there is nothing to do.

    Raises:
        UserError: If the folder holds a complete run of another config, or of other images, which must not be lost.
    """
    if before.get("status") != "completed":
        return None
    if before.get("config") != config:
        raise UserError(f"{folder} holds a finished run of another config: choose another hydra.run.dir or sweep")
    if before.get("data_sha") != sha():
        raise UserError(
            f"{folder} holds a finished run of this config on other images or labels than are there now: "
            "choose another hydra.run.dir or sweep"
        )
    if not quiet:
        log.info("%s is complete with this config: nothing to do", folder)
    return float(before["best"]["value"] if before["best"]["value"] is not None else "nan")


def find_start(folder: Path, before: Mapping[str, Any], *, config: Mapping[str, Any], sha: str, resume: Any) -> Start:
    """Return where a run starts: after the last epoch that was finished in its folder, if it is the same run.

    It changes nothing, so that every process of a run comes to the same answer.

    Args:
        folder: The run directory.
        before: What its results.json held when this process started.
        config: The config that is to run, as plain data.
        sha: The hash of its images and labels.
        resume: The key of that name; false starts at the beginning.
    """
    last, wanted = folder / "checkpoints" / "last.ckpt", config_hash(config)
    if resume is False or not last.is_file():
        if resume is not False and before.get("config") not in (None, wanted):
            _say("%s holds an unfinished run of another config (%s): starting over", folder, before["config"])
        return Start()
    try:
        held = torch.load(last, map_location="cpu", weights_only=True, mmap=True)
        stamp, epochs = held["agebench"], int(held["callbacks"]["LastCheckpoint"]["epochs"])
        known = stamp.get("config_hash"), stamp.get("data_sha")
        step = int(held["global_step"])
        if stamp["weights_sha"] != hash_tensors(held["state_dict"]):
            raise ValueError("its weights are not those that were saved")
    except UNREADABLE as error:
        _say("%s cannot be gone on from (%s): starting over", last, type(error).__name__)
        return Start()
    if known[0] != wanted:
        there = _differing(stamp["config"], config)
        _say("%s holds an unfinished run of another config (%s): starting over", folder, there)
        return Start()
    if known[1] != sha:
        _say("%s holds an unfinished run of this config on other images or labels: starting over", folder)
        return Start()
    best = _best_of(held, last.parent)
    if best is not None and _right_best(best, step) is None:
        _say("%s has lost the best checkpoint of its unfinished run: starting over", folder)
        return Start()
    return Start(last, epochs, step)


def prepare(folder: Path, start: Start) -> None:
    """Make a folder ready to be written from there on; of a run that starts over nothing stays."""
    # What an earlier start was writing when it was killed.
    _remove(folder, "*.[0-9]*-[0-9]*.part", inside=("", "checkpoints"))
    if start.checkpoint is not None:
        held = torch.load(start.checkpoint, map_location="cpu", weights_only=True, mmap=True)
        best = _best_of(held, start.checkpoint.parent)
        if best is not None and (right := _right_best(best, start.step)) is not None:
            if right != best:
                with atomic_write(best) as part:
                    shutil.copyfile(right, part)
            keep_best(best)
        return
    _remove(folder, "events.out.tfevents*", *WRITTEN)
    _remove(folder, "*.ckpt", inside=("checkpoints",))
    _remove(folder, "index.html", "*.png", "*.csv", "*.npz", inside=("report",))
    if not (folder / "report").is_symlink():
        with contextlib.suppress(OSError):  # it is not there, or holds files that are not ours
            (folder / "report").rmdir()


def _remove(folder: Path, *patterns: str, inside: Sequence[str] = ("",)) -> None:
    """Remove the files of a run that match a pattern, directly inside it or inside named folders of it.

    A link is never followed: what it points to may not belong to the run.
    """
    for place in (folder / name for name in inside):
        if place.is_symlink():
            continue
        for file in (file for pattern in patterns for file in place.glob(pattern)):
            if file.is_file() and not file.is_symlink():
                file.unlink(missing_ok=True)


def tidy(folder: Path) -> None:
    """Remove what only a run that is not finished needs."""
    kept_file(folder / "checkpoints").unlink(missing_ok=True)


def _best_of(held: Mapping[str, Any], folder: Path) -> Path | None:
    """Return where the best checkpoint should lie that a last one knows of, if it knows one."""
    for state in held["callbacks"].values():
        if state.get("best_model_path"):
            moved = dict(state)
            move_paths(moved, folder)
            return Path(moved["best_model_path"])
    return None


def _right_best(best: Path, step: int) -> Path | None:
    """Return the file with the best weights of the steps up to the last checkpoint's.

    A best checkpoint from a later step is of an epoch that is lost and will be trained again, perhaps with other bits.
    """
    for path in (best, kept_file(best.parent)):
        try:
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            if held["global_step"] <= step and held["agebench"]["weights_sha"] == hash_tensors(held["state_dict"]):
                return path
        except UNREADABLE:
            continue
    return None


def _differing(other: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return what another config has that this one has not, as `key=value`."""
    there, here = flatten(other), flatten(config)
    differ = [f"{key}={value}" for key, value in there.items() if has_effect(key) and here.get(key) != value]
    return ", ".join(differ[:3]) or "of fewer keys"


def _say(message: str, *arguments: Any) -> None:
    if is_first_process():
        log.warning(message, *arguments)
