"""What the console says before the first step."""

import logging
import os
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch

from agebench.training.console import describe_extras, warn_if_busy


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ((), ""),
        (("augment.mixup=0.2",), "augment.mixup=0.2 for 100% of the batches"),
        (
            ("augment.mixup=0.2", "augment.cutmix=1.0", "augment.mix_probability=0.5", "ema.decay=0.99"),
            "augment.mixup=0.2 or augment.cutmix=1.0 for 50% of the batches; the moving average of the weights "
            "(ema.decay=0.99), which is tested",
        ),
        (
            ("swa.start=0.75", "teacher.run=outputs/a", "trainer.max_time=00:00:10:00"),
            "the average of the weights from swa.start=0.75 on, which is tested; the teacher outputs/a (weight 0.5); "
            "at most trainer.max_time=00:00:10:00",
        ),
    ],
)
def test_what_is_added_to_plain_training_is_one_line(
    compose_config: Callable[..., Any], overrides: tuple[str, ...], line: str
) -> None:
    assert describe_extras(compose_config("data=digits", "model=mlp", *overrides)) == line


@pytest.mark.parametrize(
    ("load", "threads", "warned"),
    [(8.3, 2, True), (4.1, 2, True), (4.0, 2, False), (8.3, 1, False)],
    ids=["far above the cores", "above the cores", "as many as the cores", "one thread"],
)
def test_training_with_several_threads_on_a_busy_machine_is_warned_once_with_the_load(
    monkeypatch, caplog, load: float, threads: int, warned: bool
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)

    with caplog.at_level(logging.WARNING, logger="agebench"):
        warn_if_busy(trainer)

    expected = f"(load {load} on 4 cores): training with {threads} threads"
    assert [expected in record.getMessage() for record in caplog.records if "load" in record.getMessage()] == (
        [True] if warned else []
    )


def test_a_system_without_load_averages_is_not_warned(monkeypatch, caplog) -> None:
    monkeypatch.delattr(os, "getloadavg", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)

    with caplog.at_level(logging.WARNING, logger="agebench"):
        warn_if_busy(trainer)

    assert [record for record in caplog.records if "load" in record.getMessage()] == []
