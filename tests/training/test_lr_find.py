"""lr_find: the rates it suggests, what it writes, and that a later training does not notice it."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from agebench.errors import FailedError, UserError
from agebench.files import read_csv
from agebench.training import lr_find
from agebench.training.fit import fit
from agebench.training.lr_find import find_rate, suggest

BASE = (
    "data=digits",
    "data.limit=400",
    "data.batch_size=50",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
    "report=false",
)


def curve(rates: np.ndarray) -> np.ndarray:
    """Return a loss of 2 that falls to 1 around the rate 1e-3 as a logistic over decades, and rises to 9 above 1."""
    decades = np.log10(rates)
    return 2 - 1 / (1 + np.exp(-(decades + 3) / 0.25)) + 7 / (1 + np.exp(-(decades - 0.5) / 0.05))


def test_the_steepest_point_and_the_valley_of_a_known_curve() -> None:
    rates = np.logspace(-7, 1, 400)

    found = suggest(rates, curve(rates))

    # The logistic is steepest in its middle. It has lost a tenth ln(9) * 0.25 = 0.55 decades before, and is lowest
    # near 10^-0.2, before the steep rise: the middle of both is 10^-1.9.
    assert math.log10(found.steepest) == pytest.approx(-3, abs=0.05)
    assert math.log10(found.valley) == pytest.approx((-3.55 - 0.2) / 2, abs=0.25)


def test_noise_moves_the_suggestions_by_less_than_a_third_of_a_decade() -> None:
    rates = np.logspace(-7, 1, 400)
    noisy = [curve(rates) + np.random.default_rng(seed).normal(0, 0.15, 400) for seed in range(10)]

    found = [suggest(rates, losses) for losses in noisy]

    assert max(abs(math.log10(each.steepest) + 3) for each in found) < 0.35


def test_the_valley_lies_in_the_last_fall_of_a_wavy_curve() -> None:
    rates = np.logspace(-7, 0, 200)
    wavy = 1.75 + 0.04 * np.cos((np.log10(rates) + 7) * np.pi / 1.5) - 0.02 * (np.log10(rates) + 7)
    wavy[rates > 1e-2] = 9.0  # falls end at 10^-5.5 and 10^-2.5, the second begins at 10^-4

    found = suggest(rates, wavy)

    assert 1e-4 < found.valley < 10**-2.5
    assert 1e-4 < found.steepest < 10**-2.5


@pytest.mark.parametrize("slope", [0.0, 0.1], ids=["flat", "rising"])
def test_a_loss_that_does_not_fall_gives_no_suggestion(slope) -> None:
    rates = np.logspace(-7, 1, 100)

    found = suggest(rates, 2 + slope * np.log10(rates / 1e-7))

    assert (found.steepest, found.valley) == (None, None)


@pytest.mark.ci
def test_a_sweep_writes_a_table_and_a_picture_only_and_links_the_picture(
    compose_config, tmp_path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(lr_find, "RateSweep", partial(lr_find.RateSweep, clock=lambda: 0.0))

    with caplog.at_level("INFO"):
        find_rate(compose_config(*BASE), tmp_path / "a sweep")

    assert sorted(path.name for path in (tmp_path / "a sweep").iterdir()) == ["lr_find.csv", "lr_find.png"]
    assert "a%20sweep/lr_find.png" in caplog.text
    rows = [{name: float(cell) for name, cell in row.items()} for row in read_csv(tmp_path / "a sweep" / "lr_find.csv")]
    steps = np.log10([row["rate"] for row in rows])
    assert steps[0] == pytest.approx(-7)
    np.testing.assert_allclose(np.diff(steps), 8 / 399, rtol=1e-6)  # evenly spaced over 8 decades
    assert rows[0]["loss"] == pytest.approx(math.log(10), rel=0.1)  # of an untrained network for 10 classes


@pytest.mark.ci
def test_a_training_after_a_sweep_equals_one_without_it(compose_config, tmp_path) -> None:
    config = compose_config(*BASE, "augment=digits", "optim.layer_decay=0.5")
    fit(config, tmp_path / "without")

    find_rate(config, tmp_path / "sweep")
    fit(config, tmp_path / "after")

    without, after = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("without", "after")
    )
    assert without["state_dict"].keys() == after["state_dict"].keys()
    for name, tensor in without["state_dict"].items():
        assert torch.equal(tensor, after["state_dict"][name]), name


def test_groups_keep_the_ratios_of_their_rates(compose_config, tmp_path, monkeypatch) -> None:
    used = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            used.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Recording)
    config = compose_config(*BASE, "optim=sgd", "optim.lr=0.5", "optim.layer_decay=0.5", "model.hidden=[16]")
    find_rate(config, tmp_path)

    assert len(used) > 100
    assert [min(rates) / max(rates) for rates in used] == pytest.approx([0.5] * len(used))  # two layers


def test_a_slow_network_takes_fewer_steps_and_still_sweeps_all_rates(compose_config, tmp_path, monkeypatch) -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            self.now += 2.0  # at each look
            return self.now

    rates = []
    sweep = lr_find.RateSweep

    def slow(base: float):
        made = sweep(base, clock=Clock())
        rates.append(made.rates)
        return made

    monkeypatch.setattr(lr_find, "RateSweep", slow)
    monkeypatch.setattr(lr_find, "DIVERGED", math.inf)
    find_rate(compose_config(*BASE, "optim=sgd", "optim.lr=1e-3"), tmp_path)

    assert len(rates[0]) == 30  # from 2 to 60 seconds
    assert rates[0][-1] == pytest.approx(10)


def test_a_loss_that_is_never_finite_fails_with_a_sentence(compose_config, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("agebench.heads.softmax.Softmax.loss", lambda self, outputs, target: outputs.sum() * math.nan)

    with pytest.raises(FailedError, match="the loss is not finite at the rate 1e-07"):
        find_rate(compose_config(*BASE), tmp_path)


def test_a_folder_of_a_run_is_refused(compose_config, tmp_path) -> None:
    fit(compose_config(*BASE), tmp_path)

    with pytest.raises(UserError, match="holds another run"):
        find_rate(compose_config(*BASE), tmp_path)


def test_a_sweep_stops_when_the_smoothed_loss_is_four_times_its_lowest() -> None:
    sweep, trainer = lr_find.RateSweep(1e-3), SimpleNamespace(should_stop=False)
    sweep._rate = 1e-3
    stopped = []

    for loss in [1.0] * 10 + [10.0] * 3:
        sweep.on_train_batch_end(trainer, None, {"loss": loss})
        stopped.append(trainer.should_stop)

    # The average with weight 0.9, without its bias, after the loss of 10: 2.31, 3.38, 4.27.
    assert stopped == [False] * 12 + [True]
    assert sweep.diverged
