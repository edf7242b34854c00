"""Runs that are interrupted and resumed from the command line."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agebench.training import parts

QUICK = ("data=digits", "data.limit=400", "model.hidden=[16]", "report=false", "trainer.accelerator=cpu")
FILES = ("metrics.csv", "predictions.csv", "split.csv", "per_class.csv")


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture
def interrupt(monkeypatch):
    """Return a function that interrupts the next training in its third epoch."""
    import lightning as L

    class CtrlC(L.Callback):
        def on_train_batch_start(self, trainer, *given):
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    make = parts.make_trainer

    def once(cfg, run_dir, callbacks, **more):
        monkeypatch.setattr(parts, "make_trainer", make)
        return make(cfg, run_dir, [*callbacks, CtrlC()], **more)

    return lambda: monkeypatch.setattr(parts, "make_trainer", once)


def test_resume_with_a_folder_needs_no_other_argument(command, tmp_path, interrupt, capsys):
    line = (*QUICK, "trainer.max_epochs=4", "optim.lr=0.01")
    command("train", *line, "hydra.run.dir=uninterrupted")
    interrupt()
    with pytest.raises(SystemExit) as ctrl_c:
        command("train", *line, "hydra.run.dir=cut")
    with pytest.raises(SystemExit) as refused:
        command("train", "resume=cut", "optim.lr=0.5")
    message, status = capsys.readouterr().err, results(tmp_path / "cut")["status"]
    command("train", "resume=cut", "data.num_workers=1")

    assert (ctrl_c.value.code, refused.value.code, status) == (1, 2, "interrupted")
    assert "resume=FOLDER takes no override that changes the result" in message
    found = results(tmp_path / "cut")
    assert (found["status"], found["resumed"]) == ("completed", 1)
    assert found["metrics"] == results(tmp_path / "uninterrupted")["metrics"]
    for name in FILES:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "uninterrupted" / name).read_bytes()


def test_a_folder_that_is_not_a_run_raises_in_one_line(command, capsys):
    with pytest.raises(SystemExit) as end:
        command("train", "resume=nowhere")

    message = capsys.readouterr().err
    assert end.value.code == 2
    assert message.startswith("agebench train: resume=nowhere is not a run")
    assert message.count("\n") == 1


def start(folder: Path, *line: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "agebench.train", *line, f"hydra.run.dir={folder.name}"]
    return subprocess.Popen(command, cwd=folder.parent, env=environment, stdout=subprocess.DEVNULL)


def epochs(folder: Path) -> int:
    return len((folder / "metrics.csv").read_text().splitlines()) if (folder / "metrics.csv").exists() else 0


def kill_after_an_epoch(process: subprocess.Popen, folder: Path, wait_s: float) -> None:
    before, deadline = epochs(folder), time.monotonic() + 180
    while epochs(folder) <= before + 1 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(wait_s)
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        ("trainer.max_epochs=60", "augment=digits", "data.num_workers=1"),
        ("trainer.max_epochs=60", "trainer.devices=2", "trainer.strategy=ddp"),
    ],
    ids=["with a worker", "two processes"],
)
def test_kill_9_at_random_moments_changes_nothing(tmp_path, line):
    moments = random.Random(0)
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    assert start(uninterrupted, *QUICK, *line).wait(300) == 0

    for _ in range(3):
        kill_after_an_epoch(start(killed, *QUICK, *line), killed, moments.uniform(0, 0.3))
    assert start(killed, *QUICK, *line).wait(300) == 0

    assert results(killed)["resumed"] > 0
    for name in FILES:
        assert (killed / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    assert results(killed)["metrics"] == results(uninterrupted)["metrics"]
