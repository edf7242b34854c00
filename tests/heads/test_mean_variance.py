"""The mean-variance head against float64 NumPy and values computed manually."""

import math

import numpy as np
import pytest
import torch

from agebench.errors import UserError
from agebench.heads.mean_variance import MeanVariance

UNEVEN = [14.0, 15.0, 17.0, 22.0, 30.0]


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 5)) * 3, rng.integers(0, 5, size=32)


def test_two_labels_computed_manually() -> None:
    # Uniform over 10 and 14: the mean 12 has an error of 2, half of its square is 2, and the variance is 4.
    head = MeanVariance(2, [10, 14], ordered=True)

    loss = head.loss(torch.zeros(1, 2), torch.tensor([1]))

    assert loss.item() == pytest.approx(math.log(2) + 0.2 * 2 + 0.05 * 4)


def test_the_loss_equals_a_numpy_computation(drawn) -> None:
    outputs, target = drawn
    values = np.array(UNEVEN)
    p = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    mean = p @ values
    terms = (
        -np.log(p[np.arange(32), target]),
        0.3 * (mean - values[target]) ** 2 / 2,
        0.7 * (p @ values**2 - mean**2),
    )
    head = MeanVariance(5, UNEVEN, ordered=True, lambda_mean=0.3, lambda_variance=0.7)

    loss = head.loss(torch.from_numpy(outputs), torch.from_numpy(target))

    assert loss.shape == ()
    assert loss.item() == pytest.approx(np.mean(sum(terms)), rel=1e-9)


def test_the_gradient_of_the_loss_is_correct(drawn) -> None:
    outputs, target = torch.from_numpy(drawn[0][:4]).requires_grad_(), torch.from_numpy(drawn[1][:4])
    head = MeanVariance(5, UNEVEN, ordered=True)

    assert torch.autograd.gradcheck(lambda x: head.loss(x, target), outputs)


def test_a_perfect_prediction_has_the_lowest_loss(drawn) -> None:
    head = MeanVariance(5, UNEVEN, ordered=True)

    for target in range(5):
        perfect = 50 * torch.eye(5)[target][None]
        assert head.loss(perfect, torch.tensor([target])).item() == pytest.approx(0, abs=1e-6)
        assert all(head.loss(torch.from_numpy(row[None]), torch.tensor([target])) > 1e-2 for row in drawn[0])
        assert all(head.loss(perfect, torch.tensor([other])) > 1 for other in range(5) if other != target)


def test_a_nearer_and_a_narrower_posterior_have_a_lower_loss() -> None:
    head, target = MeanVariance(5, [1, 2, 3, 4, 5], ordered=True), torch.tensor([2])
    narrow, wide, off = torch.tensor([[1e-9, 0.2, 0.6, 0.2, 1e-9], [0.2, 1e-9, 0.6, 1e-9, 0.2], [0.4, 0, 0.6, 0, 0]])

    losses = [head.loss(p.clamp(min=1e-9).log()[None], target).item() for p in (narrow, wide, off)]

    # The variances are 0.4, 1.6 and 0.96. The last mean has an error of 0.8.
    assert losses[1] - losses[0] == pytest.approx(0.05 * 1.2, abs=1e-5)
    assert losses[2] - losses[0] == pytest.approx(0.2 * 0.32 + 0.05 * 0.56, abs=1e-5)


def test_decode_auto_is_the_mean() -> None:
    outputs = torch.tensor([[0.4, 0.15, 0.05, 0.1, 0.3]]).log()
    points = {
        decode: MeanVariance(5, UNEVEN, ordered=True, decode=decode).point(outputs).item()
        for decode in ("auto", "mean", "median", "mode")
    }

    assert points == pytest.approx({"auto": 19.9, "mean": 19.9, "median": 15.0, "mode": 14.0})


@pytest.mark.parametrize("name", ["lambda_mean", "lambda_variance"])
@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_lambda_that_is_negative_or_not_finite_raises_an_error(name, weight) -> None:
    with pytest.raises(UserError, match=rf"head\.{name} must be zero or a positive number"):
        MeanVariance(5, UNEVEN, ordered=True, **{name: weight})
