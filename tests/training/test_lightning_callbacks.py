"""What Lightning's own callbacks do here: each row of the table in docs/extending.md."""

import csv
import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from agebench import build
from agebench.errors import UserError
from agebench.training.fit import fit

BASE = (
    "data=digits",
    "data.limit=200",
    "data.batch_size=40",
    "model.hidden=[16]",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
    "report=false",
    "logger=csv",
    "trainer.log_every_n_steps=2",
)  # 200 training images, 5 steps per epoch


@pytest.fixture
def run(compose_config, tmp_path):
    """Return a function that trains with one of Lightning's callbacks, and returns the folder and its results."""

    def start(name: str, **arguments: str) -> tuple[Path, dict]:
        added = [f"+callbacks.x._target_=lightning.pytorch.callbacks.{name}"]
        added += [f"+callbacks.x.{key}={value}" for key, value in arguments.items()]
        fit(compose_config(*BASE, *added), tmp_path)
        return tmp_path, json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))

    return start


def accuracy_of(folder: Path) -> float:
    """Return the test accuracy of best.ckpt."""
    stored = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    config = OmegaConf.create(stored["agebench"]["config"])
    module, data = build.build_trained(config, stored).eval(), build.build_data(config)
    test = data.part("test")[torch.arange(data.plan.counts["test"])]
    with torch.no_grad():
        return float((module(test.images).argmax(1) == test.target).double().mean())


@pytest.mark.parametrize("name", ["WeightAveraging", "EMAWeightAveraging"])
def test_the_average_of_a_callback_is_what_is_stored_and_tested(run, name) -> None:
    folder, results = run(name, **({"decay": "0.5"} if name == "EMAWeightAveraging" else {}))

    stored = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    trained = stored["current_model_state"]
    assert any(not torch.equal(trained[key], weight) for key, weight in stored["state_dict"].items())
    assert results["metrics"]["test/accuracy"] == pytest.approx(accuracy_of(folder))


def test_accumulation_can_start_at_an_epoch(run) -> None:
    _, results = run("GradientAccumulationScheduler", scheduling="{1:2}")

    assert results["steps"] == 5 + 3 + 3


def test_a_pruned_network_is_stored_and_tested(run) -> None:
    folder, results = run("ModelPruning", pruning_fn="l1_unstructured", amount="0.5")

    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    weights = torch.cat([weight.flatten() for key, weight in state.items() if weight.ndim == 2])
    assert float((weights == 0).double().mean()) == pytest.approx(1 - 0.5**3, abs=0.1)  # once an epoch
    assert results["metrics"]["test/accuracy"] == pytest.approx(accuracy_of(folder))


def test_the_statistics_of_the_device_are_logged(run) -> None:
    folder, _ = run("DeviceStatsMonitor", cpu_stats="true")

    (table,) = (folder.rglob("metrics.csv"),)
    columns = {name for file in table for name in next(csv.reader(file.open(encoding="utf-8-sig")))}
    assert any("cpu_percent" in column for column in columns)


def test_a_timer_ends_the_training(run) -> None:
    _, results = run("Timer", duration="00:00:00:00")

    assert (results["status"], results["steps"]) == ("completed", 0)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("BackboneFinetuning", "set finetune=head_then_all"),
        ("BatchSizeFinder", "set data.batch_size=auto"),
        ("LearningRateFinder", "set lr_find=true"),
        ("RichProgressBar", "remove it"),
        ("StochasticWeightAveraging", "set swa.start=0.75"),
        ("TQDMProgressBar", "remove it"),
    ],
)
def test_a_callback_that_cannot_work_gets_one_sentence_that_names_the_key(run, name, instead) -> None:
    with pytest.raises(UserError, match=rf"^the callback {name} cannot be used with agebench \([^\n]+\): {instead}$"):
        run(name, **({"swa_lrs": "0.1"} if name == "StochasticWeightAveraging" else {}))


class WeightNorm(Callback):
    """A user's own callback, which logs without a batch size."""

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        weights = torch.cat([weight.detach().flatten() for weight in pl_module.parameters()])
        pl_module.log("train/weight_norm", weights.norm())
        pl_module.log("own/weight_norm", weights.norm())


def test_a_value_that_an_own_callback_logs_is_a_column_of_the_metrics_if_it_is_of_train(
    compose_config, tmp_path
) -> None:
    fit(compose_config(*BASE, f"+callbacks.x._target_={__name__}.WeightNorm", "trainer.max_epochs=1"), tmp_path)

    with (tmp_path / "metrics.csv").open(encoding="utf-8-sig") as file:
        (row,) = csv.DictReader(file)
    stored = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    squares = [w.double().square().sum().item() for name, w in stored.items() if name.endswith((".weight", ".bias"))]
    assert float(row["train/weight_norm"]) == pytest.approx(sum(squares) ** 0.5, rel=1e-5)
    assert "own/weight_norm" not in row
