"""The unimodal-concentrated head against float64 NumPy and values computed manually."""

import math

import numpy as np
import pytest
import torch

from agebench.errors import UserError
from agebench.heads.unimodal import Unimodal

UNEVEN = [14.0, 15.0, 17.0, 22.0, 30.0]


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 5)) * 3, rng.integers(0, 5, size=32)


def test_the_concentrated_loss_computed_manually() -> None:
    # Uniform over 10 and 14: the mean 12 has an error of 2, the variance is 4, the floor 1, and the unimodal term 0.
    head = Unimodal(2, [10, 14], ordered=True, floor=1.0)

    loss = head.loss(torch.zeros(1, 2), torch.tensor([1]))

    assert loss.item() == pytest.approx(math.log(5) / 2 + 4 / 10)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (0, 0.1 + 0.3),  # all increases: 0.2 to 0.3, 0.1 to 0.4
        (1, 0.3),
        (2, 0.2 + 0.3),  # also the decrease from 0.3 to 0.1
        (3, 0.2),
    ],
)
def test_the_unimodal_term_computed_manually(target, expected) -> None:
    outputs = torch.tensor([[0.2, 0.3, 0.1, 0.4]], dtype=torch.float64).log()
    with_term, without = (Unimodal(4, [0, 1, 2, 3], ordered=True, lambda_unimodal=x) for x in (10.0, 0.0))

    difference = with_term.loss(outputs, torch.tensor([target])) - without.loss(outputs, torch.tensor([target]))

    assert difference.item() == pytest.approx(10 * expected)


def test_the_loss_equals_a_numpy_computation(drawn) -> None:
    outputs, target = drawn
    values = np.array(UNEVEN)
    expected = []
    for row, y in zip(outputs, target, strict=True):
        p = np.exp(row) / np.exp(row).sum()
        mean = (p * values).sum()
        variance = (p * values**2).sum() - mean**2 + 0.25
        unimodal = sum(max(0, p[k] - p[k + 1]) if k < y else max(0, p[k + 1] - p[k]) for k in range(4))
        expected.append(math.log(variance) / 2 + (mean - values[y]) ** 2 / (2 * variance) + 30 * unimodal)
    head = Unimodal(5, UNEVEN, ordered=True, lambda_unimodal=30.0, floor=0.25)

    loss = head.loss(torch.from_numpy(outputs), torch.from_numpy(target))

    assert loss.shape == ()
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-9)


def test_the_gradient_of_the_loss_is_correct(drawn) -> None:
    outputs, target = torch.from_numpy(drawn[0][:4]).requires_grad_(), torch.from_numpy(drawn[1][:4])
    head = Unimodal(5, UNEVEN, ordered=True)

    assert torch.autograd.gradcheck(lambda x: head.loss(x, target), outputs)


def test_a_perfect_prediction_has_the_lowest_loss(drawn) -> None:
    head = Unimodal(5, UNEVEN, ordered=True)
    lowest = math.log((16 / 4) ** 2 / 12) / 2  # half the logarithm of the floor

    for target in range(5):
        perfect = 50 * torch.eye(5)[target][None]
        assert head.loss(perfect, torch.tensor([target])).item() == pytest.approx(lowest, abs=1e-6)
        assert all(head.loss(torch.from_numpy(row[None]), torch.tensor([target])) > lowest + 1e-3 for row in drawn[0])
        assert all(head.loss(perfect, torch.tensor([other])) > lowest + 1 for other in range(5) if other != target)


def test_the_best_variance_is_the_squared_error() -> None:
    # Posteriors over 0, 5 and 10 with the mean 5. Their variance is 25 times the mass at both ends.
    head = Unimodal(3, [0, 5, 10], ordered=True, lambda_unimodal=0.0, floor=1e-6)
    ends = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    posteriors = torch.stack([ends / 2, 1 - ends, ends / 2], dim=1)

    # All errors are 5: the optimal variance is 25, the maximum.
    far = [head.loss(p.log()[None], torch.tensor([0])).item() for p in posteriors]
    # One of four errors is 5 and the others are 0: the mean squared error is 6.25, a quarter of 25.
    mixed = [head.loss(p.log().expand(4, 3), torch.tensor([0, 1, 1, 1])).item() for p in posteriors]

    assert ends[int(np.argmin(far))] == pytest.approx(0.99)
    assert ends[int(np.argmin(mixed))] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("values", "floor"), [(range(14, 63), 1 / 12), (range(1, 7), 1 / 12), (UNEVEN, 16 / 12), (range(2), 1 / 12)]
)
def test_the_floor_is_the_variance_within_a_label(values, floor) -> None:
    assert Unimodal(len(values), list(values), ordered=True).floor == pytest.approx(floor)


def test_training_makes_the_posterior_unimodal_around_the_truth() -> None:
    head, target = Unimodal(9, list(range(9)), ordered=True), torch.tensor([0, 3, 8])
    outputs = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 9))).requires_grad_()
    optimizer = torch.optim.Adam([outputs], lr=0.05)

    for _ in range(300):
        optimizer.zero_grad()
        head.loss(outputs, target).backward()
        optimizer.step()

    posterior = head.posterior(outputs.detach())
    assert posterior.argmax(dim=1).tolist() == [0, 3, 8]
    for row, true in zip(posterior, target.tolist(), strict=True):
        assert (row[: true + 1].diff() > -1e-3).all()
        assert (row[true:].diff() < 1e-3).all()


def test_decode_auto_is_the_mean() -> None:
    outputs = torch.tensor([[0.4, 0.15, 0.05, 0.1, 0.3]]).log()
    points = {
        decode: Unimodal(5, UNEVEN, ordered=True, decode=decode).point(outputs).item()
        for decode in ("auto", "mean", "median", "mode")
    }

    assert points == pytest.approx({"auto": 19.9, "mean": 19.9, "median": 15.0, "mode": 14.0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lambda_unimodal": -1.0}, "lambda_unimodal must be zero or a positive number"),
        ({"lambda_unimodal": math.nan}, "lambda_unimodal must be zero or a positive number"),
        ({"floor": 0.0}, "floor must be a positive number in squared units"),
        ({"floor": math.nan}, "floor must be a positive number in squared units"),
    ],
)
def test_settings_out_of_range_raise_an_error(settings, message) -> None:
    with pytest.raises(UserError, match=message):
        Unimodal(5, UNEVEN, ordered=True, **settings)
