"""The runs that the key `run` names: one run, a list of runs, or the completed runs of a sweep."""

import logging
from pathlib import Path
from typing import Any

from agebench.errors import UserError
from agebench.runs.folder import actual_status, read_results
from agebench.runs.read import points_of

log = logging.getLogger(__name__)

OF_SWEEP = ("multirun.yaml", "sweep.csv")  # Hydra writes the first at the start, agebench the second at the end


def named_folders(given: Any) -> list[Path]:
    """Return the folders that the key `run` names: a folder, or a list of folders."""
    return [Path(str(each)).expanduser() for each in ([given] if isinstance(given, str | int) else given)]


def find_members(given: Any, *, quiet: bool = False) -> list[Path]:
    """Return the folders of the runs that the key `run` names, each once.

    Args:
        given: The value of the key: a folder, or a list of folders. Each is a run or a sweep, whose completed runs are
            taken.
        quiet: Whether to log nothing about runs that are left out.

    Raises:
        UserError: If a folder is not a run or a sweep, a run of a list has not completed, or a run occurs twice.
    """
    members = [member for folder in named_folders(given) for member in _runs_in(folder, quiet=quiet)]
    for i, member in enumerate(members):
        results = read_results(member)
        if len(members) > 1 and (status := actual_status(member, results)) != "completed":
            raise UserError(f"an ensemble needs completed runs, but {member} is {status}: train it to the end")
        if member.resolve() in [other.resolve() for other in members[:i]]:
            raise UserError(f"{member} is in run= twice: name each run once")
    return members


def find_teacher(given: Any) -> tuple[Path, dict[str, Any]]:
    """Return the folder that the key `teacher.run` names, and the content of its results.json.

    Raises:
        UserError: If it is not a completed run.
    """
    folder = Path(str(given)).expanduser()
    results = read_results(folder)
    if (status := actual_status(folder, results)) != "completed" or "run" in results:
        what = "an evaluation" if "run" in results else status
        raise UserError(f"teacher.run={folder} is {what}: a teacher must be a completed run of train")
    return folder, results


def reported_runs(given: Any) -> list[Path]:
    """Return the folders of the value of `run`: each a run, in any state, or a sweep, whose runs are taken.

    Raises:
        UserError: If a folder is neither.
    """
    found = []
    for folder in named_folders(given):
        points = [] if (folder / "results.json").exists() or not folder.is_dir() else points_of(folder)
        found += [point.folder for point in points if point.results] or [folder]
    for run in found:
        read_results(run)  # raises
        if (run / "report").is_symlink():
            raise UserError(f"{run / 'report'} is a link, and files are only written inside {run}: replace it")
    return found


def _runs_in(folder: Path, *, quiet: bool) -> list[Path]:
    """Return a run, or the completed runs directly inside a sweep's folder, or the only run inside another folder."""
    if "," in str(folder) and not folder.exists():
        raise UserError(f"there is no folder {folder}: several runs are a list in brackets, run=[a,b,c]")
    if (folder / "results.json").exists() or not folder.is_dir():
        return [folder]
    points = [run for run in points_of(folder) if run.evaluated is None]
    completed = [run.folder for run in points if run.status == "completed"]
    if points and not completed:
        raise UserError(f"none of the {len(points)} runs in {folder} is completed: train one to the end")
    if len(completed) > 1 and not any((folder / name).exists() for name in OF_SWEEP):
        raise UserError(
            f"{folder} is no sweep, and holds {len(completed)} runs: give one of them, such as run={completed[-1]}, or "
            "run=[a,b,c] to average them"
        )
    for run in points:
        if run.status != "completed" and not quiet:
            log.info("%s is left out: it is %s", run.folder, run.status)
    return completed or [folder]


def home_of(given: Any) -> str:
    """Return the folder into which a command for trained runs writes: that of the first run, or of the sweep."""
    return str(given) if isinstance(given, str | int) else str(next(iter(given), "."))
