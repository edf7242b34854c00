"""Whole sweeps, their jobs in processes of their own: what fails, what hangs, who gets which GPU, who outlives whom."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

OWN = '''
"""A network that misbehaves in training as asked, and writes down when it began and what it was given."""
import json, os, signal, time
from pathlib import Path
from torch import nn

class Net(nn.Module):
    def __init__(self, in_chans, num_classes, mode="well", **options):
        super().__init__()
        self.layer, self.mode, self.began = nn.Linear(64 * in_chans, num_classes), mode, False

    def forward(self, images):
        if self.training and not self.began:
            self.began = True
            given = {"gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "begin": time.time(), "pid": os.getpid()}
            if self.mode == "raise":
                raise RuntimeError("a mistake of one's own")
            if self.mode == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.mode == "hang":
                time.sleep(600)
            if self.mode == "nap":
                time.sleep(1)
            Path(f"given-{os.getpid()}.json").write_text(json.dumps({**given, "end": time.time()}))
        return self.layer(images.flatten(1))
'''
LINE = ["data=digits", "model._target_=own.Net", "trainer.max_epochs=1", "report=false", "data.limit=200"]


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-m", "agebench.train", *LINE, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def statuses(folder: Path) -> dict[str, str]:
    found = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("outputs/sweeps/*/*/results.json")}
    return {name.rpartition("-")[0]: results["status"] for name, results in found.items()}


def until(holds, seconds: float = 120.0):
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_one_raises_one_is_killed_one_hangs_and_the_fourth_completes(tmp_path) -> None:
    sweep = start(
        tmp_path, "-m", "+model.mode=raise,kill,hang,well", "launcher.timeout=40", "launcher.jobs=2", "sweep=s"
    )

    text, _ = sweep.communicate(timeout=300)

    assert sweep.returncode == 1
    assert statuses(tmp_path) == {
        "mode-raise": "failed",
        "mode-kill": "failed",
        "mode-hang": "failed",
        "mode-well": "completed",
    }
    assert "RuntimeError: a mistake of one's own" in text
    assert "killed by signal 9" in text
    assert "not done within launcher.timeout=40 s" in text
    assert "3 of 4 points failed" in text
    (log,) = tmp_path.glob("outputs/sweeps/s/mode-raise-*/console.log")
    assert "Traceback (most recent call last)" in log.read_text()
    assert "Traceback" not in text


@pytest.mark.slow
def test_fail_fast_stops_what_runs_and_starts_nothing_more(tmp_path) -> None:
    sweep = start(
        tmp_path, "-m", "+model.mode=hang,raise,well", "launcher.fail_fast=true", "launcher.jobs=2", "sweep=s"
    )

    text, _ = sweep.communicate(timeout=300)

    assert sweep.returncode == 1
    assert statuses(tmp_path) == {"mode-hang": "interrupted", "mode-raise": "failed"}
    assert "not run" in text


@pytest.mark.slow
def test_no_gpu_is_held_twice_and_none_idles_while_jobs_wait(tmp_path) -> None:
    sweep = start(tmp_path, "-m", "+model.mode=nap", "seed=range(10)", "sweep=s", CUDA_VISIBLE_DEVICES="0,1,2,3")

    text, _ = sweep.communicate(timeout=300)

    assert sweep.returncode == 0, text
    given = sorted((json.loads(path.read_text()) for path in tmp_path.glob("given-*.json")), key=lambda g: g["begin"])
    assert len(given) == len({g["pid"] for g in given}) == 10
    by_gpu = {gpu: [g for g in given if g["gpus"] == gpu] for gpu in "0123"}
    assert sum(map(len, by_gpu.values())) == 10
    assert all(len(jobs) >= 2 for jobs in by_gpu.values())
    for jobs in by_gpu.values():
        assert all(first["end"] <= second["begin"] for first, second in itertools.pairwise(jobs))


@pytest.mark.slow
def test_a_job_may_have_two_gpus(tmp_path) -> None:
    sweep = start(
        tmp_path, "-m", "+model.mode=well", "seed=0,1", "launcher.gpus_per_job=2", CUDA_VISIBLE_DEVICES="5,6,7,4"
    )

    text, _ = sweep.communicate(timeout=300)

    assert sweep.returncode == 0, text
    given = [json.loads(path.read_text())["gpus"] for path in tmp_path.glob("given-*.json")]
    assert sorted(given) == ["5,6", "7,4"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_jobs_do_not_outlive_the_sweep(tmp_path, number) -> None:
    sweep = start(tmp_path, "-m", "+model.mode=hang", "seed=0,1", "launcher.jobs=2", "sweep=s")
    assert until(lambda: len(statuses(tmp_path)) == 2)
    jobs = psutil.Process(sweep.pid).children(recursive=True)

    sweep.send_signal(number)
    text, _ = sweep.communicate(timeout=60)

    assert len(jobs) >= 3  # the server and two jobs
    assert until(lambda: not any(job.is_running() and job.status() != psutil.STATUS_ZOMBIE for job in jobs), 30)
    if number != signal.SIGKILL:
        assert sweep.returncode == 1
        assert statuses(tmp_path) == {"seed-0": "interrupted", "seed-1": "interrupted"}
        assert "taken up again by the same command with sweep=s" in text


def test_ranks_of_a_point_run_in_its_own_folder_and_end(tmp_path) -> None:
    sweep = start(
        tmp_path,
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "trainer.accelerator=cpu",
        "-m",
        "+model.mode=well",
        "seed=0,1",
        "sweep=s",
    )

    text, _ = sweep.communicate(timeout=300)

    assert sweep.returncode == 0, text
    assert statuses(tmp_path) == {"seed-0": "completed", "seed-1": "completed"}
    assert len(list(tmp_path.glob("given-*.json"))) == 4
    devices = [json.loads(p.read_text())["device"] for p in tmp_path.glob("outputs/sweeps/s/*/results.json")]
    assert devices == ["2 x cpu", "2 x cpu"]


@pytest.mark.slow
def test_a_wider_sweep_in_the_same_folder_leaves_finished_points_alone(tmp_path) -> None:
    for wider in (["optim.lr=1e-3"], ["optim.lr=1e-3,1e-2", "seed=0,1"]):
        text, _ = start(tmp_path, "-m", *wider, "sweep=s").communicate(timeout=300)

    assert len(list(tmp_path.glob("outputs/sweeps/s/*/results.json"))) == 4
    assert text.count("was complete already") == 1
    assert text.count("completed after") == 3


@pytest.mark.slow
def test_a_refused_sweep_leaves_no_folder(tmp_path) -> None:
    sweep = start(tmp_path, "-m", "optim.lr=1e-3,-1", "sweep=s")

    sweep.communicate(timeout=300)

    assert sweep.returncode == 2
    assert not (tmp_path / "outputs" / "sweeps" / "s").exists()
