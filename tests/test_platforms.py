"""What Windows and macOS lack is replaced: each test removes it, so that the code takes the branch of that platform."""

import ctypes
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import psutil
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from agebench import audit
from agebench.cli.overrides import to_hydra
from agebench.comparison.html_page import page_link
from agebench.data.threads import cores
from agebench.runs.folder import actual_status
from agebench.runs.read import Run
from agebench.sweep.job import kill_group, start_server
from agebench.training import memory, ranks


def test_cores_are_counted_where_a_process_has_no_affinity(monkeypatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)

    assert cores() == 7


@pytest.mark.parametrize("error", [TypeError, OSError, AttributeError], ids=["Windows", "no library", "macOS"])
def test_a_training_starts_where_the_c_library_has_no_mallopt(monkeypatch, error) -> None:
    asked = []

    def load(name: None) -> object:
        asked.append(name)
        if error is AttributeError:
            return SimpleNamespace()
        raise error

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.delenv("AGEBENCH_KEEP_MEMORY", raising=False)

    memory.keep_freed_memory()

    assert asked == [None]


def test_a_running_run_is_never_called_crashed_where_locks_cannot_be_read(monkeypatch, tmp_path) -> None:
    (tmp_path / ".lock").touch()
    free = actual_status(tmp_path, {"status": "running"})

    monkeypatch.setitem(sys.modules, "fcntl", None)  # the import fails, as on Windows

    assert free == "crashed"
    assert actual_status(tmp_path, {"status": "running"}) == "running"


def test_a_process_and_its_child_are_killed_where_there_are_no_process_groups(monkeypatch) -> None:
    monkeypatch.delattr(os, "killpg", raising=False)
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    code += "; sys.stdout.flush(); import time; time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))

    kill_group(parent.pid)

    assert parent.wait(10) != 0
    until = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.01)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    parent.stdout.close()
    kill_group(parent.pid)  # it does not exist any more


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_the_processes_of_a_sweep_are_spawned_where_a_fork_is_not_safe(monkeypatch, platform) -> None:
    if platform == "win32":
        monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    monkeypatch.setattr("agebench.sweep.job.sys", SimpleNamespace(platform=platform))

    assert start_server().get_start_method() == "spawn"


def test_this_process_draws_the_picture_of_an_audit_where_a_fork_is_not_safe(monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(audit, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(audit, "_draw", lambda *picture: drawn.append((os.getpid(), picture)))

    drawing = audit.Drawing()
    drawing.start("a picture")
    drawing.finish()
    drawing.close()

    assert drawn == [(os.getpid(), ("a picture",))]


def test_no_signals_are_recorded_on_windows(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(ranks, "sys", SimpleNamespace(platform="win32", argv=[]))
    watched = ranks._Peers(tmp_path, first=True)

    with watched.record_signals():
        assert watched.received is None


def test_the_page_of_a_run_on_another_drive_has_a_complete_address(monkeypatch, tmp_path) -> None:
    page = tmp_path / "a run" / "report" / "index.html"
    page.parent.mkdir(parents=True)
    page.touch()
    run = Run(page.parents[1], {}, {})

    def relpath(path: Path, start: Path) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", relpath)

    assert page_link(run, tmp_path) == f"file://{tmp_path.as_posix()}/a%20run/report/index.html"


@pytest.mark.parametrize(
    "path",
    [
        r"C:\Users\jo\faces",
        r"D:\out\2024",
        r"C:\photos (old)\(2024)",
        r"C:\data\[a]\{b}",
        r"\\server\share\faces",
        "C:\\faces\\",
        r"C:\Users\花子\写真",
        r".\outputs\run",
    ],
)
@pytest.mark.parametrize("key", ["data.root", "run"])
def test_a_path_of_windows_keeps_its_backslashes(path, key) -> None:
    written = to_hydra(f"{key}={path}", is_text=lambda _: True, sweeps=True)

    read = OverridesParser.create().parse_override(written).value()

    assert PureWindowsPath(str(read)) == PureWindowsPath(path)
    assert str(read) == path


def test_a_comma_in_a_path_of_windows_is_escaped_as_elsewhere() -> None:
    written = to_hydra(r"data.root=C:\a\,b\c", is_text=lambda _: True, sweeps=True)

    assert OverridesParser.create().parse_override(written).value() == r"C:\a,b\c"


WITHOUT_POSIX = """
import os, sys, multiprocessing.context
for name in ("fork", "forkpty", "killpg", "setsid", "nice", "sched_getaffinity", "fdatasync", "O_NOFOLLOW"):
    if hasattr(os, name):
        delattr(os, name)
sys.modules["fcntl"] = None
multiprocessing.context.DefaultContext.get_all_start_methods = lambda self: ["spawn"]
multiprocessing.get_all_start_methods = lambda: ["spawn"]
"""


@pytest.mark.ci
def test_a_sweep_trains_and_makes_its_pages_without_what_only_posix_has(tmp_path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_POSIX, encoding="utf-8")  # every process imports it
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "cp1252"}
    line = [sys.executable, "-m", "agebench.train", "data=digits", "model=mlp", "trainer.max_epochs=1", "sweep=here"]

    done = subprocess.run([*line, "-m", "seed=0,1"], cwd=tmp_path, env=environment, check=False, capture_output=True,
                          text=True, encoding="cp1252", timeout=300)  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("outputs/sweeps/here/*/results.json"))) == 2
    assert len(list(tmp_path.glob("outputs/sweeps/here/*/report/index.html"))) == 2
