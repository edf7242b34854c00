"""DLDL against float64 NumPy and values computed manually."""

import math

import numpy as np
import pytest
import torch

from agebench.errors import UserError
from agebench.heads.dldl import DLDL

UNEVEN = [14.0, 15.0, 17.0, 22.0, 30.0]


def softmax(outputs: np.ndarray) -> np.ndarray:
    powers = np.exp(outputs - outputs.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def gaussian(values, target, sigma) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    density = np.exp(-((values - values[target][:, None]) ** 2) / (2 * sigma**2))
    return density / density.sum(1, keepdims=True)


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 5)) * 3, rng.integers(0, 5, size=32)


def test_two_labels_computed_manually() -> None:
    # With sigma = 1 / sqrt(2 ln 3) the density of a neighbour one unit away is 1/3: the soft label is (3/4, 1/4).
    head = DLDL(2, [5, 6], ordered=True, sigma=1 / math.sqrt(2 * math.log(3)))

    loss = head.loss(torch.zeros(1, 2), torch.tensor([0]))

    assert head.soft_labels.tolist()[0] == pytest.approx([0.75, 0.25])
    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


def test_the_loss_equals_the_divergence_computed_with_numpy(drawn) -> None:
    outputs, target = drawn
    soft = gaussian(UNEVEN, target, 3.0)
    expected = (soft * np.log(soft / softmax(outputs))).sum(1).mean()
    head = DLDL(5, UNEVEN, ordered=True, sigma=3.0)

    loss = head.loss(torch.from_numpy(outputs), torch.from_numpy(target))

    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_the_gradient_of_the_loss_is_correct(drawn) -> None:
    outputs, target = torch.from_numpy(drawn[0][:4]).requires_grad_(), torch.from_numpy(drawn[1][:4])
    head = DLDL(5, UNEVEN, ordered=True)

    assert torch.autograd.gradcheck(lambda x: head.loss(x, target), outputs)


@pytest.mark.parametrize("target", [0, 2, 4])
def test_the_soft_label_has_the_lowest_loss(drawn, target) -> None:
    head = DLDL(5, UNEVEN, ordered=True, sigma=3.0)
    perfect = torch.from_numpy(np.log(gaussian(UNEVEN, np.array([target]), 3.0)))

    best = head.loss(perfect, torch.tensor([target])).item()

    assert best == pytest.approx(0, abs=1e-6)
    assert all(head.loss(torch.from_numpy(row[None]), torch.tensor([target])) > 1e-3 for row in drawn[0])
    assert head.loss(perfect, torch.tensor([(target + 1) % 5])) > 1e-3


def test_a_soft_label_decreases_with_the_distance_from_the_true_value() -> None:
    values = torch.tensor(UNEVEN)

    soft = DLDL(5, UNEVEN, ordered=True).soft_labels

    for row, value in zip(soft, values, strict=True):
        ordered = row[(values - value).abs().argsort()]
        assert (ordered.diff() <= 0).all()  # not strict: 14 and 30 have the same distance from 22
        assert ordered[0] > ordered[1]


def test_the_posterior_is_the_softmax(drawn) -> None:
    posterior = DLDL(5, UNEVEN, ordered=True).posterior(torch.from_numpy(drawn[0])).numpy()

    np.testing.assert_allclose(posterior, softmax(drawn[0]), rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "sigma"), [(range(14, 63), 2.0), (range(1, 7), 0.5), (range(5), 0.4), (range(2), 0.1)]
)
def test_the_default_sigma_is_the_smaller_of_2_and_a_tenth_of_the_range(values, sigma) -> None:
    assert DLDL(len(values), list(values), ordered=True).sigma == pytest.approx(sigma)


def test_decode_auto_is_the_median() -> None:
    outputs = torch.tensor([[0.4, 0.15, 0.05, 0.1, 0.3]]).log()

    assert DLDL(5, UNEVEN, ordered=True).point(outputs).tolist() == [15.0]


@pytest.mark.parametrize("sigma", [0, -1.0, math.nan, math.inf])
def test_a_sigma_that_is_not_positive_and_finite_raises_an_error(sigma) -> None:
    with pytest.raises(UserError, match=r"head\.sigma must be a positive number"):
        DLDL(5, UNEVEN, ordered=True, sigma=sigma)
