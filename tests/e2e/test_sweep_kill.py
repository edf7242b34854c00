"""A sweep whose process or job is killed with SIGKILL and that is started again ends with the same results."""

import csv
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

LINE = ("data=digits", "model=mlp", "trainer.max_epochs=12", "report=false", "trainer.accelerator=cpu")
GRID = ("-m", "optim.lr=1e-3,1e-2", "seed=0,1", "launcher.jobs=2", "sweep=s")
TABLES = ("metrics.csv", "predictions.csv", "split.csv", "per_class.csv")
OF_TIME = ("timing", "resumed", "fit_s", "train_images_per_s", "git")  # someone may commit during the test


def start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    with (folder / "output.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "agebench.train", *LINE, *GRID],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def points(folder: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(folder.glob("outputs/sweeps/s/*/results.json"))}


def results(point: Path) -> dict:
    return json.loads((point / "results.json").read_text())


def without_time(values: dict) -> dict:
    return {key: value for key, value in values.items() if key not in OF_TIME}


def complete_files(folder: Path) -> dict[Path, int]:
    done = [point for point in points(folder).values() if results(point)["status"] == "completed"]
    return {file: file.stat().st_mtime_ns for point in done for file in point.rglob("*") if file.is_file()}


def names(point: Path) -> set[str]:
    files = {path.relative_to(point).as_posix() for path in point.rglob("*") if path.is_file()}
    return {name for name in files if "tfevents" not in name}


def weights(point: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(point / "checkpoints" / name, map_location="cpu", weights_only=True)["state_dict"]


def epochs(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) - 1 for path in folder.glob("outputs/sweeps/s/*/metrics.csv"))


def wait_for_epochs(folder: Path, sweep: subprocess.Popen[bytes], count: int) -> None:
    end = time.monotonic() + 180
    while epochs(folder) < count and sweep.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert sweep.poll() is None, (folder / "output.log").read_text()


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.ci
def test_kill_9_of_a_sweep_and_of_its_jobs_changes_nothing(tmp_path: Path) -> None:
    moments = random.Random(0)
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    assert start(uninterrupted).wait(300) == 0

    sweep = start(killed)  # killed itself while the first two points train
    wait_for_epochs(killed, sweep, moments.randrange(3, 20))
    left = psutil.Process(sweep.pid).children(recursive=True)
    sweep.kill()
    sweep.wait()
    psutil.wait_procs(left, timeout=30)
    assert len(left) >= 3  # the server and two jobs
    assert not alive(left)

    sweep = start(killed)  # resumes them; one job of the next two points is killed
    wait_for_epochs(killed, sweep, 24 + moments.randrange(3, 20))
    # Jobs are the children of the fork server.
    jobs = [each for each in psutil.Process(sweep.pid).children(recursive=True) if each.ppid() != sweep.pid]
    moments.choice(jobs).kill()
    assert sweep.wait(300) == 1
    statuses = sorted(results(point)["status"] for point in points(killed).values())
    assert statuses == ["completed", "completed", "completed", "failed"]
    assert sum(results(point)["resumed"] for point in points(killed).values()) >= 1

    done = complete_files(killed)
    assert start(killed).wait(300) == 0
    assert {file: file.stat().st_mtime_ns for file in done} == done

    assert points(killed).keys() == points(uninterrupted).keys()
    for name, expected in points(uninterrupted).items():
        found = points(killed)[name]
        for table in TABLES:
            assert (found / table).read_bytes() == (expected / table).read_bytes(), (name, table)
        assert without_time(results(found)) == without_time(results(expected))
        for checkpoint in ("best.ckpt", "last.ckpt"):
            ours, theirs = weights(found, checkpoint), weights(expected, checkpoint)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in ours), (name, checkpoint)
        assert names(found) == names(expected)
    tables = [
        [without_time(row) for row in csv.DictReader((each / "outputs/sweeps/s/sweep.csv").open(encoding="utf-8-sig"))]
        for each in (uninterrupted, killed)
    ]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 4
