"""data.batch_size=auto: the search for the largest batch, the choice by speed, and a run with it."""

import json
import math

import pytest
import torch

from agebench.cli.rules import check_config
from agebench.errors import UserError
from agebench.training import batch_size
from agebench.training import fit as fitting
from agebench.training.batch_size import choose_batch_size, fastest, largest_fitting
from agebench.training.fit import fit

BASE = (
    "data=digits",
    "model.hidden=[16]",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
    "report=false",
)


def memory_for(images: int, tried: list[int]):
    """Return an attempt that has memory for so many images."""

    def attempt(size: int) -> None:
        tried.append(size)
        if size > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    return attempt


@pytest.mark.parametrize(
    ("images", "most", "expected"),
    [(16, 10_000, 16), (100, 10_000, 96), (95, 10_000, 64), (1000, 10_000, 768), (10**9, 1000, 768), (10**9, 512, 512)],
)
def test_the_search_finds_the_largest_power_of_two_or_one_and_a_half_of_it(images, most, expected) -> None:
    tried: list[int] = []

    found = largest_fitting(memory_for(images, tried), smallest=16, most=most)

    assert found == expected
    assert found in tried
    assert max(tried) <= most
    assert len(tried) == len(set(tried))


def test_an_error_that_is_not_about_memory_is_raised() -> None:
    def attempt(size: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        largest_fitting(attempt, smallest=16, most=64)


def test_no_batch_that_fits_is_a_sentence() -> None:
    with pytest.raises(UserError, match="not even 16 images fit"):
        largest_fitting(memory_for(8, []), smallest=16, most=64)


def test_measuring_stops_at_a_much_slower_size_or_at_the_end_of_the_time() -> None:
    speeds = {16: 100.0, 32: 180.0, 64: 120.0, 128: 500.0}

    assert fastest(speeds.__getitem__, list(speeds), clock=lambda: 0.0) == {16: 100.0, 32: 180.0, 64: 120.0}

    seconds = iter([0.0, 30.0, 46.0])
    assert fastest(speeds.__getitem__, list(speeds), clock=lambda: next(seconds)) == {16: 100.0, 32: 180.0}


@pytest.fixture
def fake_speeds(monkeypatch):
    """Give each size a speed: 64 is the fastest, and 32 is within 5% of it."""
    speeds = {16: 500.0, 32: 970.0, 64: 1000.0, 128: 900.0}

    def probe(cfg, data, speed, **_) -> None:
        speed._marks = [(0.0, 0), (1.0, speeds[data.batch_size])]

    monkeypatch.setattr(batch_size, "run_probe", probe)


@pytest.mark.ci
def test_a_run_equals_one_with_the_chosen_size(compose_config, tmp_path, fake_speeds) -> None:
    fit(compose_config(*BASE, "data.batch_size=auto"), tmp_path / "auto")
    fit(compose_config(*BASE, "data.batch_size=32"), tmp_path / "typed")

    auto, typed = (json.loads((tmp_path / n / "results.json").read_text(encoding="utf-8")) for n in ("auto", "typed"))
    assert auto["batch_size"]["chosen"] == 32
    assert auto["batch_size"]["images_per_s"] == {"16": 500.0, "32": 970.0, "64": 1000.0, "128": 900.0}
    assert (auto["config"], auto["weights_sha"]) == (typed["config"], typed["weights_sha"])
    assert auto["steps"] == 2 * math.ceil(1437 / 32)
    assert "batch_size: 32" in (tmp_path / "auto" / ".hydra" / "config.yaml").read_text(encoding="utf-8")


def test_a_resumed_run_keeps_its_size(compose_config, tmp_path, fake_speeds, monkeypatch) -> None:
    config = compose_config(*BASE, "data.batch_size=auto")

    class Stop(BaseException):
        pass

    def stop(*_) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "test", stop)
        with pytest.raises(Stop):
            fit(config, tmp_path)
    monkeypatch.setattr(batch_size, "run_probe", stop)  # not measured again
    fit(config, tmp_path)

    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (results["status"], results["resumed"], results["batch_size"]["chosen"]) == ("completed", 1, 32)
    assert fit(config, tmp_path) == results["best"]["value"]  # complete: nothing to do


def test_an_unfinished_run_of_another_config_does_not_decide_the_size(compose_config, fake_speeds) -> None:
    config = compose_config(*BASE, "data.batch_size=auto")

    chosen, facts = choose_batch_size(config, {"batch_size": {"chosen": 64}, "config": "of another run"})

    assert chosen.data.batch_size == facts["chosen"] == 32


def test_sizes_are_measured_in_real_trainings(compose_config, monkeypatch) -> None:
    monkeypatch.setattr(batch_size, "MEASURED_S", 0.05)

    config, facts = batch_size.choose_batch_size(compose_config(*BASE, "data.batch_size=auto"), {})

    assert config.data.batch_size == facts["chosen"]
    assert facts["chosen"] in (16, 32, 64, 128)  # at least 8 steps of 1,437 images
    assert set(facts["images_per_s"]) <= {"16", "32", "64", "128"}
    assert all(speed > 100 for speed in facts["images_per_s"].values())


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("devices", 2, "measures one device"),
        ("devices", [0, 1], "measures one device"),
        ("devices", "auto", "measures one device"),
    ],
)
def test_several_devices_are_refused(compose_config, key, value, sentence) -> None:
    config = compose_config("data.batch_size=auto")
    config.trainer[key] = value

    with pytest.raises(UserError, match=sentence):
        check_config(config)
