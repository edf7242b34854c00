"""Resume a run: find its last checkpoint, check that it is the same run, and clean its folder."""

import contextlib
import logging
import pickle
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from agebench.config import flatten
from agebench.errors import UserError
from agebench.files import atomic_write
from agebench.models.weights import hash_tensors
from agebench.runs.command_line import arguments_of
from agebench.runs.folder import is_first_process, read_results
from agebench.runs.identity import config_hash, has_effect
from agebench.runs.own_code import changed_code
from agebench.training.checkpoints import keep_best, kept_file, move_paths
from agebench.trust import find_foreign, find_foreign_overrides

log = logging.getLogger(__name__)

# Files of a run that are removed when it starts over. TensorBoard's projector shows nothing while a
# projector_config.pbtxt names files that do not exist.
WRITTEN = (
    "metrics.csv",
    "predictions.csv",
    "params.csv",
    "per_class.csv",
    "error_by_decade.csv",
    "cs_curve.csv",
    "decision.csv",
    "groups.csv",
    "by_group.csv",
    "layers.csv",
    "projector_config.pbtxt",
)
UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    pickle.UnpicklingError,
)


@dataclass(frozen=True)
class Start:
    """Where a training starts."""

    checkpoint: Path | None = None  # None: start from the beginning
    epochs: int = 0  # number of finished epochs
    step: int = 0  # index of the first step to train


def read_previous(folder: Path) -> dict[str, Any]:
    """Return the content of results.json of an earlier run in this folder; empty if there is none."""
    try:
        return read_results(folder)
    except UserError:
        return {}


def finished(
    folder: Path, previous: Mapping[str, Any], *, config: str, sha: Callable[[], str], quiet: bool = False
) -> float | None:
    """Return the best monitored value of a completed run in this folder; None if there is no completed run.

    Args:
        folder: The run directory.
        previous: Content of its results.json.
        config: Hash of the config to run.
        sha: Computes the hash of the current images and labels.
        quiet: Whether to omit the log message that there is nothing to do.

    Raises:
        UserError: If the folder contains a completed run of another config or of other images. It is not overwritten.
    """
    if previous.get("status") != "completed":
        return None
    if previous.get("config") != config:
        raise UserError(f"{folder} holds a finished run of another config: choose another hydra.run.dir or sweep")
    if previous.get("data_sha") != sha():
        raise UserError(
            f"{folder} holds a finished run of this config, but the images or labels have changed since: "
            "choose another hydra.run.dir or sweep"
        )
    if not quiet:
        log.info("%s is complete with this config: nothing to do", folder)
    value = previous.get("best", {}).get("value")
    return float("nan" if value is None else value)


def find_start(folder: Path, previous: Mapping[str, Any], *, config: Mapping[str, Any], sha: str, resume: Any) -> Start:
    """Return where a run starts: after the last finished epoch in its folder if it is the same run, else at the start.

    This function changes no file, so all processes of a run get the same result.

    Args:
        folder: The run directory.
        previous: Content of its results.json when this process started.
        config: The config to run, as plain data.
        sha: Hash of its images and labels.
        resume: Value of the key `resume`; false starts from the beginning.
    """
    last, wanted = folder / "checkpoints" / "last.ckpt", config_hash(config)
    if resume is False or not last.is_file():
        if resume is not False and previous.get("config") not in (None, wanted):
            _warn("%s holds an unfinished run of another config (%s): starting over", folder, previous["config"])
        return Start()
    try:
        checkpoint = torch.load(last, map_location="cpu", weights_only=True, mmap=True)
        stamp, epochs = checkpoint["agebench"], int(checkpoint["callbacks"]["LastCheckpoint"]["epochs"])
        known = stamp.get("config_hash"), stamp.get("data_sha")
        step, best = int(checkpoint["global_step"]), _best_of(checkpoint, last.parent)
        if stamp["weights_sha"] != hash_tensors(checkpoint["state_dict"]):
            raise ValueError("its weights differ from those that were saved")
        if checkpoint.get("optimizer_states") == []:  # Lightning would start with a new optimizer
            raise ValueError("it has no state of the optimizer")
    except UNREADABLE as error:
        _warn("cannot resume from %s (%s): starting over", last, type(error).__name__)
        return Start()
    if known[0] != wanted:
        different = _differing(stamp["config"], config)
        _warn("%s holds an unfinished run of another config (%s): starting over", folder, different)
        return Start()
    if known[1] != sha:
        _warn("%s holds an unfinished run of this config on other images or labels: starting over", folder)
        return Start()
    if best is not None and _right_best(best, step) is None:
        _warn("%s lacks the best checkpoint of its unfinished run: starting over", folder)
        return Start()
    return Start(last, epochs, step)


def kept_epochs(folder: Path, config: str) -> int:
    """Return the number of epochs that the last checkpoint of a run contains; 0 if there is no checkpoint yet.

    Args:
        folder: The run directory.
        config: Hash of the run's config. A checkpoint of another config is not continued.
    """
    try:
        checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True, mmap=True)
        is_own = checkpoint["agebench"]["config_hash"] == config
        return int(checkpoint["callbacks"]["LastCheckpoint"]["epochs"]) if is_own else 0
    except UNREADABLE:
        return 0


def prepare(folder: Path, start: Start) -> None:
    """Prepare the folder of a run for writing. If the run starts over, its earlier files are removed."""
    # Temporary files of a process that was killed.
    _remove(folder, "*.[0-9]*-[0-9]*.part", inside=("", "checkpoints", "report"))
    _remove(folder, "nan.pt")  # of a step that is trained again
    _remove(folder, "index.html", inside=("report",))  # made for an unfinished run
    if start.checkpoint is not None:
        checkpoint = torch.load(start.checkpoint, map_location="cpu", weights_only=True, mmap=True)
        best = _best_of(checkpoint, start.checkpoint.parent)
        if best is not None and (right := _right_best(best, start.step)) is not None:
            if right != best:
                with atomic_write(best) as part:
                    shutil.copyfile(right, part)
            keep_best(best)
        return
    _remove(folder, "events.out.tfevents*", *WRITTEN)
    _remove(folder, "*.ckpt", inside=("checkpoints",))
    _remove(folder, "*.png", "*.csv", "*.npz", inside=("report",))
    if not (folder / "report").is_symlink():
        with contextlib.suppress(OSError):  # it does not exist, or holds other files
            (folder / "report").rmdir()


def discard(folder: Path) -> None:
    """Remove the files of a run that trained nothing, and its folder unless it holds other files."""
    prepare(folder, Start())
    _remove(folder, "results.json", "split.csv", "missing.csv", "broken.csv", "train.log", ".lock")
    _remove(folder, "config.yaml", "hydra.yaml", "overrides.yaml", inside=(".hydra",))
    _remove(folder, "metrics.csv", "hparams.yaml", inside=("csv",))
    for name in (".hydra", "checkpoints", "csv", ""):
        with contextlib.suppress(OSError):  # it does not exist, is a link, or holds other files
            (folder / name).rmdir()


def _remove(folder: Path, *patterns: str, inside: Sequence[str] = ("",)) -> None:
    """Remove the files that match a pattern, directly in a folder or in the named folders inside it.

    Links are not followed, because their targets may not belong to the run.
    """
    for place in (folder / name for name in inside):
        if place.is_symlink():
            continue
        for file in (file for pattern in patterns for file in place.glob(pattern)):
            if file.is_file() and not file.is_symlink():
                file.unlink(missing_ok=True)


def tidy(folder: Path) -> None:
    """Remove the files that only an unfinished run needs."""
    kept_file(folder / "checkpoints").unlink(missing_ok=True)


def resume_command(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the command that resumes a run, with trust=true if it would be refused without.

    Args:
        folder: The run directory, with `.hydra/`.
        config: The config of the run, as plain data.
    """
    foreign = find_foreign(config) or find_foreign_overrides(arguments_of(folder))
    return shlex.join(["python", "-m", "agebench.train", f"resume={folder}", *(["trust=true"] if foreign else [])])


def code_facts(previous: Mapping[str, Any], code: Mapping[str, str], *, resumed: bool) -> dict[str, Any]:
    """Return `code` and `earlier_code` of results.json; nothing for a run without code of the user's own.

    Args:
        previous: Content of results.json of an earlier start.
        code: What `own_code` returns now.
        resumed: Whether epochs of the earlier start are kept.
    """
    earlier = list(previous.get("earlier_code", [])) if resumed else []
    if resumed and changed_code(previous.get("code"), code):
        earlier.append(previous["code"])
    return {**({"code": dict(code)} if code else {}), **({"earlier_code": earlier} if earlier else {})}


def warn_of_changed_code(
    folder: Path, previous: Mapping[str, Any], code: Mapping[str, str], *, progress: Connection | None
) -> None:
    """Log a warning, and send it to the sweep, if the user's own code has changed since an earlier start.

    Args:
        folder: The run directory.
        previous: Content of its results.json when this process started.
        code: What `own_code` returns now.
        progress: Connection to the sweep that this training is a point of, or None.
    """
    if not (changed := changed_code(previous.get("code"), code)) or not is_first_process():
        return
    if previous.get("status") == "completed":
        sentence = f"is complete, and was trained with other code ({changed})"
    else:
        sentence = f"is resumed after epochs that were trained with other code ({changed})"
    sentence += ": to train with the present code, use a new sweep= or hydra.run.dir, or delete the run"
    log.warning("%s %s", folder, sentence)
    if progress is not None:
        with contextlib.suppress(OSError):  # the sweep has closed it
            progress.send({"warning": sentence})


def _best_of(checkpoint: Mapping[str, Any], folder: Path) -> Path | None:
    """Return the path of the best checkpoint that a last checkpoint names; None if it names none."""
    for state in checkpoint["callbacks"].values():
        if state.get("best_model_path"):
            moved = dict(state)
            move_paths(moved, folder)
            return Path(moved["best_model_path"])
    return None


def _right_best(best: Path, step: int) -> Path | None:
    """Return the checkpoint with the best weights up to a step; None if there is no such file.

    A best checkpoint of a later step is from an epoch that will be trained again, possibly with different rounding.
    """
    for path in (best, kept_file(best.parent)):
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            sha = checkpoint["agebench"]["weights_sha"]
            if checkpoint["global_step"] <= step and sha == hash_tensors(checkpoint["state_dict"]):
                return path
        except UNREADABLE:
            continue
    return None


def _differing(other: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return the first values of another config that differ from this one, as `key=value`."""
    theirs, ours = flatten(other if isinstance(other, Mapping) else {}), flatten(config)
    differ = [f"{key}={value}" for key, value in theirs.items() if has_effect(key) and ours.get(key) != value]
    return ", ".join(differ[:3]) or "with fewer keys"


def _warn(message: str, *arguments: Any) -> None:
    if is_first_process():
        log.warning(message, *arguments)
