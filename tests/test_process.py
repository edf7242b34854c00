"""The setup of a process that trains or tests."""

import logging
import os
import random
import warnings
from collections.abc import Iterator

import pytest
import torch

from agebench.process import hide_routine_messages, set_up_process


@pytest.fixture(autouse=True)
def unchanged_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore what the functions under test set for the whole process."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "PYTORCH_NVML_BASED_CUDA_CHECK"):
        monkeypatch.setenv(name, "1")
    precision = torch.get_float32_matmul_precision()
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        yield
    torch.set_float32_matmul_precision(precision)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_every_generator_has_the_seed() -> None:
    set_up_process(seed=7, matmul_precision="highest")

    drawn = random.random(), torch.rand(1).item()

    torch.manual_seed(7)
    assert drawn == (random.Random(7).random(), torch.rand(1).item())
    assert os.environ["PL_SEED_WORKERS"] == "1"


def test_the_precision_of_matrix_products_is_set() -> None:
    set_up_process(seed=0, matmul_precision="medium")

    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.parametrize(("gpus", "checked"), [(0, "0"), (1, "1")])
def test_without_a_gpu_torch_does_not_search_for_nvml(monkeypatch: pytest.MonkeyPatch, gpus: int, checked: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    set_up_process(seed=0, matmul_precision="highest")

    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == checked


def test_routine_messages_of_lightning_are_hidden_and_others_are_shown() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        hide_routine_messages()
        warnings.warn("The 'val_dataloader' does not have many workers which may be a bottleneck", stacklevel=1)
        warnings.warn("the metric is undefined", stacklevel=1)

    assert [str(each.message) for each in shown] == ["the metric is undefined"]
    for name in ("lightning.pytorch", "lightning.fabric"):
        assert not logging.getLogger(f"{name}.utilities").isEnabledFor(logging.INFO)
        assert logging.getLogger(f"{name}.utilities").isEnabledFor(logging.WARNING)
