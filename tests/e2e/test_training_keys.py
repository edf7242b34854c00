"""Each key of the training craft is exact: a run that is interrupted and resumed is the uninterrupted run, bit by bit.

The slow tests repeat this with two processes, for several keys at once. test_varied_keys.py sweeps over the same keys.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agebench.training import parts

BASE = ("data=digits", "data.limit=400", "data.batch_size=32", "optim=adamw", "model.hidden=[16]", "seed=3")
BASE += ("trainer.max_epochs=4", "trainer.accelerator=cpu", "callbacks.progress=null", "report=false")
LINES = {
    "optim.decay_norms": ("optim.decay_norms=true", "optim.weight_decay=0.1"),
    "optim.layer_decay": ("optim.layer_decay=0.75",),
    "ema.decay": ("ema.decay=0.9",),
    "swa.start": ("swa.start=0.5",),
    "augment.mixup": ("augment.mixup=0.4",),
    "augment.cutmix": ("augment.cutmix=1.0",),
    "augment.erase": ("augment=digits", "augment.erase=0.5"),
    "augment=randaugment": ("augment=randaugment",),
    "head.label_smoothing": ("head.label_smoothing=0.1",),
    "finetune=head": ("finetune=head",),
    "finetune=head_then_all": ("finetune=head_then_all", "finetune.epochs=2", "finetune.backbone_lr_ratio=0.1"),
    "finetune=gradual": ("finetune=gradual",),
    "finetune=all": ("finetune=all",),
    "teacher.run": ("teacher.run={teacher}",),
    "recipe=plain": ("recipe=plain",),
    "recipe=scratch": ("recipe=scratch",),
    "recipe=strong": ("recipe=strong",),
    "recipe=finetune": (
        "recipe=finetune",
        "model.hidden=[64,32]",
        "model.checkpoint_path={teacher}/checkpoints/best.ckpt",
    ),
    "trainer.max_time": ("trainer.max_time=00:01:00:00",),
    "trainer.gradient_clip_val": ("trainer.gradient_clip_val=0.1",),
    "trainer.accumulate_grad_batches": ("trainer.accumulate_grad_batches=3",),
    "trainer.precision": ("trainer.precision=bf16-mixed",),
    "on_nan": ("on_nan=skip",),
    "scheduler=plateau": ("scheduler=plateau",),
    "scheduler=one_cycle": ("scheduler=one_cycle",),
}
TOGETHER = {
    "groups": (
        "optim.decay_norms",
        "optim.layer_decay",
        "ema.decay",
        "head.label_smoothing",
        "trainer.gradient_clip_val",
    ),
    "mixing": ("swa.start", "augment.erase", "augment.mixup", "augment.cutmix", "trainer.accumulate_grad_batches"),
    "gradual": ("finetune=gradual", "teacher.run", "trainer.max_time", "on_nan"),
    "recipe": ("recipe=strong", "augment=randaugment"),
    "bf16": ("trainer.precision", "scheduler=plateau", "finetune=head_then_all"),
}
DDP = ("trainer.devices=2", "trainer.strategy=ddp")
FILES = ("metrics.csv", "predictions.csv", "per_class.csv", "params.csv")


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def assert_same(resumed: Path, uninterrupted: Path) -> None:
    ours, theirs = results(resumed), results(uninterrupted)
    assert (ours["status"], ours["resumed"], theirs["resumed"]) == ("completed", 1, 0)
    for key in ("weights_sha", "metrics", "best"):
        assert ours[key] == theirs[key], key
    for name in FILES:
        assert (resumed / name).read_bytes() == (uninterrupted / name).read_bytes(), name


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_resumed_run_is_the_uninterrupted_one(line, command, tmp_path, digits_run, monkeypatch) -> None:
    import lightning as L

    class CtrlC(L.Callback):
        def on_train_batch_start(self, trainer, *given):
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    make = parts.make_trainer
    line = [*BASE, *(each.format(teacher=digits_run) for each in line)]

    command("train", *line, "hydra.run.dir=uninterrupted")
    monkeypatch.setattr(parts, "make_trainer", lambda c, run, calls, **more: make(c, run, [*calls, CtrlC()], **more))
    with pytest.raises(SystemExit):
        command("train", *line, "hydra.run.dir=resumed")
    monkeypatch.setattr(parts, "make_trainer", make)
    command("train", *line, "hydra.run.dir=resumed")

    assert_same(tmp_path / "resumed", tmp_path / "uninterrupted")


@pytest.mark.slow
@pytest.mark.parametrize("keys", TOGETHER.values(), ids=TOGETHER)
def test_two_processes_that_are_killed_and_resumed_are_the_uninterrupted_ones(keys, tmp_path, digits_run) -> None:
    (tmp_path / "killer.py").write_text(
        "import os\nfrom lightning.pytorch.callbacks import Callback\n\n\nclass Killer(Callback):\n"
        "    def on_train_batch_start(self, trainer, *given):\n"
        "        if 'DIE' in os.environ and trainer.current_epoch == 2:\n"
        f"            os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
    )
    line = [
        *BASE,
        *DDP,
        *(each.format(teacher=digits_run) for key in keys for each in LINES[key]),
        "+callbacks.killer._target_=killer.Killer",
    ]

    def train(name: str, **environment: str) -> int:
        command = [sys.executable, "-m", "agebench.train", *line, f"hydra.run.dir={name}"]
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
        return subprocess.run(command, cwd=tmp_path, env=os.environ | own).returncode

    codes = [train("uninterrupted"), train("resumed", DIE="1"), train("resumed")]

    assert codes == [0, -signal.SIGKILL, 0]
    assert_same(tmp_path / "resumed", tmp_path / "uninterrupted")
