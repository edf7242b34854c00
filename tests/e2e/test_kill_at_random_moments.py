"""Runs that are killed, signalled or out of disk, resumed, and compared bit by bit with an uninterrupted run.

AGEBENCH_KILLS is the number of kills with SIGKILL (default 40). `pytest -s` shows each of them.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from agebench.runs.read import read_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Windows has other signals"),
]
KILLS = int(os.environ.get("AGEBENCH_KILLS", "40"))
BASE = ("data=digits", "data.limit=400", "model.hidden=[16]", "trainer.accelerator=cpu", "callbacks.progress=null")
DDP = ("trainer.devices=2", "trainer.strategy=ddp")
# Kind of run: its arguments, and its share of the kills. A run without a report ends earlier.
KINDS = {
    "fit": ((*BASE, "trainer.max_epochs=30", "augment=digits", "data.num_workers=1", "report=false"), 10),
    "steps": ((*BASE, "trainer.max_epochs=10", "trainer.val_check_interval=0.5", "report=false"), 6),
    "report": ((*BASE, "trainer.max_epochs=2"), 8),
    "sweep": (("-m", *BASE, "trainer.max_epochs=8", "report=false", "seed=0,1", "launcher.jobs=2"), 8),
    "ddp": ((*BASE, *DDP, "trainer.max_epochs=20", "report=false"), 8),
}
# When a process is killed: up to its first finished epoch (imports first), up to its results, or up to its exit.
PLAN = {"report": ("early", "late", *["training", "late"] * 3)}  # it is drawn late
DEFAULT_PLAN = ("early", *["training"] * 6, "late")
FILES = ("metrics.csv", "predictions.csv", "split.csv", "per_class.csv")
ENDLESS = "trainer.max_epochs=100000"
WAIT_S = 600


STARTED: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """End the process groups of a test that failed."""
    yield
    for process in STARTED:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    STARTED.clear()


@pytest.fixture(autouse=True)
def signals_are_accepted() -> Iterator[None]:
    """Let started processes accept the signals that `nohup` and a shell in the background ignore."""
    ignored = [each for each in (signal.SIGHUP, signal.SIGQUIT) if signal.getsignal(each) is signal.SIG_IGN]
    for each in ignored:
        signal.signal(each, signal.SIG_DFL)
    yield
    for each in ignored:
        signal.signal(each, signal.SIG_IGN)


def start(folder: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a run, or a sweep in a folder `sweep`, in a process group of its own."""
    where = f"hydra.sweep.dir={folder}" if "-m" in arguments else f"hydra.run.dir={folder}"
    with Path(f"{folder}.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "agebench.train", *arguments, where],
            cwd=folder.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    STARTED.append(process)
    return process


def runs_in(folder: Path) -> dict[str, Path]:
    return {str(file.parent.relative_to(folder)): file.parent for file in sorted(folder.rglob("results.json"))}


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / name, map_location="cpu", weights_only=True)["state_dict"]


def assert_same(found: Path, expected: Path) -> None:
    """Compare every file with results, and every weight, bit by bit."""
    assert runs_in(found).keys() == runs_in(expected).keys()
    for name, theirs in runs_in(expected).items():
        ours = runs_in(found)[name]
        assert (results(ours)["status"], results(ours)["metrics"]) == ("completed", results(theirs)["metrics"])
        for file in FILES:
            assert (ours / file).read_bytes() == (theirs / file).read_bytes(), (name, file)
        for file in ("best.ckpt", "last.ckpt"):
            mine, other = weights(ours, file), weights(theirs, file)
            assert mine.keys() == other.keys()
            assert all(torch.equal(mine[key], other[key]) for key in mine), (name, file)


def finished_epochs(folder: Path) -> int:
    """Return the number of epochs in metrics.csv of a run, or of the point of a sweep that has most."""
    return max((file.read_text().count("\n") - 1 for file in folder.rglob("metrics.csv")), default=0)


def is_completed(folder: Path) -> bool:
    """Return whether a run, or every point of a sweep, has its results."""
    return {results(run)["status"] for run in runs_in(folder).values()} == {"completed"}


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[bytes], folder: Path) -> float:
    """Wait for a state of a running process, and return the time."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end and process.poll() is None and not reached():
        time.sleep(0.02)
    assert reached(), Path(f"{folder}.log").read_text()
    return time.monotonic()


def wait_for_epochs(process: subprocess.Popen[bytes], folder: Path, count: int) -> float:
    return wait_until(lambda: finished_epochs(folder) >= count, process, folder)


def rank_1(process: subprocess.Popen[bytes]) -> psutil.Process:
    [found] = [
        each
        for each in psutil.Process(process.pid).children()
        if any("train_ddp_process_1" in a for a in each.cmdline())
    ]
    return found


def kill_at(process: subprocess.Popen[bytes], moment_s: float, *, other_rank: bool) -> bool:
    """Kill a process after a time; return whether it was still running."""
    try:
        process.wait(moment_s)
    except subprocess.TimeoutExpired:
        if other_rank and (ranks := psutil.Process(process.pid).children()):
            ranks[-1].kill()
            process.wait(WAIT_S)
            return True
        left = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        psutil.wait_procs(left, timeout=60)
        return True
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_kill_9_at_a_random_moment_changes_nothing(tmp_path: Path, kind: str) -> None:
    arguments, share = KINDS[kind]
    moments = random.Random(kind)
    uninterrupted = tmp_path / "uninterrupted"
    began = time.monotonic()
    process = start(uninterrupted, arguments)
    first = wait_for_epochs(process, uninterrupted, 1)
    completed = wait_until(lambda: is_completed(uninterrupted), process, uninterrupted)
    assert process.wait(WAIT_S) == 0
    last = finished_epochs(uninterrupted)
    seconds = {"early": first - began, "training": (completed - first) / last, "late": time.monotonic() - completed}

    hits, plan = 0, PLAN.get(kind, DEFAULT_PLAN)
    for i in range(max(1, round(KILLS * share / 40))):
        folder, phase = tmp_path / f"killed{i}", plan[i % len(plan)]
        moment = moments.uniform(0.25 if phase == "early" else 0.0, 1.0) * seconds[phase]
        process = start(folder, arguments)
        if phase == "training":  # an epoch is drawn, because the speed of a busy machine changes
            wait_for_epochs(process, folder, moments.randint(1, last))
        elif phase == "late":
            wait_until(partial(is_completed, folder), process, folder)
        was_running = kill_at(process, moment, other_rank=kind == "ddp" and i % 2 == 1)
        seen = sorted({read_run(run).status for run in runs_in(folder).values()}) if folder.exists() else []
        epochs = finished_epochs(folder)
        hits += epochs > 0 and bool({"crashed", "failed"} & {*seen})
        assert "running" not in seen
        assert start(folder, arguments).wait(WAIT_S) == 0, Path(f"{folder}.log").read_text()
        assert_same(folder, uninterrupted)
        how = "killed" if was_running else "ended before the kill"
        when = f"{phase} {moment:.1f} of {seconds[phase]:.1f} s"
        print(f"{kind} {i}: {when}, {how}, {seen or 'no run yet'}, {epochs} of {last} epochs, equal to the bit")
    print(f"{kind}: {hits} of {i + 1} kills hit a run between its first epoch and its end")
    assert hits > 0


# What a run is after a signal: its exit code, its status in results.json, and the status that other commands show.
AFTER = {
    "HUP": (1, "interrupted", "interrupted"),
    "INT": (1, "interrupted", "interrupted"),
    "QUIT": (-signal.SIGQUIT, "running", "crashed"),
    "TERM": (1, "interrupted", "interrupted"),
    "USR1": (1, "interrupted", "interrupted"),
    "USR2": (1, "interrupted", "interrupted"),
    "XCPU": (1, "interrupted", "interrupted"),
    "KILL": (-signal.SIGKILL, "running", "crashed"),
}


@pytest.mark.parametrize("name", AFTER)
def test_the_status_after_a_signal_is_true(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    process = start(run, (*BASE, ENDLESS, "report=false"))
    wait_for_epochs(process, run, 2)

    process.send_signal(getattr(signal, f"SIG{name}"))
    code = process.wait(120)

    assert (code, results(run)["status"], read_run(run).status) == AFTER[name]


@pytest.mark.parametrize(
    ("number", "to"),
    [
        pytest.param(signal.SIGINT, "all processes", marks=pytest.mark.ci),  # Ctrl-C
        (signal.SIGINT, "the first process"),
        (signal.SIGTERM, "all processes"),
        (signal.SIGTERM, "the first process"),
    ],
)
def test_a_signalled_ddp_run_is_interrupted_and_leaves_no_process(tmp_path: Path, number: int, to: str) -> None:
    run = tmp_path / "run"
    process = start(run, (*BASE, *DDP, ENDLESS, "report=false"))
    wait_for_epochs(process, run, 2)
    other = rank_1(process)

    (process.send_signal if to == "the first process" else lambda number: os.killpg(process.pid, number))(number)

    assert process.wait(120) == 1
    assert results(run)["status"] == "interrupted"
    psutil.wait_procs([other], timeout=30)
    assert not other.is_running()


@pytest.mark.parametrize("victim", ["first", pytest.param("other", marks=pytest.mark.ci)])
def test_the_others_end_within_30_seconds_after_a_rank_is_killed(tmp_path: Path, victim: str) -> None:
    run = tmp_path / "run"
    process = start(run, (*BASE, *DDP, ENDLESS, "report=false"))
    wait_for_epochs(process, run, 2)
    first, other = psutil.Process(process.pid), rank_1(process)

    (first if victim == "first" else other).kill()
    process.wait(30)
    psutil.wait_procs([other], timeout=30)

    assert not other.is_running()
    log = Path(f"{run}.log").read_text()
    assert log.count("agebench train: ") == 1
    assert "Traceback" not in log
    assert read_run(run).status == ("crashed" if victim == "first" else "failed")


@pytest.mark.parametrize("ending", ["SIGINT", "SIGTERM", "full disk", "SIGTERM of ddp", "SIGINT of ddp"])
def test_a_run_that_ended_early_is_resumed_to_the_bit(tmp_path: Path, ending: str) -> None:
    arguments = (*BASE, *(DDP if "ddp" in ending else ()), "trainer.max_epochs=60", "report=false")
    uninterrupted, disk = tmp_path / "uninterrupted", tmp_path / "disk"
    assert start(uninterrupted, arguments).wait(WAIT_S) == 0
    disk.mkdir()
    if ending == "full disk":
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=False)
        if mounted.returncode:
            pytest.skip("a small disk needs the right to mount")
    try:
        run = disk / "run"
        process = start(run, arguments)
        wait_for_epochs(process, run, 2)
        if ending == "full disk":
            fill(disk)
        else:
            process.send_signal(getattr(signal, ending[:7].strip()))
        process.wait(120)
        stopped = results(run)["status"]
        (disk / "filler").unlink(missing_ok=True)
        assert start(run, arguments).wait(WAIT_S) == 0

        assert stopped == ("failed" if ending == "full disk" else "interrupted")
        assert_same(run, uninterrupted)
    finally:
        if ending == "full disk":
            subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path) -> None:
    """Fill a disk to the last block."""
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
