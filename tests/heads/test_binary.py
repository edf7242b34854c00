"""The binary head against float64 NumPy and values computed manually."""

import math

import numpy as np
import pytest
import torch

from agebench.errors import UserError
from agebench.heads.binary import Binary


@pytest.fixture
def head() -> Binary:
    return Binary(2, [0, 1], ordered=False)


def test_one_output_computed_manually(head) -> None:
    outputs = torch.tensor([[math.log(3)]])  # sigmoid(ln 3) = 3/4

    assert head.num_outputs == 1
    assert head.posterior(outputs).tolist()[0] == pytest.approx([0.25, 0.75])
    assert head.loss(outputs, torch.tensor([1])).item() == pytest.approx(math.log(4 / 3))
    assert head.loss(outputs, torch.tensor([0])).item() == pytest.approx(math.log(4))


def test_loss_and_posterior_equal_a_numpy_computation(head) -> None:
    rng = np.random.default_rng(0)
    outputs, target = rng.normal(size=(32, 1)) * 4, rng.integers(0, 2, size=32)
    second = 1 / (1 + np.exp(-outputs[:, 0]))
    expected = -np.where(target == 1, np.log(second), np.log(1 - second)).mean()

    loss = head.loss(torch.from_numpy(outputs), torch.from_numpy(target))
    posterior = head.posterior(torch.from_numpy(outputs)).numpy()

    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(posterior, np.stack([1 - second, second], axis=1), rtol=1e-9)
    np.testing.assert_allclose(posterior.sum(1), 1, rtol=1e-12)


def test_the_gradient_of_the_loss_is_correct(head) -> None:
    outputs = torch.tensor([[0.3], [-2.0], [1.5]], dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(lambda x: head.loss(x, torch.tensor([0, 1, 1])), outputs)


def test_a_perfect_prediction_has_the_lowest_loss(head) -> None:
    target = torch.tensor([1])

    losses = [head.loss(torch.tensor([[x]]), target).item() for x in (50.0, 2.0, 0.0, -2.0)]

    assert losses == sorted(losses)
    assert losses[0] == pytest.approx(0, abs=1e-6)


def test_extreme_outputs_stay_finite(head) -> None:
    outputs = torch.tensor([[1e30], [-1e30]], requires_grad=True)

    loss = head.loss(outputs, torch.tensor([0, 1]))
    loss.backward()

    assert torch.isfinite(loss)
    assert torch.isfinite(outputs.grad).all()
    assert head.posterior(outputs).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_the_point_is_the_value_of_the_more_probable_label() -> None:
    outputs = torch.tensor([[-1.0], [1.0]])

    for ordered in (True, False):
        assert Binary(2, [18, 65], ordered=ordered).point(outputs).tolist() == [18.0, 65.0]


def test_a_target_with_ten_labels_raises_an_error_that_suggests_softmax() -> None:
    with pytest.raises(UserError, match="this target has 10: use head=softmax"):
        Binary(10, list(range(10)), ordered=False)
