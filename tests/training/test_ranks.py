"""The processes of a DDP run end together, with one sentence and a true status."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from lightning.pytorch.strategies.launchers import subprocess_script

from agebench.errors import FailedError
from agebench.runs.writer import RunWriter
from agebench.training import ranks
from agebench.training.ranks import watch_ranks

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")


def launch(code: str = "import time; time.sleep(60)") -> subprocess.Popen[bytes]:
    """Start a process as Lightning starts a rank, and hand it to Lightning's observer."""
    process = subprocess.Popen([sys.executable, "-S", "-c", code])
    subprocess_script._launch_process_observer([process])
    return process


def lose_connection(run: Path, *, kill: bool) -> None:
    with watch_ranks(run, first=True):
        process = launch()
        if kill:
            process.kill()
        raise RuntimeError("Connection closed by peer")


def test_a_killed_process_explains_the_lost_connection(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="process 1 of this run was killed by signal 9, so the others ended too"):
        lose_connection(tmp_path, kill=True)


def test_a_process_that_was_interrupted_interrupts_this_one(tmp_path: Path) -> None:
    def lose_connection() -> None:
        with watch_ranks(tmp_path, first=True):
            launch("raise SystemExit(130)").wait(20)
            raise RuntimeError("Connection closed by peer")

    with pytest.raises(KeyboardInterrupt):
        lose_connection()


def test_an_error_of_this_process_stays_and_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "EXIT_S", 0.1)
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *given: started.append(popen(*given)) or started[-1])

    with pytest.raises(RuntimeError, match="Connection closed by peer"):
        lose_connection(tmp_path, kill=False)

    assert started[0].wait(10) == -9


def test_a_process_that_waits_for_a_dead_one_ends_and_writes_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "POLL_S", 0.01)
    monkeypatch.setattr(ranks, "GRACE_S", 0.1)
    RunWriter(tmp_path).update({"status": "running", "seed": 0})

    waiting = os.fork()
    if waiting == 0:
        with watch_ranks(tmp_path, first=True):
            launch().kill()
            time.sleep(60)
        os._exit(0)
    _, status = os.waitpid(waiting, 0)

    results = json.loads((tmp_path / "results.json").read_text())
    assert os.waitstatus_to_exitcode(status) == 1
    assert (results["status"], results["seed"]) == ("failed", 0)
    assert results["error"].startswith("process 1 of this run was killed by signal 9")


def test_an_interruption_that_the_main_thread_cannot_handle_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "POLL_S", 0.01)
    monkeypatch.setattr(ranks, "GRACE_S", 0.4)
    RunWriter(tmp_path).update({"status": "running"})

    waiting = os.fork()
    if waiting == 0:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with watch_ranks(tmp_path, first=True):
            launch().kill()
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 3 * 10**7)  # in C, as a collective that waits for a dead process
        os._exit(0)
    _, status = os.waitpid(waiting, 0)

    assert os.waitstatus_to_exitcode(status) == 1
    assert json.loads((tmp_path / "results.json").read_text()) == {"status": "interrupted"}


def test_a_process_that_waits_for_another_machine_can_be_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "POLL_S", 0.01)
    monkeypatch.setattr(ranks, "GRACE_S", 0.1)
    RunWriter(tmp_path).update({"status": "running"})

    waiting = os.fork()
    if waiting == 0:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with watch_ranks(tmp_path, first=True, machines=2):
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            hashlib.pbkdf2_hmac("sha256", b"", b"", 3 * 10**7)
        os._exit(0)
    _, status = os.waitpid(waiting, 0)

    assert os.waitstatus_to_exitcode(status) == 1
    assert json.loads((tmp_path / "results.json").read_text()) == {"status": "interrupted"}


def test_a_process_that_ended_before_it_could_handle_a_signal_interrupts_this_one(tmp_path: Path) -> None:
    def lose_connection() -> None:
        with watch_ranks(tmp_path, first=True):
            process = launch()
            process.terminate()
            process.wait(20)
            raise RuntimeError("Connection closed by peer")

    with pytest.raises(KeyboardInterrupt):
        lose_connection()


def test_the_status_of_the_main_thread_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "GRACE_S", 0.05)

    writing = os.fork()
    if writing == 0:
        peers = ranks._Peers(tmp_path, first=True)
        with peers.ending:  # the main thread leaves watch_ranks
            peers.add([subprocess.Popen(["false"])])
            time.sleep(0.5)
            peers.ended.set()
        RunWriter(tmp_path).update({"status": "interrupted"})
        time.sleep(0.2)
        os._exit(0)
    _, status = os.waitpid(writing, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert json.loads((tmp_path / "results.json").read_text()) == {"status": "interrupted"}


def test_without_other_processes_an_error_is_raised_at_once(tmp_path: Path) -> None:
    began = time.monotonic()

    with pytest.raises(RuntimeError, match="own"), watch_ranks(tmp_path, first=True):
        raise RuntimeError("own")

    assert time.monotonic() - began < ranks.EXIT_S
