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
    """Return a function that interrupts the next training in its third epoch, or at another epoch and hook."""
    import lightning as L

    make = parts.make_trainer

    def interrupt_at(epoch=2, hook="on_train_batch_start"):
        class CtrlC(L.Callback):
            pass

        def press(self, trainer, *given):
            if trainer.current_epoch == epoch:
                raise KeyboardInterrupt

        def once(cfg, run_dir, callbacks, **more):
            monkeypatch.setattr(parts, "make_trainer", make)
            return make(cfg, run_dir, [*callbacks, CtrlC()], **more)

        setattr(CtrlC, hook, press)
        monkeypatch.setattr(parts, "make_trainer", once)

    return interrupt_at


@pytest.mark.parametrize(
    ("epoch", "hook", "kept"),
    [
        (0, "on_train_epoch_end", "{run} has no checkpoint of a finished epoch yet; to start again"),
        (1, "on_train_batch_start", "1 finished epoch is kept in {run}; to resume"),
        (2, "on_validation_end", "2 finished epochs are kept in {run}; to resume"),
    ],
)
def test_an_interruption_says_which_epochs_are_kept(command, tmp_path, interrupt, capsys, epoch, hook, kept):
    run = tmp_path / "cut"
    interrupt(epoch, hook)

    with pytest.raises(SystemExit):
        command("train", *QUICK, "trainer.max_epochs=4", f"hydra.run.dir={run}")

    expected = f"interrupted: {kept.format(run=run)}: python -m agebench.train resume={run}\n"
    assert expected in capsys.readouterr().err


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
