"""Several steps in a row leave what as many single steps leave, to the bit, and whoever wants each step gets it."""

import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agebench.training import fast_loop as turns
from agebench.training import fit

LINE = ["data=digits", "data.limit=300", "data.batch_size=16", "report=false", "trainer.accelerator=cpu"]
EVERY_7TH = ["trainer.log_every_n_steps=7"]
STEPS: list[int] = []


class Noted(Callback):
    """A user's callback that wants to see every step."""

    def on_train_batch_end(self, trainer, *args) -> None:
        STEPS.append(trainer.global_step)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.glob("events*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
    return found


@pytest.mark.parametrize(
    "extra",
    [
        ["model=mlp", *EVERY_7TH, "scheduler=cosine", "scheduler.warmup_epochs=0.5"],
        ["model=mlp", "scheduler=step", "scheduler.every_epochs=1", "optim=sgd"],
        ["model=small_cnn", *EVERY_7TH, "trainer.precision=bf16-mixed", "augment=digits"],
        ["model=mlp", "trainer.limit_train_batches=5", "trainer.check_val_every_n_epoch=2"],
        ["model=mlp", "trainer.max_steps=30"],
    ],
    ids=["cosine", "step", "bf16", "limited", "max_steps"],
)
def test_turns_are_bit_for_bit_single_steps(command, monkeypatch, tmp_path, extra) -> None:
    monkeypatch.setattr(turns, "TURN_S", 600.0)  # however busy the machine, several steps a turn
    longest = 0

    class Watched(turns.TurnModule):
        def training_step(self, dataloader_iter) -> None:
            nonlocal longest
            before = self.global_step
            super().training_step(dataloader_iter)
            longest = max(longest, self.global_step - before)

    monkeypatch.setattr(fit, "TurnModule", Watched)
    command("train", *LINE, "trainer.max_epochs=3", *extra, "hydra.run.dir=turns")
    monkeypatch.setattr(fit, "takes_turns", lambda *args: False)
    command("train", *LINE, "trainer.max_epochs=3", *extra, "hydra.run.dir=single")

    found, expected = tmp_path / "turns", tmp_path / "single"
    assert longest > 1
    for name in ("metrics.csv", "predictions.csv"):
        assert (found / name).read_bytes() == (expected / name).read_bytes()
    assert scalars(found) == scalars(expected)
    ours, theirs = (torch.load(each / "checkpoints" / "best.ckpt", weights_only=True) for each in (found, expected))
    assert (ours["epoch"], ours["global_step"]) == (theirs["epoch"], theirs["global_step"])
    for key in ("epoch_loop.batch_progress", "epoch_loop.state_dict"):
        assert ours["loops"]["fit_loop"][key] == theirs["loops"]["fit_loop"][key]
    for key, weights in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][key], weights)


@pytest.mark.parametrize(
    "extra",
    [
        [f"+callbacks.noted._target_={__name__}.Noted"],
        ["trainer.gradient_clip_val=1.0"],
        ["trainer.accumulate_grad_batches=2"],
        ["trainer.val_check_interval=0.5"],
        ["scheduler=plateau"],
        ["+callbacks.checkpoint.every_n_train_steps=5"],
    ],
    ids=["callback", "clip", "accumulate", "val_check_interval", "plateau", "checkpoint"],
)
def test_whoever_wants_each_step_gets_it(command, monkeypatch, extra) -> None:
    monkeypatch.setattr(fit, "TurnModule", None)  # would fail if it were made
    STEPS.clear()

    command("train", *LINE, "model=mlp", "trainer.max_epochs=1", *extra, "hydra.run.dir=out")

    if "Noted" in extra[0]:
        (last,) = csv.DictReader(Path("out/metrics.csv").read_text(encoding="utf-8").splitlines())
        assert list(range(1, int(last["step"]) + 1)) == STEPS
