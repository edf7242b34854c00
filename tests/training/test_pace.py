"""trainer.max_time: the schedule ends in time. The clock is one that only the optimizer and the validation move."""

import json
import logging
import math
from types import SimpleNamespace

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from agebench.cli.rules import check_config
from agebench.errors import UserError
from agebench.files import read_csv
from agebench.module import ImageModule
from agebench.training import callbacks
from agebench.training.fit import fit
from agebench.training.pace import seconds_of

BASE = (
    "data=digits",
    "data.limit=400",
    "data.batch_size=40",
    "model.hidden=[16]",
    "model.batch_norm=false",
    "trainer.max_epochs=10",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
    "report=false",
)  # 400 images in 10 steps an epoch, 100 steps; as many test images as val images


@pytest.fixture
def clock(monkeypatch):
    """Return a clock: a step takes 1 s, a validation 2 s."""
    clock = SimpleNamespace(now=0.0, step=1.0, rates=[])
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    sgd = torch.optim.SGD

    class Timed(sgd):
        def step(self, closure=None):
            clock.now += clock.step
            clock.rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    evaluate = ImageModule.on_validation_epoch_end

    def timed(module) -> None:
        clock.now += 2.0
        evaluate(module)

    monkeypatch.setattr(torch.optim, "SGD", Timed)
    monkeypatch.setattr(ImageModule, "on_validation_epoch_end", timed)
    return clock


def config_of(compose_config, *overrides: str):
    config = compose_config(*BASE, *overrides)
    config.optim = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 1.0}
    return config


@pytest.fixture(params=[False, True], ids=["many steps a call", "single"])
def single(request, monkeypatch) -> None:
    """Run the test once with several steps in each call of Lightning, and once with single steps."""
    if request.param:
        monkeypatch.setattr("agebench.training.parts.can_multi_step", lambda *_: False)


@pytest.mark.ci
@pytest.mark.usefixtures("single")
@pytest.mark.parametrize(
    ("schedule", "last"),
    [
        ("cosine", (1 + math.cos(math.pi * 99 / 100)) / 2),
        ("one_cycle", 1 / 250_000),
        ("step", 0.1**4),
    ],
)
def test_the_last_step_has_the_last_rate_of_the_schedule(compose_config, tmp_path, clock, schedule, last) -> None:
    more = ["scheduler.every_epochs=2"] if schedule == "step" else []
    config = config_of(compose_config, f"scheduler={schedule}", *more, "trainer.max_time=00:00:00:40")

    fit(config, tmp_path)

    assert clock.rates[-1] == pytest.approx(last, rel=1e-6)
    assert 25 < len(clock.rates) < 40
    assert clock.now <= 40  # training, its validations, and those that were still to come
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    rows = read_csv(tmp_path / "metrics.csv")
    assert results["status"] == "completed"
    assert "test/accuracy" in results["metrics"]
    assert rows[-1]["val/accuracy"]  # the last epoch was validated, although it is not complete
    assert int(rows[-1]["step"]) == len(clock.rates)


@pytest.mark.ci
@pytest.mark.usefixtures("single")
def test_a_training_that_is_fast_enough_has_the_schedule_without_a_limit(compose_config, tmp_path, clock) -> None:
    fit(config_of(compose_config, "scheduler=cosine"), tmp_path / "without")
    without, clock.rates = clock.rates, []
    clock.now = 0.0

    fit(config_of(compose_config, "scheduler=cosine", "trainer.max_time=00:01:00:00"), tmp_path / "with")

    assert len(without) == 100
    assert clock.rates == without


def test_a_compressed_cosine_follows_the_clock(compose_config, tmp_path, clock) -> None:
    config = config_of(compose_config, "scheduler=cosine", "trainer.max_time=00:00:00:40")

    fit(config, tmp_path)

    # After the first validation the reserve is 4 s. After 11 steps and 2 s of validation, 14 of 36 s will have passed
    # at the end of the next step, so it has the rate of step ceil(100 * 14 / 36) - 1 = 38.
    assert clock.rates[11] == pytest.approx((1 + math.cos(math.pi * 38 / 100)) / 2, rel=1e-6)
    assert clock.rates == sorted(clock.rates, reverse=True)


def test_a_schedule_of_very_many_epochs_is_not_walked_step_by_step(
    compose_config, tmp_path, clock, monkeypatch
) -> None:
    walked = []
    step = LambdaLR.step
    monkeypatch.setattr(LambdaLR, "step", lambda self, *given: (walked.append(1), step(self, *given)))
    config = config_of(compose_config, "scheduler=cosine", "trainer.max_epochs=100000", "trainer.max_time=00:00:00:40")

    fit(config, tmp_path)

    assert clock.rates[-1] < 1e-9
    assert len(walked) <= len(clock.rates) + 2  # one a step, and those that Lightning and PyTorch take at the start


def test_a_resumed_run_counts_the_time_of_its_first_start(compose_config, tmp_path, clock, monkeypatch) -> None:
    config = config_of(compose_config, "scheduler=cosine", "trainer.max_time=00:00:00:40")

    class Stop(BaseException):
        pass

    start = ImageModule.on_train_epoch_start

    def stop(module) -> None:
        if module.current_epoch == 1:
            raise Stop
        start(module)

    with monkeypatch.context() as patch:
        patch.setattr(ImageModule, "on_train_epoch_start", stop)
        with pytest.raises(Stop):
            fit(config, tmp_path)
    assert len(clock.rates) == 10
    clock.now = 1000.0  # another process, later
    fit(config, tmp_path)

    # 12 s were used before. After 12 steps 14 of 36 s have passed; the duration of a step is not known again yet.
    assert clock.rates[12] == pytest.approx((1 + math.cos(math.pi * 38 / 100)) / 2, rel=1e-6)
    assert clock.now - 1000 <= 28
    assert clock.rates[-1] == pytest.approx((1 + math.cos(math.pi * 99 / 100)) / 2)


def test_a_budget_below_one_epoch_still_validates_and_tests(compose_config, tmp_path, clock, caplog) -> None:
    with caplog.at_level(logging.INFO, "agebench"):
        fit(config_of(compose_config, "scheduler=cosine", "trainer.max_time=00:00:00:08"), tmp_path)

    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["best"]["epoch"] == 0
    assert len(clock.rates) < 8
    assert "ends training after" in caplog.text


def test_a_slow_step_at_the_start_does_not_end_the_training(compose_config, tmp_path, clock, monkeypatch) -> None:
    seconds = iter([0.1, 3.0])  # 359 images to evaluate at 40 images in 3 s would take 27 of the 20 s
    sgd = torch.optim.SGD

    class Uneven(sgd):
        def step(self, closure=None):
            clock.step = next(seconds, 0.1)
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Uneven)
    fit(config_of(compose_config, "scheduler=cosine", "trainer.max_time=00:00:00:20"), tmp_path)

    assert len(clock.rates) == 51  # 0.1, 3.0 and 49 of 0.1 s; with the 5 of complete epochs, 6 validations of 2 s


def test_the_start_of_other_processes_does_not_count(compose_config, tmp_path, clock, monkeypatch) -> None:
    start = ImageModule.on_fit_start

    def slow(module) -> None:
        clock.now += 100.0
        start(module)

    monkeypatch.setattr(ImageModule, "on_fit_start", slow)
    fit(config_of(compose_config, "scheduler=cosine", "trainer.max_time=00:00:00:40"), tmp_path)

    assert 25 < len(clock.rates) < 40


@pytest.mark.parametrize(
    ("value", "seconds"), [("00:00:30:00", 1800), ("01:02:03:04", 93784), ({"hours": 1, "seconds": 5}, 3605)]
)
def test_a_time_in_seconds(value, seconds) -> None:
    assert seconds_of(value) == seconds


def test_a_least_number_of_epochs_is_refused(compose_config) -> None:
    with pytest.raises(UserError, match=r"trainer\.min_epochs or trainer\.min_steps could exceed it"):
        check_config(compose_config("trainer.max_time=00:00:01:00", "trainer.min_epochs=3"))
