"""Multi-stepping gives the results of single steps to the bit; single steps run where it would be observable."""

import csv
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agebench.training import fast_loop, parts

LINE = ["data=digits", "data.limit=300", "data.batch_size=16", "report=false", "trainer.accelerator=cpu"]
EVERY_7TH = ["trainer.log_every_n_steps=7"]
# The loss falls by less than the schedule counts as an improvement.
PLATEAU = ["model=mlp", "model.batch_norm=false", "optim=sgd", "optim.lr=1e-5", "monitor=val/loss"]
PLATEAU += ["scheduler=plateau", "scheduler.patience=0"]
STEPS: list[int] = []
CLEARED: list[int] = []


class CountingSGD(torch.optim.SGD):
    """A user's optimizer with its own `zero_grad`."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        CLEARED.append(1)
        super().zero_grad(set_to_none)


class StepRecorder(Callback):
    """A user's callback that needs each step."""

    def on_train_batch_end(self, trainer, *args) -> None:
        STEPS.append(trainer.global_step)


def events_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.glob("events*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
    return found


def scalars(folder: Path) -> dict[str, str]:
    found = events_of(folder)
    found["train/lr"] = list(dict.fromkeys(found["train/lr"]))  # single steps log it for each accumulated batch
    return {tag: repr(found[tag]) for tag in sorted(found)}  # as a text, because nan is not equal to nan


@pytest.mark.ci
@pytest.mark.parametrize(
    "extra",
    [
        ["model=mlp", *EVERY_7TH, "scheduler=cosine", "scheduler.warmup_epochs=0.5"],
        ["model=mlp", "scheduler=step", "scheduler.every_epochs=1", "optim=sgd"],
        ["model=small_cnn", *EVERY_7TH, "trainer.precision=bf16-mixed", "augment=digits"],
        ["model=mlp", "trainer.limit_train_batches=5", "trainer.check_val_every_n_epoch=2"],
        ["model=mlp", "trainer.max_steps=30"],
        ["model=mlp", *EVERY_7TH, "trainer.gradient_clip_val=0.5", "ema.decay=0.9"],
        ["model=mlp", "trainer.gradient_clip_val=0.01", "trainer.gradient_clip_algorithm=value"],
        ["model=mlp", *EVERY_7TH, "trainer.accumulate_grad_batches=4", "scheduler=cosine"],
        [
            "model=small_cnn",
            "trainer.accumulate_grad_batches=2",
            "trainer.gradient_clip_val=0.5",
            "trainer.max_steps=17",
            "trainer.precision=bf16-mixed",
        ],
        [*PLATEAU, *EVERY_7TH],
        [*PLATEAU, "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=5"],
        [*PLATEAU, "trainer.max_steps=50"],
        ["model=mlp", *EVERY_7TH, "trainer.precision=16-mixed", "ema.decay=0.9", "on_nan=skip"],
        [
            "model=mlp",
            *EVERY_7TH,
            "trainer.precision=16-mixed",
            "trainer.gradient_clip_val=0.5",
            "trainer.accumulate_grad_batches=2",
        ],
    ],
    ids=[
        *("cosine", "step", "bf16", "limited", "max_steps", "clip", "clip value", "accumulate", "clip and accumulate"),
        *("plateau", "plateau every two epochs", "plateau and max_steps", "fp16", "fp16, clip and accumulate"),
    ],
)
@pytest.mark.usefixtures("half_precision_on_a_cpu")
def test_multi_stepping_gives_the_results_of_single_steps_to_the_bit(command, monkeypatch, tmp_path, extra) -> None:
    monkeypatch.setattr(fast_loop, "MAX_SECONDS", 600.0)  # several steps per call even on a busy machine
    most_steps = 0

    class CountingModule(fast_loop.MultiStepModule):
        def training_step(self, dataloader_iter) -> None:
            nonlocal most_steps
            before = self.global_step
            super().training_step(dataloader_iter)
            most_steps = max(most_steps, self.global_step - before)

    monkeypatch.setattr(parts, "MultiStepModule", CountingModule)
    command("train", *LINE, "trainer.max_epochs=3", *extra, "hydra.run.dir=multi")
    monkeypatch.setattr(parts, "can_multi_step", lambda *args: False)
    command("train", *LINE, "trainer.max_epochs=3", *extra, "hydra.run.dir=single")

    found, expected = tmp_path / "multi", tmp_path / "single"
    assert most_steps > 1
    for name in ("metrics.csv", "predictions.csv"):
        assert (found / name).read_bytes() == (expected / name).read_bytes()
    assert scalars(found) == scalars(expected)
    for name in ("best", "last"):
        ours, theirs = (torch.load(each / f"checkpoints/{name}.ckpt", weights_only=True) for each in (found, expected))
        assert (ours["epoch"], ours["global_step"]) == (theirs["epoch"], theirs["global_step"])
        for key in ("epoch_loop.batch_progress", "epoch_loop.state_dict"):
            assert ours["loops"]["fit_loop"][key] == theirs["loops"]["fit_loop"][key]
        assert ours["lr_schedulers"] == theirs["lr_schedulers"]
        for key in ("state_dict", "optimizer_states", *theirs.keys() & {"MixedPrecision"}):
            torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=0)
    if "scheduler=plateau" in extra:
        assert theirs["optimizer_states"][0]["param_groups"][0]["lr"] < 1e-5
    assert ("MixedPrecision" in theirs) == ("trainer.precision=16-mixed" in extra)


@pytest.mark.parametrize(
    "extra",
    [
        [f"+callbacks.recorder._target_={__name__}.StepRecorder"],
        ["trainer.val_check_interval=0.5"],
        ["+callbacks.checkpoint.every_n_train_steps=5"],
    ],
    ids=["callback", "val_check_interval", "checkpoint"],
)
def test_single_steps_run_where_multi_stepping_would_be_observable(command, monkeypatch, extra) -> None:
    monkeypatch.setattr(parts, "MultiStepModule", None)  # creating it would fail
    STEPS.clear()

    command("train", *LINE, "model=mlp", "trainer.max_epochs=1", *extra, "hydra.run.dir=out")

    if "StepRecorder" in extra[0]:
        (last,) = csv.DictReader(Path("out/metrics.csv").read_text(encoding="utf-8-sig").splitlines())
        assert list(range(1, int(last["step"]) + 1)) == STEPS


def test_a_plateau_schedule_without_its_metric_raises_in_one_sentence(command, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        command("train", *LINE, "scheduler=plateau", "trainer.limit_val_batches=0", "callbacks.checkpoint=null")

    assert end.value.code == 2
    assert "scheduler=plateau needs a metric of val at the end of an epoch" in capsys.readouterr().err


@pytest.mark.usefixtures("half_precision_on_a_cpu")
def test_the_logged_norm_is_that_of_gradients_without_the_scale_of_the_loss(command, tmp_path) -> None:
    norms = []
    for fused in ("true", "false"):  # only a fused optimizer divides the gradients after they are logged
        overrides = ["model=mlp", "trainer.max_epochs=1", "trainer.precision=16-mixed", f"optim.fused={fused}"]
        command("train", *LINE, *EVERY_7TH, *overrides, f"hydra.run.dir={fused}")
        norms.append(dict(events_of(tmp_path / fused)["x_steps/grad_norm"]))

    fused, unfused = norms
    assert fused[14] == pytest.approx(unfused[14], rel=0.01)


def test_an_optimizer_clears_its_gradients_itself_if_it_overrides_zero_grad(command) -> None:
    CLEARED.clear()

    line = [*LINE, "model=mlp", "optim=sgd", f"optim._target_={__name__}.CountingSGD", "trainer.max_epochs=2"]
    command("train", *line, "hydra.run.dir=out")

    rows = list(csv.DictReader(Path("out/metrics.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert len(CLEARED) == int(rows[-1]["step"])
