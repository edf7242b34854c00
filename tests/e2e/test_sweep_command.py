"""Complete sweeps with real job processes: failures, time limits, GPU assignment, and the end of all processes."""

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
"""A network that fails in training as configured, and records its start time and its GPUs."""
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
                raise RuntimeError("a bug in the network")
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
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "agebench.train", *LINE, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def statuses(folder: Path) -> dict[str, str]:
    found = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("outputs/sweeps/*/*/results.json")}
    return {name.rpartition("-")[0]: results["status"] for name, results in found.items()}


def wait_until(holds, seconds: float = 120.0):
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
    assert "RuntimeError: a bug in the network" in text
    assert "killed by signal 9" in text
    assert "did not end within launcher.timeout=40 s" in text
    assert "3 of 4 points failed" in text
    (log,) = tmp_path.glob("outputs/sweeps/s/mode-raise-*/console.log")
    assert "RuntimeError: a bug in the network at own.py:17 (HYDRA_FULL_ERROR=1 shows the traceback)" in log.read_text()
    assert "Traceback (most recent call last)" in (log.parent / "train.log").read_text()
    assert "Traceback" not in text


@pytest.mark.slow
def test_fail_fast_stops_running_jobs_and_starts_no_further_ones(tmp_path) -> None:
    sweep = start(
        tmp_path, "-m", "+model.mode=hang,raise,well", "launcher.fail_fast=true", "launcher.jobs=2", "sweep=s"
    )

    text, _ = sweep.communicate(timeout=300)

    assert sweep.returncode == 1
    assert statuses(tmp_path) == {"mode-hang": "interrupted", "mode-raise": "failed"}
    assert "not run" in text


@pytest.mark.slow
def test_every_gpu_is_used_by_one_job_at_a_time(tmp_path) -> None:
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
    assert wait_until(lambda: len(statuses(tmp_path)) == 2)
    jobs = psutil.Process(sweep.pid).children(recursive=True)

    sweep.send_signal(number)
    text, _ = sweep.communicate(timeout=60)

    assert len(jobs) >= 3  # the server and two jobs
    assert wait_until(lambda: not any(job.is_running() and job.status() != psutil.STATUS_ZOMBIE for job in jobs), 30)
    if number != signal.SIGKILL:
        assert sweep.returncode == 1
        assert statuses(tmp_path) == {"seed-0": "interrupted", "seed-1": "interrupted"}
        assert "repeat the command with sweep=s to resume the incomplete points" in text


@pytest.mark.ci
def test_the_ranks_of_a_point_train_in_its_folder_and_end(tmp_path) -> None:
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
def test_a_larger_sweep_in_the_same_folder_keeps_completed_points(tmp_path) -> None:
    for wider in (["optim.lr=1e-3"], ["optim.lr=1e-3,1e-2", "seed=0,1"]):
        text, _ = start(tmp_path, "-m", *wider, "sweep=s").communicate(timeout=300)

    assert len(list(tmp_path.glob("outputs/sweeps/s/*/results.json"))) == 4
    assert text.count("was already complete") == 1
    assert text.count("completed after") == 3


@pytest.mark.slow
@pytest.mark.parametrize(("full_error", "exit_code"), [("", 2), ("1", 1)])
def test_a_user_error_of_a_point_is_one_sentence_unless_hydra_full_error_is_set(
    tmp_path, full_error, exit_code
) -> None:
    # The model is built by the point itself, so that no check before the first point finds this error.
    sweep = start(
        tmp_path,
        *("model=lenet", "model._target_=agebench.models.LeNet", "data.image_size=8", "trainer.accelerator=cpu"),
        *("-m", "seed=0,1", "sweep=s"),
        HYDRA_FULL_ERROR=full_error,
    )

    text, _ = sweep.communicate(timeout=300)

    sentence = "lenet needs images of at least 12x12 pixels, not 8x8: set data.image_size=12 or more"
    logs = [path.read_text() for path in tmp_path.glob("outputs/sweeps/s/seed-*/console.log")]
    assert sweep.returncode == 1
    assert text.count(f"with exit code {exit_code}: {sentence}") == 2
    assert ["Traceback (most recent call last)" in log for log in logs] == [bool(full_error)] * 2
    assert [log.count(f"agebench train: {sentence}\n") for log in logs] == ([0, 0] if full_error else [1, 1])


@pytest.mark.slow
def test_a_refused_sweep_leaves_no_folder(tmp_path) -> None:
    sweep = start(tmp_path, "-m", "optim.lr=1e-3,-1", "sweep=s")

    sweep.communicate(timeout=300)

    assert sweep.returncode == 2
    assert not (tmp_path / "outputs" / "sweeps" / "s").exists()
