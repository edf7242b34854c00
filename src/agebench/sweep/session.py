"""State that the components of one command share: SweepSession in the command, JobSession in the process of a point.

Hydra constructs the callback and the launcher, so they cannot receive these objects as arguments. They look them up
with `current_sweep` and `current_job`.
"""

from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from agebench.sweep.point import Point


@dataclass
class SweepSession:
    """State of one command. Inside `with SweepSession() as session:` it is the current session.

    Args:
        full_error: The user's own value of HYDRA_FULL_ERROR; None if it is not set.
        folder: The folder of the sweep, set by the Hydra callback; None for a single run.
        points: The points of the sweep, added by the launcher after they have run.
        refused: Number of trials of a search that could not start.
    """

    full_error: str | None = None
    folder: Path | None = None
    points: "list[Point]" = field(default_factory=list)
    refused: int = 0

    def __enter__(self) -> Self:
        self._token = _SWEEP.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        _SWEEP.reset(self._token)


@dataclass
class JobSession:
    """What the process of a point receives from the sweep. Inside `with JobSession(...):` it is the current job.

    Args:
        composed: The composed config of the point and Hydra's context; None to compose it again.
        progress: Connection for the messages of agebench.training.sweep_progress.
    """

    composed: tuple[Any, Any] | None
    progress: "Connection"

    def __enter__(self) -> Self:
        self._token = _JOB.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        _JOB.reset(self._token)


_SWEEP: ContextVar[SweepSession | None] = ContextVar("agebench_sweep", default=None)
_JOB: ContextVar[JobSession | None] = ContextVar("agebench_job", default=None)


def current_sweep() -> SweepSession:
    """Return the session of this command.

    Raises:
        RuntimeError: If the caller was not started by agebench.cli.main.
    """
    session = _SWEEP.get()
    if session is None:
        raise RuntimeError("there is no sweep session: start the sweep with python -m agebench.train -m ...")
    return session


def current_job() -> JobSession | None:
    """Return the session that the sweep passed to this process; None in a single run and in further DDP ranks."""
    return _JOB.get()
