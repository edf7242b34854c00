"""The CORN head against float64 NumPy, coral-pytorch and values computed manually."""

import math

import numpy as np
import pytest
import torch
from coral_pytorch.dataset import corn_label_from_logits
from coral_pytorch.losses import corn_loss

from agebench.errors import UserError
from agebench.heads.corn import CORN


def head_of(num_labels: int, *, first: float = 0, **settings) -> CORN:
    return CORN(num_labels, [first + k for k in range(num_labels)], ordered=True, **settings)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 5)) * 3, rng.integers(0, 6, size=64)


def test_three_labels_computed_manually() -> None:
    # P(y > 0) = 3/4 and P(y > 1 | y > 0) = 1/3
    outputs = torch.tensor([[math.log(3), -math.log(2)]])
    head = head_of(3)

    assert head.num_outputs == 2
    assert head.posterior(outputs).tolist()[0] == pytest.approx([0.25, 0.5, 0.25])
    assert head.loss(outputs, torch.tensor([0])).item() == pytest.approx(math.log(4))  # one task
    assert head.loss(outputs, torch.tensor([1])).item() == pytest.approx((math.log(4 / 3) + math.log(3 / 2)) / 2)
    assert head.loss(outputs, torch.tensor([2])).item() == pytest.approx((math.log(4 / 3) + math.log(3)) / 2)


def test_the_loss_is_averaged_over_pairs_of_task_and_image() -> None:
    outputs = torch.tensor([[math.log(3), 0.0], [math.log(3), -math.log(2)]])

    loss = head_of(3).loss(outputs, torch.tensor([0, 2]))

    assert loss.item() == pytest.approx((math.log(4) + math.log(4 / 3) + math.log(3)) / 3)


def test_the_loss_equals_a_numpy_computation_over_the_conditional_subsets(drawn) -> None:
    outputs, target = drawn
    terms = []
    for task in range(5):
        subset = target >= task
        above = sigmoid(outputs[subset, task])
        terms.append(-np.where(target[subset] > task, np.log(above), np.log(1 - above)))

    loss = head_of(6).loss(torch.from_numpy(outputs), torch.from_numpy(target))

    assert loss.shape == ()
    assert loss.item() == pytest.approx(np.concatenate(terms).mean(), rel=1e-12)


@pytest.mark.parametrize("num_labels", [2, 6, 49])
@pytest.mark.parametrize("kept", ["all", "odd", "lowest", "highest"])
def test_loss_and_rank_equal_those_of_coral_pytorch_also_if_labels_have_no_images(num_labels, kept) -> None:
    rng = torch.Generator().manual_seed(0)
    outputs = torch.randn(64, num_labels - 1, generator=rng) * 2 + 2
    target = torch.randint(num_labels, (64,), generator=rng)
    target = {
        "all": target,
        "odd": target.clamp(max=num_labels - 2) // 2 * 2 + 1,
        "lowest": torch.zeros_like(target),  # only the first task has images
        "highest": torch.full_like(target, num_labels - 1),
    }[kept]
    head = head_of(num_labels)

    loss, point = head.loss(outputs, target), head.point(outputs)

    assert loss.item() == pytest.approx(corn_loss(outputs, target, num_labels).item(), abs=1e-5)
    assert point.tolist() == corn_label_from_logits(outputs).tolist()


def test_tasks_without_images_do_not_contribute_to_the_loss() -> None:
    outputs = torch.tensor([[0.0, 7.0, -9.0], [0.0, 3.0, 5.0]], requires_grad=True)

    loss = head_of(4).loss(outputs, torch.tensor([0, 0]))
    loss.backward()

    assert loss.item() == pytest.approx(math.log(2))
    assert outputs.grad.tolist() == [[0.25, 0, 0], [0.25, 0, 0]]


def test_the_gradient_of_the_loss_is_correct(drawn) -> None:
    outputs = torch.from_numpy(drawn[0][:4]).requires_grad_()
    target = torch.from_numpy(drawn[1][:4])

    assert torch.autograd.gradcheck(lambda x: head_of(6).loss(x, target), outputs)


def test_a_perfect_prediction_has_the_lowest_loss() -> None:
    head = head_of(4)
    perfect = {k: torch.tensor([[50.0 if k > task else -50.0 for task in range(3)]]) for k in range(4)}

    for target in range(4):
        losses = {k: head.loss(outputs, torch.tensor([target])).item() for k, outputs in perfect.items()}

        assert losses.pop(target) == pytest.approx(0, abs=1e-6)
        assert min(losses.values()) > 10


def test_the_posterior_equals_a_numpy_computation_by_the_chain_rule(drawn) -> None:
    above = sigmoid(drawn[0]).cumprod(1)
    ends = np.ones((64, 1))
    expected = -np.diff(np.concatenate([ends, above, 0 * ends], axis=1), axis=1)

    posterior = head_of(6).posterior(torch.from_numpy(drawn[0])).numpy()

    np.testing.assert_allclose(posterior, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("num_labels", [2, 6, 49])
def test_any_outputs_give_non_increasing_task_probabilities_and_a_valid_distribution(num_labels) -> None:
    outputs = torch.randn(200, num_labels - 1, generator=torch.Generator().manual_seed(0)) * 10
    head = head_of(num_labels)

    above, posterior = head.above(outputs), head.posterior(outputs)

    assert (above.diff(dim=1) <= 0).all()
    assert (posterior >= 0).all()
    np.testing.assert_allclose(posterior.sum(1).numpy(), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("decode", "point"),
    [
        ("auto", 16.0),  # P(y > k) = 0.75, 0.6, 0.45: two exceed 0.5
        ("median", 16.0),
        ("mode", 17.0),  # of 0.25, 0.15, 0.15, 0.45
        ("mean", 15.8),  # 14 + 0.75 + 0.6 + 0.45
    ],
)
def test_the_point_is_the_chosen_statistic_of_the_posterior(decode, point) -> None:
    outputs = torch.tensor([[0.75, 0.8, 0.75]]).logit()

    assert head_of(4, first=14, decode=decode).point(outputs).tolist() == pytest.approx([point])


def test_the_point_is_the_median_of_the_posterior(drawn) -> None:
    head = head_of(6, first=14)
    posterior = head.posterior(torch.from_numpy(drawn[0])).numpy()

    point = head.point(torch.from_numpy(drawn[0])).numpy()

    np.testing.assert_array_equal(point, 14 + (posterior.cumsum(1) < 0.5).sum(1))


def test_values_need_not_be_evenly_spaced() -> None:
    head = CORN(3, [0, 18, 65], ordered=True)

    assert head.point(torch.tensor([[-1.0, 9.0], [1.0, -1.0], [9.0, 1.0]])).tolist() == [0, 18, 65]


def test_two_labels_are_one_task() -> None:
    head = head_of(2, first=1)

    assert head.num_outputs == 1
    assert head.posterior(torch.tensor([[math.log(3)]])).tolist()[0] == pytest.approx([0.25, 0.75])
    assert head.point(torch.tensor([[-1.0], [1.0]])).tolist() == [1, 2]


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_outputs_stay_finite(size) -> None:
    outputs = torch.tensor([[size, -size], [-size, size], [0.0, size]], requires_grad=True)
    head = head_of(3)

    loss = head.loss(outputs, torch.tensor([0, 0, 2]))
    loss.backward()

    assert torch.isfinite(loss)
    assert torch.isfinite(outputs.grad).all()
    assert head.posterior(outputs).tolist() == [[0, 1, 0], [1, 0, 0], [0.5, 0, 0.5]]


def test_classes_and_a_single_label_raise_an_error() -> None:
    with pytest.raises(UserError, match="CORN needs labels with an order"):
        CORN(3, [0, 1, 2], ordered=False)
    with pytest.raises(UserError, match="only one"):
        head_of(1)
