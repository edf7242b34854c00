"""The OR-CNN head against float64 NumPy, coral-pytorch and values computed manually."""

import math

import numpy as np
import pytest
import torch
from coral_pytorch.dataset import levels_from_labelbatch, proba_to_label
from coral_pytorch.losses import coral_loss

from agebench.errors import UserError
from agebench.heads.orcnn import ORCNN


def head_of(num_labels: int, *, first: float = 0, **settings) -> ORCNN:
    return ORCNN(num_labels, [first + k for k in range(num_labels)], ordered=True, **settings)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 5)) * 3, rng.integers(0, 6, size=64)


def test_three_labels_computed_manually() -> None:
    # P(y > 0) = 3/4 and P(y > 1) = 1/4
    outputs = torch.tensor([[math.log(3), -math.log(3)]])
    head = head_of(3)

    assert head.num_outputs == 2
    assert head.posterior(outputs).tolist()[0] == pytest.approx([0.25, 0.5, 0.25])
    assert head.loss(outputs, torch.tensor([1])).item() == pytest.approx(2 * math.log(4 / 3))  # y > 0, not y > 1
    assert head.loss(outputs, torch.tensor([2])).item() == pytest.approx(math.log(4 / 3) + math.log(4))  # y > 1


def test_the_loss_equals_a_numpy_computation(drawn) -> None:
    outputs, target = drawn
    above, labels = sigmoid(outputs), target[:, None] > np.arange(5)
    expected = -np.where(labels, np.log(above), np.log(1 - above)).sum(1).mean()

    loss = head_of(6).loss(torch.from_numpy(outputs), torch.from_numpy(target))

    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_loss_and_rank_equal_those_of_coral_pytorch_with_independent_logits(drawn) -> None:
    outputs, target = (torch.from_numpy(x) for x in drawn)
    outputs = outputs.float()

    loss, point = head_of(6).loss(outputs, target), head_of(6).point(outputs)

    assert loss.item() == pytest.approx(coral_loss(outputs, levels_from_labelbatch(target, 6)).item(), abs=1e-5)
    assert point.tolist() == proba_to_label(outputs.sigmoid()).tolist()


def test_the_gradient_of_the_loss_is_correct(drawn) -> None:
    outputs = torch.from_numpy(drawn[0][:4]).requires_grad_()
    target = torch.from_numpy(drawn[1][:4])

    assert torch.autograd.gradcheck(lambda x: head_of(6).loss(x, target), outputs)


def test_a_perfect_prediction_has_the_lowest_loss() -> None:
    head = head_of(4)
    perfect = {k: torch.tensor([[50.0 if k > task else -50.0 for task in range(3)]]) for k in range(4)}

    for target in range(4):
        losses = {k: head.loss(outputs, torch.tensor([target])).item() for k, outputs in perfect.items()}

        assert losses[target] == pytest.approx(0, abs=1e-6)
        assert losses == {k: pytest.approx(50.0 * abs(k - target), abs=1e-5) for k in perfect}


def test_the_posterior_for_sorted_outputs_is_the_differences_of_the_task_probabilities(drawn) -> None:
    logits = -np.sort(-drawn[0], axis=1)
    ends = np.ones((64, 1))
    expected = -np.diff(np.concatenate([ends, sigmoid(logits), 0 * ends], axis=1), axis=1)

    posterior = head_of(6).posterior(torch.from_numpy(logits)).numpy()

    np.testing.assert_allclose(posterior, expected, rtol=1e-9, atol=1e-15)


def test_unsorted_outputs_give_a_valid_distribution(drawn) -> None:
    outputs = torch.from_numpy(drawn[0]).float()

    posterior = head_of(6).posterior(outputs)

    assert (outputs.diff(dim=1) > 0).any(dim=1).float().mean() > 0.9  # almost all rows are unsorted
    assert (posterior >= 0).all()
    np.testing.assert_allclose(posterior.sum(1).numpy(), 1, rtol=1e-6)


def test_sorting_keeps_the_median_and_the_mean(drawn) -> None:
    outputs = drawn[0]
    posterior = head_of(6).posterior(torch.from_numpy(outputs)).numpy()

    median = (posterior.cumsum(1) < 0.5).sum(1)

    np.testing.assert_array_equal(median, (outputs > 0).sum(1))
    np.testing.assert_allclose(posterior @ np.arange(6), sigmoid(outputs).sum(1), rtol=1e-9)


def test_a_small_probability_between_large_logits_is_not_rounded_to_zero() -> None:
    # Approximately exp(-20) - exp(-21). In float32 both sigmoids round to 1.
    posterior = head_of(3).posterior(torch.tensor([[21.0, 20.0]]))

    assert posterior[0, 1].item() == pytest.approx(math.exp(-20) - math.exp(-21), rel=1e-5)


@pytest.mark.parametrize(
    ("decode", "point"),
    [
        ("auto", 16.0),  # two of three P(y > k) exceed 0.5
        ("median", 16.0),  # sorted 0.75, 0.6, 0.45; posterior 0.25, 0.15, 0.15, 0.45: cumulative sums 0.25, 0.4, 0.55
        ("mode", 17.0),
        ("mean", 15.8),  # 14 + 0.75 + 0.6 + 0.45
    ],
)
def test_the_point_is_the_chosen_statistic_of_the_posterior(decode, point) -> None:
    outputs = torch.tensor([[0.45, 0.75, 0.6]]).logit()

    assert head_of(4, first=14, decode=decode).point(outputs).tolist() == pytest.approx([point])


def test_values_need_not_be_evenly_spaced() -> None:
    head = ORCNN(3, [0, 18, 65], ordered=True)

    assert head.point(torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0]])).tolist() == [0, 18, 65]


def test_two_labels_are_one_task() -> None:
    head = head_of(2, first=1)

    assert head.num_outputs == 1
    assert head.posterior(torch.tensor([[math.log(3)]])).tolist()[0] == pytest.approx([0.25, 0.75])
    assert head.point(torch.tensor([[-1.0], [1.0]])).tolist() == [1, 2]


def test_a_label_without_images_is_part_of_every_task() -> None:
    # Without images of label 2, the tasks y > 1 and y > 2 have the same labels.
    outputs = torch.zeros(3, 3, requires_grad=True)

    loss = head_of(4).loss(outputs, torch.tensor([0, 1, 3]))
    loss.backward()

    assert loss.item() == pytest.approx(3 * math.log(2))
    np.testing.assert_array_equal(outputs.grad[:, 1].numpy(), outputs.grad[:, 2].numpy())


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_outputs_stay_finite(size) -> None:
    outputs = torch.tensor([[size, -size], [-size, size], [0.0, size]], requires_grad=True)
    head = head_of(3)

    loss = head.loss(outputs, torch.tensor([0, 0, 2]))
    loss.backward()

    assert torch.isfinite(loss)
    assert torch.isfinite(outputs.grad).all()
    assert head.posterior(outputs).tolist() == [[0, 1, 0], [0, 1, 0], [0, 0.5, 0.5]]


def test_classes_and_a_single_label_raise_an_error() -> None:
    with pytest.raises(UserError, match="ORCNN needs labels with an order"):
        ORCNN(3, [0, 1, 2], ordered=False)
    with pytest.raises(UserError, match="only one"):
        head_of(1)
