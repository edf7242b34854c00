"""The files of a run directory: its config, its results, and the check before a command writes into it."""

import json
import os
import shlex
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Required, TypedDict, get_args

from agebench.errors import UserError
from agebench.files import read_json, remove_link, write_text
from agebench.schema import Natural, find_mismatch

Status = Literal["running", "completed", "failed", "interrupted"]
STATUSES = get_args(Status)
FOLDERS = (".hydra", "checkpoints", "csv", "report", "report/projector")  # inside a run
TRACKING = "tracking.json"  # the entries of a run in MLflow, Weights & Biases, Trackio and Aim
CRASHED = "its process ended without a final status (killed, or the machine stopped); repeat its command to resume it"
WRITTEN_FIRST = {
    ".lock",
    "train.log",
    "console.log",
    "evaluate.log",
    "audit.log",
    "score.log",
}  # before the first result


class BestKeys(TypedDict, total=False):
    """`best` of results.json."""

    epoch: Natural | None
    value: float | None
    monitor: str
    mode: Literal["min", "max"]
    tested: Literal["best", "last"]


class ResultsKeys(TypedDict, total=False):
    """The content of results.json. A failed run holds what was known before it failed."""

    status: Required[Status]
    error: str
    seed: int
    config: str
    resumed: Natural
    protocol: str
    data_sha: str
    split_sha: str
    data: dict[str, Any]
    leak: dict[str, Any] | None
    baseline: dict[str, float | None]
    params: dict[str, int]
    versions: dict[str, str]
    git: str | None
    code: dict[str, str]
    earlier_code: list[dict[str, str]]
    device: str
    threads: int
    best: BestKeys
    epochs: Natural
    residency: str | None
    timing: dict[str, float | None]
    weights_sha: str
    metrics: dict[str, float | None]
    intervals: dict[str, Any]
    bootstrap: dict[str, Any]


def write_config(folder: Path, config: Any) -> None:
    """Write .hydra/ as Hydra does: the composed config, Hydra's own config, and the overrides."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    (folder / ".hydra").mkdir(exist_ok=True)
    files = {"config": config}
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        files["hydra"] = OmegaConf.create({"hydra": hydra})
        files["overrides"] = OmegaConf.create(list(hydra.overrides.task))
    for name, content in files.items():
        write_text(folder / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(content))


def read_results(folder: Path) -> dict[str, Any]:
    """Return a run's results.json.

    Raises:
        UserError: If the folder is not a run, or the file is damaged.
    """
    try:
        results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if not folder.exists():
            raise UserError(f"{folder} is not a run: it does not exist; give a folder that train wrote") from error
        below = (sorted(file.parent for file in folder.glob(f"{'*/' * depth}results.json")) for depth in (1, 2, 3))
        if runs := next(filter(None, below), []):
            raise UserError(
                f"{folder} is a folder of runs ({len(runs):,}), such as a sweep: give one of them, such as {runs[0]}"
            ) from error
        raise UserError(
            f"{folder} is not a run: it has no readable results.json; give a folder that train wrote"
        ) from error
    if (found := find_mismatch("", results, ResultsKeys)) is not None:
        raise UserError(f"{folder / 'results.json'} is damaged ({found}): restore it from a copy, or train again")
    return results


def report_command(folder: Path, *, level: str = "light") -> str:
    """Return the command that makes the report of a run, `light` or `full`."""
    return f"python -m agebench.report {shlex.quote(f'run={folder}')}{'' if level == 'light' else f' level={level}'}"


def actual_status(folder: Path, results: Mapping[str, Any]) -> str:
    """Return the status of a run: `crashed` instead of `running` if the process that wrote it has ended.

    A running process holds the lock of its folder. A run that was started on another machine stays `running`, because
    locks of other machines are not always visible here.

    Args:
        folder: The run directory.
        results: Content of its results.json.
    """
    status = str(results.get("status"))
    here = results.get("host", socket.gethostname()) == socket.gethostname()
    return "crashed" if status == "running" and here and not _is_locked(folder) else status


def _is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a run; True if it cannot be determined."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        lock = os.open(folder / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:  # a copy of a run, because a run creates its lock first
        return False
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # released by close
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def check_folder(folder: Path, kind: str) -> None:
    """Raise UserError unless a folder is new, empty, or was written by the same command, which replaces its files.

    Links in the place of log files and of the lock file are removed, and links in the place of folders are refused.

    Args:
        folder: The folder to write to.
        kind: What the folder may contain: `run`, `evaluation`, `score`, `audit` or `lr_find`.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another hydra.run.dir")
    for link in (folder / name for name in FOLDERS if (folder / name).is_symlink()):
        raise UserError(
            f"{link} is a link, and files are only written inside {folder}: replace it by a folder, or choose another "
            "hydra.run.dir"
        )
    for name in (*WRITTEN_FIRST, "csv/metrics.csv", "csv/hparams.yaml"):
        remove_link(folder / name)
    files = {path.name for path in folder.iterdir()} - WRITTEN_FIRST
    if not files:
        return
    results, audited = read_json(folder / "results.json"), read_json(folder / "audit.json")
    known = results.get("status") in STATUSES
    found = {
        "run": known and "run" not in results and isinstance(results.get("config"), str),
        "evaluation": known and isinstance(results.get("run"), str),
        "score": known and isinstance(results.get("scored"), dict),
        "audit": isinstance(audited.get("protocol"), str),
        "lr_find": "lr_find.csv" in files and not known,
    }
    if found[kind]:
        return
    other = next((name for name, is_found in found.items() if is_found), None)
    content = f"holds another {other}" if other else f"is not empty and holds no {kind} of agebench"
    raise UserError(f"{folder} {content} ({', '.join(sorted(files)[:3])}): choose another hydra.run.dir")


def is_first_process() -> bool:
    """Return whether this process writes the files of its run (rank 0 of the first machine under DDP)."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
    ranks = (os.environ.get(name, "0") for name in names)
    return all(rank in ("", "0") for rank in ranks)
