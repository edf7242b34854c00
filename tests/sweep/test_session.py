"""The current session of a command, and of the process of a point."""

from multiprocessing import Pipe
from pathlib import Path

import pytest

from agebench.sweep.session import JobSession, SweepSession, current_job, current_sweep


def test_the_current_session_is_that_of_the_innermost_command() -> None:
    with SweepSession() as outer:
        outer.folder = Path("outer")
        with SweepSession() as inner:
            inside = current_sweep()
        after = current_sweep()

    assert inside is inner
    assert inside.folder is None
    assert after is outer


def test_a_session_ends_with_an_error_of_its_command() -> None:
    with pytest.raises(ZeroDivisionError), SweepSession():
        _ = 1 / 0

    with pytest.raises(RuntimeError, match=r"no sweep session: start the sweep with python -m agebench\.train"):
        current_sweep()


def test_only_the_process_of_a_point_has_a_job() -> None:
    receiver, sender = Pipe(duplex=False)

    with JobSession(None, sender) as job:
        inside = current_job()

    assert inside is job
    assert current_job() is None
    receiver.close()
    sender.close()
