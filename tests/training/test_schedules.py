"""Learning rates of each step against values computed manually, and as Lightning steps the schedules."""

import math
import warnings

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from agebench.errors import UserError
from agebench.training import schedules

EIGHTH = (1 + math.cos(math.pi / 4)) / 2  # half a cosine at a quarter of its length: 0.853553


def optimizer(rate: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def rates(make, steps: int, **settings) -> list[float]:
    """Return the rate of each of `steps` steps as a share of the initial rate."""
    sgd = optimizer()
    config = make(sgd, **settings)
    used = []
    for _ in range(steps):
        used.append(sgd.param_groups[0]["lr"] / 0.1)
        sgd.step()
        if config is not None:
            config["scheduler"].step()
    return used


@pytest.mark.parametrize(
    ("make", "settings", "expected"),
    [
        (schedules.constant, {"steps_per_epoch": 4}, [1, 1, 1, 1]),
        (schedules.constant, {"warmup_epochs": 1, "steps_per_epoch": 4}, [0.2, 0.4, 0.6, 0.8, 1, 1, 1]),
        (schedules.constant, {"warmup_epochs": 0.5, "steps_per_epoch": 4}, [1 / 3, 2 / 3, 1, 1]),
        (schedules.cosine, {"epochs": 2, "steps_per_epoch": 2}, [1, EIGHTH, 0.5, 1 - EIGHTH, 0, 0]),
        (
            schedules.cosine,
            {"epochs": 3, "steps_per_epoch": 2, "warmup_epochs": 1},
            [1 / 3, 2 / 3, 1, EIGHTH, 0.5, 1 - EIGHTH, 0],
        ),
        (
            schedules.cosine,
            {"epochs": 2, "steps_per_epoch": 2, "final_share": 0.1},
            [1, 0.1 + 0.9 * EIGHTH, 0.55, 0.1 + 0.9 * (1 - EIGHTH), 0.1],
        ),
        (schedules.step, {"every_epochs": 2, "factor": 0.1}, [1, 1, 0.1, 0.1, 0.01]),  # each step is an epoch
    ],
    ids=["constant", "warm-up", "half an epoch", "cosine", "cosine after warm-up", "cosine to a share", "step"],
)
def test_the_rate_of_each_step_equals_the_manual_computation(make, settings, expected) -> None:
    assert rates(make, len(expected), **settings) == pytest.approx(expected, abs=1e-12)


def test_one_cycle_increases_to_the_rate_and_decreases_to_nearly_zero() -> None:
    found = rates(schedules.one_cycle, 20, epochs=2, steps_per_epoch=10, rise_share=0.3)

    assert found[0] == pytest.approx(1 / 25)
    # Half a cosine from 0.04 to 1 at two fifths of its length.
    assert found[2] == pytest.approx(0.04 + 0.96 * (1 - math.cos(0.4 * math.pi)) / 2)
    assert found[5] == pytest.approx(1)
    assert max(found) == found[5]
    assert found[-1] == pytest.approx(1 / 250_000)
    assert found[5:] == sorted(found[5:], reverse=True)


@pytest.mark.parametrize(("mode", "values"), [("max", [0.5, 0.5, 0.4, 0.6]), ("min", [2.0, 2.0, 3.0, 1.0])])
def test_plateau_decreases_the_rate_only_after_patience_validations_without_improvement(mode, values) -> None:
    sgd = optimizer()
    config = schedules.plateau(sgd, patience=1, factor=0.5, monitor="val/x", mode=mode)
    found = []

    for value in values:
        config["scheduler"].step(value)
        found.append(sgd.param_groups[0]["lr"])

    assert found == pytest.approx([0.1, 0.1, 0.05, 0.05])  # best, two without improvement, then an improvement
    assert config["monitor"] == "val/x"


@pytest.mark.parametrize(
    ("make", "interval"),
    [
        (schedules.constant, "step"),
        (schedules.cosine, "step"),
        (schedules.one_cycle, "step"),
        (schedules.step, "epoch"),
        (schedules.plateau, "epoch"),
    ],
)
def test_each_schedule_names_its_interval_and_accepts_all_arguments_of_the_builder(make, interval) -> None:
    arguments = {"epochs": 2, "steps_per_epoch": 5, "monitor": "val/accuracy", "mode": "max"}
    if make is schedules.constant:  # constant without a warm-up needs no scheduler
        assert make(optimizer(), **arguments) is None
        arguments["warmup_epochs"] = 1.0

    assert make(optimizer(), **arguments)["interval"] == interval


@pytest.mark.parametrize("make", [schedules.cosine, schedules.one_cycle])
@pytest.mark.parametrize("epochs", [-0.25, 0, math.inf])
def test_a_schedule_over_the_whole_training_needs_its_length(make, epochs) -> None:
    with pytest.raises(UserError, match=r"needs the length of the training: set trainer\.max_epochs"):
        make(optimizer(), epochs=epochs, steps_per_epoch=4)


class Line(L.LightningModule):
    """Minimises w^2 and stores the rate of each step."""

    def __init__(self, schedule) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.schedule, self.used = schedule, []

    def training_step(self, batch, batch_index):
        self.used.append(self.optimizers().param_groups[0]["lr"])
        return (self.weight * batch).square().mean()

    def validation_step(self, batch, batch_index):
        self.log("val/never_better", 1.0)

    def configure_optimizers(self):
        sgd = torch.optim.SGD(self.parameters(), lr=0.1)
        return {"optimizer": sgd, "lr_scheduler": self.schedule(sgd)}


def fit(module: L.LightningModule, epochs: int, **settings) -> None:
    data = DataLoader(torch.ones(6, 1), batch_size=2)
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        L.Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=0, **off, **settings).fit(
            module, data, data
        )


def test_lightning_steps_the_cosine_at_each_step_to_the_end_of_training() -> None:
    module = Line(lambda sgd: schedules.cosine(sgd, epochs=2, steps_per_epoch=3))

    fit(module, 2)

    assert module.used == pytest.approx([0.05 * (1 + math.cos(math.pi * i / 6)) for i in range(6)])


def test_lightning_steps_the_step_schedule_between_epochs() -> None:
    module = Line(lambda sgd: schedules.step(sgd, every_epochs=1, factor=0.5))

    fit(module, 3)

    assert module.used == pytest.approx([0.1] * 3 + [0.05] * 3 + [0.025] * 3)


def test_lightning_steps_one_cycle_to_its_end_without_an_error() -> None:
    module = Line(lambda sgd: schedules.one_cycle(sgd, epochs=2, steps_per_epoch=3))

    fit(module, 2)

    assert module.used[0] == pytest.approx(0.1 / 25)
    assert module.used[-1] == pytest.approx(0.1 / 250_000)


def test_lightning_steps_plateau_only_after_epochs_with_validation() -> None:
    def schedule(sgd):
        return schedules.plateau(
            sgd, patience=0, factor=0.5, monitor="val/never_better", mode="max", val_every_epochs=2
        )

    module = Line(schedule)

    fit(module, 5, check_val_every_n_epoch=2)

    # Validation follows the second and fourth epoch. The fourth is the first without improvement.
    assert module.used[::3] == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05])
