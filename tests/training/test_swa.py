"""Runs with an average of the weights at the ends of epochs: what is validated, stored and tested."""

import json

import numpy as np
import pytest
import torch

from agebench import build
from agebench.cli.rules import check_config
from agebench.errors import UserError
from agebench.files import read_csv
from agebench.module import ImageModule
from agebench.training import parts
from agebench.training.fit import fit

BASE = (
    "data=digits",
    "data.limit=400",
    "data.batch_size=100",
    "model.hidden=[16]",
    "trainer.max_epochs=4",
    "trainer.accelerator=cpu",
    "optim.lr=1e-2",
    "callbacks.progress=null",
    "report=false",
)  # 4 steps an epoch


@pytest.fixture(params=["many steps a call", "single steps"])
def run(request, compose_config, tmp_path, monkeypatch):
    """Return the folder and the config of a run with an average of epochs 3 and 4, and the weights at each end."""
    ends: list[dict[str, torch.Tensor]] = []
    if request.param == "single steps":
        monkeypatch.setattr(parts, "can_multi_step", lambda *args: False)
    config = compose_config(*BASE, "swa.start=0.75", "monitor=val/loss")
    original = ImageModule.on_train_epoch_end

    def record(module) -> None:  # after validation, when the trained weights are back
        ends.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        original(module)

    monkeypatch.setattr(ImageModule, "on_train_epoch_end", record)
    fit(config, tmp_path)
    return tmp_path, config, ends


def stored_in(folder, name: str = "last") -> dict:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def loss_on(config, stored: dict, part: str) -> float:
    """Return the loss of the weights in a checkpoint, computed without a trainer."""
    module = build.build_trained(config, stored)
    data = build.build_data(config)
    images = data.part(part)[torch.arange(data.plan.counts[part])]
    module.eval()
    with torch.no_grad():
        return module.head.loss(module(images.images), images.target).item()


def test_the_last_checkpoint_has_the_mean_of_the_ends_and_resumes_from_the_trained_weights(run) -> None:
    folder, _, ends = run

    stored = stored_in(folder)

    assert len(ends) == 4
    assert stored["average"]["updates"] == 2  # the ends of epochs 3 and 4
    for name, tensor in stored["state_dict"].items():
        if "running" in name or "normalise" in name:
            continue
        expected = (
            (ends[2][name].double() + ends[3][name].double()) / 2 if tensor.is_floating_point() else ends[3][name]
        )
        torch.testing.assert_close(tensor.double(), expected.double(), rtol=1e-6, atol=1e-8)
    for name, tensor in stored["average"]["trained"].items():
        assert torch.equal(tensor, ends[3][name]), name


def test_batch_norm_has_the_statistics_of_the_averaged_weights(run) -> None:
    folder, config, _ = run

    state = {name: tensor.double().numpy() for name, tensor in stored_in(folder)["state_dict"].items()}

    data = build.build_data(config)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))  # the batches of the first epoch
    means, variances = [], []
    for batch in order.split(100):
        pixels = data.part("train")[batch].images.double().numpy() / 255
        images = (pixels - state["normalise.mean"]) / state["normalise.std"]
        hidden = images.reshape(100, -1) @ state["model.linear1.weight"].T + state["model.linear1.bias"]
        means.append(hidden.mean(axis=0))
        variances.append(hidden.var(axis=0, ddof=1))
    np.testing.assert_allclose(state["model.norm1.running_mean"], np.mean(means, axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state["model.norm1.running_var"], np.mean(variances, axis=0), rtol=1e-4)
    assert state["model.norm1.num_batches_tracked"] == 16  # steps of training


def test_validation_and_test_use_the_weights_of_the_checkpoint(run) -> None:
    folder, config, _ = run
    rows = read_csv(folder / "metrics.csv")
    best = json.loads((folder / "results.json").read_text(encoding="utf-8"))

    assert best["best"]["epoch"] == 3  # the average of the last two epochs
    assert loss_on(config, stored_in(folder, "best"), "val") == pytest.approx(float(rows[3]["val/loss"]), rel=1e-5)
    assert loss_on(config, stored_in(folder), "val") == pytest.approx(float(rows[3]["val/loss"]), rel=1e-5)
    assert loss_on(config, stored_in(folder, "best"), "test") == pytest.approx(best["metrics"]["test/loss"], rel=1e-5)


def test_training_and_the_epochs_before_the_start_are_those_of_a_run_without_an_average(
    compose_config, tmp_path
) -> None:
    augmented = ("augment=digits", "augment.mixup=0.2")
    fit(compose_config(*BASE, *augmented), tmp_path / "without")
    fit(compose_config(*BASE, *augmented, "swa.start=0.75"), tmp_path / "with")

    without, averaged = (read_csv(tmp_path / name / "metrics.csv") for name in ("without", "with"))
    plain, trained = stored_in(tmp_path / "without"), stored_in(tmp_path / "with")["average"]["trained"]
    assert averaged[:2] == without[:2]  # validated with the trained weights
    assert [row["train/loss"] for row in averaged] == [row["train/loss"] for row in without]
    assert averaged[3]["val/loss"] != without[3]["val/loss"]
    assert all(torch.equal(tensor, plain["state_dict"][name]) for name, tensor in trained.items())


def test_a_frozen_batch_norm_keeps_its_statistics(compose_config, tmp_path) -> None:
    config = compose_config(*BASE, "swa.start=0.5", "finetune=head")

    fit(config, tmp_path)

    state = stored_in(tmp_path)["state_dict"]
    assert torch.equal(state["model.norm1.running_mean"], torch.zeros(16))
    assert torch.equal(state["model.norm1.running_var"], torch.ones(16))


class Poison(torch.nn.Module):
    """Makes images whose mean is above 0.395 NaN."""

    def __init__(self, **settings: object) -> None:
        super().__init__()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.where(images.mean((1, 2, 3), keepdim=True) > 0.395, torch.nan, images)


def test_batches_that_are_not_finite_are_left_out_of_the_statistics(compose_config, tmp_path) -> None:
    config = compose_config(*BASE, "data.batch_size=20", "swa.start=0.5", "on_nan=skip", "test_checkpoint=last")
    config.augment._target_ = f"{__name__}.Poison"

    fit(config, tmp_path)

    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["skipped_steps"] > 0
    assert stored_in(tmp_path)["state_dict"]["model.norm1.running_mean"].isfinite().all()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["ema.decay=0.9"], "ema.decay and swa.start both average the weights: set one of them to null"),
        (["trainer.max_epochs=-1"], "swa.start needs the length of the training: set trainer.max_epochs"),
    ],
)
def test_what_does_not_fit_together_is_refused(compose_config, overrides, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        check_config(compose_config(*BASE, "swa.start=0.5", *overrides))
