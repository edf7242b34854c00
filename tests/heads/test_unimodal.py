"""The unimodal-concentrated head against float64 NumPy and figures worked by hand."""

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


def test_the_concentrated_loss_worked_by_hand() -> None:
    # Even odds of 10 and 14: mean 12, 2 off, variance 4, and a floor of 1; level odds violate no order.
    head = Unimodal(2, [10, 14], ordered=True, floor=1.0)

    loss = head.loss(torch.zeros(1, 2), torch.tensor([1]))

    assert loss.item() == pytest.approx(math.log(5) / 2 + 4 / 10)


@pytest.mark.parametrize(
    ("target", "hinge"),
    [
        (0, 0.1 + 0.3),  # every rise is wrong: 0.2 to 0.3, 0.1 to 0.4
        (1, 0.3),
        (2, 0.2 + 0.3),  # the fall from 0.3 to 0.1 is wrong as well
        (3, 0.2),
    ],
)
def test_the_hinge_worked_by_hand(target, hinge) -> None:
    outputs = torch.tensor([[0.2, 0.3, 0.1, 0.4]], dtype=torch.float64).log()
    with_hinge, without = (Unimodal(4, [0, 1, 2, 3], ordered=True, lambda_unimodal=x) for x in (10.0, 0.0))

    difference = with_hinge.loss(outputs, torch.tensor([target])) - without.loss(outputs, torch.tensor([target]))

    assert difference.item() == pytest.approx(10 * hinge)


def test_the_loss_is_numpys(drawn) -> None:
    outputs, target = drawn
    values = np.array(UNEVEN)
    expected = []
    for row, y in zip(outputs, target, strict=True):
        p = np.exp(row) / np.exp(row).sum()
        mean = (p * values).sum()
        variance = (p * values**2).sum() - mean**2 + 0.25
        hinge = sum(max(0, p[k] - p[k + 1]) if k < y else max(0, p[k + 1] - p[k]) for k in range(4))
        expected.append(math.log(variance) / 2 + (mean - values[y]) ** 2 / (2 * variance) + 30 * hinge)
    head = Unimodal(5, UNEVEN, ordered=True, lambda_unimodal=30.0, floor=0.25)

    loss = head.loss(torch.from_numpy(outputs), torch.from_numpy(target))

    assert loss.shape == ()
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-9)


def test_the_gradient_is_that_of_the_loss(drawn) -> None:
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
    # Posteriors of the same mean 5 over 0, 5 and 10, whose variances are 25 times the mass at the two ends.
    head = Unimodal(3, [0, 5, 10], ordered=True, lambda_unimodal=0.0, floor=1e-6)
    ends = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    posteriors = torch.stack([ends / 2, 1 - ends, ends / 2], dim=1)

    # Each label is tried with images whose true values, 0 and 10, are 5 off: the best variance is 25, the widest.
    far = [head.loss(p.log()[None], torch.tensor([0])).item() for p in posteriors]
    # One image in four is 5 off and the others are right: the mean squared error is 6.25, a quarter of 25.
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


def test_auto_is_the_mean_and_the_others_are_what_they_say() -> None:
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
def test_weights_outside_their_range_are_refused(settings, message) -> None:
    with pytest.raises(UserError, match=message):
        Unimodal(5, UNEVEN, ordered=True, **settings)
