"""Training in two processes with several keys together: as in one process, and exact when it is resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agebench.files import read_csv

PARTS = '''
import os
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from agebench.models.weights import hash_tensors


class Poison(nn.Module):
    """Makes the brightest images NaN, so that steps are left out."""

    def __init__(self, **settings):
        super().__init__()

    def forward(self, images):
        bright = images.mean((1, 2, 3), keepdim=True) > 0.395
        return torch.where(bright, torch.nan, images)


class Ranks(Callback):
    """Writes the hash of the parameters in each process. Ends the processes at the start of the epoch in DIE_AT."""

    def on_train_epoch_start(self, trainer, module):
        if str(trainer.current_epoch) == os.environ.get("DIE_AT"):
            os._exit(9)

    def on_train_end(self, trainer, module):
        folder = Path(trainer.default_root_dir)
        (folder / f"rank{trainer.global_rank}.txt").write_text(hash_tensors(dict(module.named_parameters())))
'''
LINE = (
    "data=digits",
    "data.batch_size=64",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=4",
    "trainer.max_time=00:01:00:00",
    "finetune=head_then_all",
    "finetune.epochs=1",
    "on_nan=skip",
    "augment._target_=parts.Poison",
    "+callbacks.ranks._target_=parts.Ranks",
    "callbacks.progress=null",
    "report=false",
)
DDP = ("trainer.devices=2", "trainer.strategy=ddp")


@pytest.fixture
def in_two(tmp_path: Path, digits_run: Path):
    """Return a function that trains a student of a run in two processes, and returns the folder."""
    (tmp_path / "parts.py").write_text(PARTS)

    def start(name: str, *overrides: str, die_at: int | None = None) -> Path:
        line = [*LINE, *DDP, f"teacher.run={digits_run}", *overrides, f"hydra.run.dir={name}"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
        environment |= {"OMP_NUM_THREADS": "1"} | ({} if die_at is None else {"DIE_AT": str(die_at)})
        ended = subprocess.run([sys.executable, "-m", "agebench.train", *line], cwd=tmp_path, env=environment)
        assert (ended.returncode == 0) == (die_at is None)
        return tmp_path / name

    return start


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_two_processes_train_as_one_does_except_for_rounding(
    in_two, command, digits_run, monkeypatch, tmp_path
) -> None:
    overrides = ("model.batch_norm=false", "ema.decay=0.9")  # each process has its own statistics of batch norm
    monkeypatch.syspath_prepend(str(tmp_path))

    two, one = in_two("two", *overrides), tmp_path / "one"
    command("train", *LINE, f"teacher.run={digits_run}", *overrides, f"hydra.run.dir={one}")

    assert results(two)["skipped_steps"] == results(one)["skipped_steps"] > 0
    few = 3 / 180  # of the images may be so close to another label that rounding decides
    for name in ("test/loss", "test/nll"):
        assert results(two)["metrics"][name] == pytest.approx(results(one)["metrics"][name], rel=1e-3)
    assert results(two)["metrics"]["test/accuracy"] == pytest.approx(results(one)["metrics"]["test/accuracy"], abs=few)
    ours, theirs = read_csv(two / "metrics.csv"), read_csv(one / "metrics.csv")
    # train/loss has the finite half of a batch whose other half is not.
    for name, tolerance in (("val/loss", {"rel": 1e-3}), ("val/accuracy", {"abs": few})):
        assert [float(row[name]) for row in ours] == pytest.approx([float(row[name]) for row in theirs], **tolerance)


def test_two_processes_that_are_killed_and_resumed_give_the_same_run(in_two) -> None:
    overrides = ("swa.start=0.5", "augment.mixup=0.2", "augment.cutmix=1.0")

    uninterrupted = in_two("uninterrupted", *overrides)
    in_two("killed", *overrides, die_at=3)
    killed = in_two("killed", *overrides)

    assert results(killed)["resumed"] == 1
    for name in ("metrics.csv", "predictions.csv"):
        assert (killed / name).read_bytes() == (uninterrupted / name).read_bytes()
    for key in ("weights_sha", "skipped_steps", "metrics", "teacher"):
        assert results(killed)[key] == results(uninterrupted)[key]
    hashes = {(folder / f"rank{rank}.txt").read_text() for folder in (killed, uninterrupted) for rank in (0, 1)}
    assert len(hashes) == 1
