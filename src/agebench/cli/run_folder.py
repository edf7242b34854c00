"""The folder that Hydra creates for a command, and its log file: what a refused or failed command leaves in it."""

import itertools
import logging
from contextlib import suppress
from pathlib import Path

from agebench.errors import UserError


def check_log_name(name: str) -> None:
    """Raise UserError if the name of the log file is a path. The file does not exist before the first message."""
    if Path(name).name != name:
        raise UserError(f"hydra.job.name must be a name without /, because the log file is NAME.log, got {name}")


def log_traceback(error: Exception) -> None:
    """Write a traceback into the log file, not to the console, which shows one sentence about the error."""
    cause = (type(error), error, error.__traceback__)
    record = logging.LogRecord(__name__, logging.ERROR, __file__, 0, "the command failed", None, cause)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            with suppress(OSError):  # the disk may be full
                handler.handle(record)


def remove_log(folder: Path, name: str) -> None:
    """Remove the log file of a refused command, which was written for the messages before the refusal.

    A folder with other files keeps it.
    """
    log = folder / f"{name}.log"
    if not log.is_file() or any(path != log for path in folder.iterdir()):
        return
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename) == log.absolute():
            handler.close()
    with suppress(OSError):
        log.unlink()


def remove_empty(folder: Path, *, outputs: Path | None = None) -> None:
    """Remove the folder that Hydra created for a command, if the command wrote nothing into it.

    Args:
        folder: Absolute path of the folder.
        outputs: Absolute path of `paths.output`. Empty folders between it and `folder` are removed too; if `folder` is
            elsewhere, only its parent, such as `evaluate` in a run. None: no other folder.
    """
    last = folder.parent if outputs is None else outputs if folder.is_relative_to(outputs) else folder.parent.parent
    with suppress(OSError):  # a folder is not empty
        for each in (folder, *itertools.takewhile(lambda parent: parent != last, folder.parents)):
            if each.exists() and not Path.cwd().is_relative_to(each.resolve()):
                each.rmdir()
