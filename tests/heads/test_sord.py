"""SORD against float64 NumPy and values computed manually."""

import math

import numpy as np
import pytest
import torch

from agebench.errors import UserError
from agebench.heads.sord import SORD

UNEVEN = [14.0, 15.0, 17.0, 22.0, 30.0]
DISTANCES = {
    "absolute": lambda true, other: np.abs(true - other),
    "squared": lambda true, other: (true - other) ** 2,
    "log": lambda true, other: np.log(true / other) ** 2,
}


def softmax(outputs: np.ndarray) -> np.ndarray:
    powers = np.exp(outputs - outputs.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 5)) * 3, rng.integers(0, 5, size=32)


def test_two_labels_computed_manually() -> None:
    # With a scale of ln 3, a neighbour one unit away has a third of the mass of the true label: (3/4, 1/4).
    head = SORD(2, [5, 6], ordered=True, scale=math.log(3))

    loss = head.loss(torch.zeros(1, 2), torch.tensor([0]))

    assert head.soft_labels.tolist()[0] == pytest.approx([0.75, 0.25])
    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


@pytest.mark.parametrize(("distance", "scale"), [("absolute", 0.3), ("squared", 0.05), ("log", 8.0)])
def test_the_loss_equals_the_divergence_computed_with_numpy(drawn, distance, scale) -> None:
    outputs, target = drawn
    values = np.array(UNEVEN)
    soft = softmax(-scale * DISTANCES[distance](values[target][:, None], values))
    expected = (soft * np.log(soft / softmax(outputs))).sum(1).mean()
    head = SORD(5, UNEVEN, ordered=True, distance=distance, scale=scale)

    loss = head.loss(torch.from_numpy(outputs), torch.from_numpy(target))

    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_gradient_of_the_loss_is_correct(drawn, distance) -> None:
    outputs, target = torch.from_numpy(drawn[0][:4]).requires_grad_(), torch.from_numpy(drawn[1][:4])
    head = SORD(5, UNEVEN, ordered=True, distance=distance)

    assert torch.autograd.gradcheck(lambda x: head.loss(x, target), outputs)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("target", [0, 2, 4])
def test_the_soft_label_has_the_lowest_loss(drawn, distance, target) -> None:
    values = np.array(UNEVEN)
    head = SORD(5, UNEVEN, ordered=True, distance=distance, scale=0.2)
    perfect = torch.from_numpy(-0.2 * DISTANCES[distance](values[target], values))[None]

    best = head.loss(perfect, torch.tensor([target])).item()

    assert best == pytest.approx(0, abs=1e-6)
    assert all(head.loss(torch.from_numpy(row[None]), torch.tensor([target])) > 1e-3 for row in drawn[0])


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_soft_label_decreases_with_the_distance_from_the_true_label(distance) -> None:
    soft = SORD(49, list(range(14, 63)), ordered=True, distance=distance).soft_labels.double()

    for true, row in enumerate(soft):
        assert (row[: true + 1].diff() >= 0).all()
        assert (row[true:].diff() <= 0).all()
        assert row.argmax() == true


@pytest.mark.parametrize("values", [range(14, 63), range(1, 7), range(5), range(2)])
@pytest.mark.parametrize("distance", ["absolute", "squared"])
def test_the_default_scale_of_labels_one_unit_apart_is_one(values, distance) -> None:
    assert SORD(len(values), list(values), ordered=True, distance=distance).scale == pytest.approx(1)


def test_the_default_scale_compensates_for_a_change_of_unit() -> None:
    years, months = [14.0, 15.0, 18.0], [168.0, 180.0, 216.0]

    for distance in DISTANCES:
        soft = [SORD(3, values, ordered=True, distance=distance).soft_labels for values in (years, months)]
        torch.testing.assert_close(*soft)


def test_decode_auto_is_the_median() -> None:
    outputs = torch.tensor([[0.4, 0.15, 0.05, 0.1, 0.3]]).log()

    assert SORD(5, UNEVEN, ordered=True).point(outputs).tolist() == [15.0]


def test_the_log_distance_of_non_positive_values_raises_an_error() -> None:
    with pytest.raises(UserError, match=r"head\.distance=log needs positive values, but .* first label is 0"):
        SORD(5, list(range(5)), ordered=True, distance="log")


def test_an_unknown_distance_raises_an_error_with_all_choices() -> None:
    with pytest.raises(UserError, match=r"head\.distance=cosine .*absolute, squared, log"):
        SORD(5, UNEVEN, ordered=True, distance="cosine")


@pytest.mark.parametrize("scale", [0, -1.0, math.nan, math.inf])
def test_a_scale_that_is_not_positive_raises_an_error(scale) -> None:
    with pytest.raises(UserError, match=r"head\.scale must be a positive number"):
        SORD(5, UNEVEN, ordered=True, scale=scale)
