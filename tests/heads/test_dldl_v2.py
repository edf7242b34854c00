"""DLDL-v2 against float64 NumPy and values computed manually."""

import math

import numpy as np
import pytest
import torch

from agebench.errors import UserError
from agebench.heads.dldl import DLDL
from agebench.heads.dldl_v2 import DLDLv2

UNEVEN = [14.0, 15.0, 17.0, 22.0, 30.0]


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 5)) * 3, rng.integers(0, 5, size=32)


def test_two_labels_computed_manually() -> None:
    # The soft label is (3/4, 1/4) as for DLDL. The mean of the uniform posterior has an error of 0.5.
    head = DLDLv2(2, [5, 6], ordered=True, sigma=1 / math.sqrt(2 * math.log(3)), lambda_l1=4.0)

    loss = head.loss(torch.zeros(1, 2), torch.tensor([0]))

    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5) + 4 * 0.5)


def test_the_loss_equals_a_numpy_computation(drawn) -> None:
    outputs, target = drawn
    values = np.array(UNEVEN)
    log_p = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
    soft = np.exp(-((values - values[target][:, None]) ** 2) / 18)  # sigma 3
    soft /= soft.sum(1, keepdims=True)
    divergence = (soft * (np.log(soft) - log_p)).sum(1)
    expected = (divergence + 0.7 * np.abs(np.exp(log_p) @ values - values[target])).mean()
    head = DLDLv2(5, UNEVEN, ordered=True, sigma=3.0, lambda_l1=0.7)

    loss = head.loss(torch.from_numpy(outputs), torch.from_numpy(target))

    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_the_loss_for_lambda_0_is_that_of_dldl(drawn) -> None:
    outputs, target = map(torch.from_numpy, drawn)

    loss = DLDLv2(5, UNEVEN, ordered=True, lambda_l1=0).loss(outputs, target)

    assert loss.item() == pytest.approx(DLDL(5, UNEVEN, ordered=True).loss(outputs, target).item(), rel=1e-12)


def test_the_gradient_of_the_loss_is_correct(drawn) -> None:
    outputs, target = torch.from_numpy(drawn[0][:4]).requires_grad_(), torch.from_numpy(drawn[1][:4])
    head = DLDLv2(5, UNEVEN, ordered=True)

    assert torch.autograd.gradcheck(lambda x: head.loss(x, target), outputs)


def test_a_perfect_prediction_has_the_lowest_loss() -> None:
    # The soft label of the middle label is symmetric, so its mean is the true value.
    values = np.arange(20.0, 31.0)
    head = DLDLv2(11, values.tolist(), ordered=True, sigma=1.5)
    perfect = torch.from_numpy(-((values - 25) ** 2) / (2 * 1.5**2))[None]
    others = torch.from_numpy(np.random.default_rng(0).normal(size=(32, 11)) * 3)

    best = head.loss(perfect, torch.tensor([5])).item()

    assert best == pytest.approx(0, abs=1e-5)
    assert all(head.loss(row[None], torch.tensor([5])) > 1e-2 for row in others)
    assert all(head.loss(perfect, torch.tensor([other])) > 1e-2 for other in range(11) if other != 5)


def test_decode_auto_is_the_mean() -> None:
    outputs = torch.tensor([[0.4, 0.15, 0.05, 0.1, 0.3]]).log()
    points = {
        decode: DLDLv2(5, UNEVEN, ordered=True, decode=decode).point(outputs).item()
        for decode in ("auto", "mean", "median", "mode")
    }

    assert points == pytest.approx({"auto": 19.9, "mean": 19.9, "median": 15.0, "mode": 14.0})


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_lambda_that_is_negative_or_not_finite_raises_an_error(weight) -> None:
    with pytest.raises(UserError, match=r"head\.lambda_l1 must be zero or a positive number"):
        DLDLv2(5, UNEVEN, ordered=True, lambda_l1=weight)
