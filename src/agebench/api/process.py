"""Run a part of a command in the process of a notebook: its errors as exceptions, its messages in the notebook."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agebench.config import config_folder
from agebench.errors import FailedError, UserError, chain
from agebench.files import LogFile
from agebench.text import ConsoleHandler, VisibleFormatter


@contextmanager
def errors_as_exceptions() -> Iterator[None]:
    """Context manager: raise an error that the user can fix as UserError, and an interruption as KeyboardInterrupt.

    The commands, and Lightning after Ctrl-C, raise SystemExit, which would end a kernel.
    """
    from agebench.cli.messages import explain

    try:
        yield
    except (UserError, FailedError):
        raise
    except SystemExit as end:
        if any(isinstance(each, KeyboardInterrupt) for each in chain(end)):
            raise KeyboardInterrupt from end
        raise FailedError(f"the command ended with the exit code {end.code}") from end
    except Exception as error:
        if (sentence := explain(error, config_folder())) is None:
            raise
        raise UserError(sentence) from error


@contextmanager
def log_messages(file: Path | None = None) -> Iterator[None]:
    """Context manager: show the messages of agebench, and append them to a log file."""
    logger = logging.getLogger("agebench")
    handlers: list[logging.Handler] = [ConsoleHandler(sys.stdout)]  # notebooks show stderr in red
    handlers[0].setFormatter(VisibleFormatter("%(message)s"))
    if file is not None:
        handlers.append(LogFile(file, delay=True))
        handlers[-1].setFormatter(VisibleFormatter("[%(asctime)s][%(levelname)s][%(name)s] %(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a notebook may have a handler of its own, which would repeat them
    for handler in handlers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="IProgress not found")  # of tqdm, which agebench does not need
            yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            with suppress(OSError):
                handler.close()
        logger.setLevel(level)
        logger.propagate = propagate
