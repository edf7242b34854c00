"""tracking.json: the entry of a run in each tracker, by which a resumed run and the report's process continue it."""

import logging
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from agebench.errors import UserError
from agebench.files import read_json, write_json
from agebench.runs.folder import TRACKING


def read_entry(folder: Path, tracker: str) -> dict[str, Any]:
    """Return the entry of a run folder in a tracker such as `mlflow`; empty if it has none."""
    entry = read_json(folder / TRACKING).get(tracker)
    return entry if isinstance(entry, dict) else {}


def write_entry(folder: Path, tracker: str, entry: Mapping[str, Any]) -> None:
    """Write the entry of a run folder in a tracker, and keep those in other trackers."""
    write_json(folder / TRACKING, {**read_json(folder / TRACKING), tracker: entry})


def open_trackio(entry: Mapping[str, Any], *, resume: str = "allow") -> Any:
    """Return the open `trackio.Run` of an entry, without the lines that Trackio prints.

    Args:
        entry: With the keys `folder` (of all projects), `project`, `run` (its name), `group` and `config`, which
            replaces the one that Trackio has.
        resume: `allow` continues the latest run of this name, if any; `never` makes a new one.

    Raises:
        UserError: If Trackio already writes to another folder in this process; it reads the folder once.
    """
    os.environ["TRACKIO_DIR"] = entry["folder"]
    import trackio

    if (used := Path(trackio.utils.TRACKIO_DIR)) != Path(entry["folder"]):
        raise UserError(
            f"Trackio writes to one folder in a process, here {used}, got {entry['folder']}: start a new process, or "
            f"set logger.trackio.folder={used}"
        )
    with redirect_stdout(StringIO()):
        return trackio.init(
            entry["project"],
            entry["run"],
            group=entry["group"],
            config=entry["config"],
            resume=resume,
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )


def close_trackio() -> None:
    """End the open run of Trackio in this process, without the lines that Trackio prints."""
    import trackio

    with redirect_stdout(StringIO()):
        trackio.finish()


def open_aim(entry: Mapping[str, Any]) -> Any:
    """Return the open `aim.Run` of an entry: a new one if the entry has no key `run`, the hash.

    Args:
        entry: With the keys `repo` (a folder) and `experiment`.
    """
    import aim

    for name in ("aim.sdk.reporter", "aim.sdk.lock_manager"):  # they log internals at each start and resume
        logging.getLogger(name).setLevel(logging.ERROR)
    return aim.Run(
        entry.get("run"),
        repo=entry["repo"],
        experiment=entry["experiment"],
        force_resume="run" in entry,
        system_tracking_interval=None,
        log_system_params=False,
        capture_terminal_logs=False,  # train.log has the output
    )
