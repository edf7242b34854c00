"""The CORAL head against float64 NumPy, coral-pytorch and values computed manually."""

import math

import numpy as np
import pytest
import torch
from coral_pytorch.dataset import levels_from_labelbatch, proba_to_label
from coral_pytorch.layers import CoralLayer
from coral_pytorch.losses import coral_loss

from agebench.errors import UserError
from agebench.heads.coral import CORAL


def head_of(num_labels: int, *, first: float = 0, biases=None, **settings) -> CORAL:
    head = CORAL(num_labels, [first + k for k in range(num_labels)], ordered=True, **settings)
    if biases is not None:
        head.biases.data = torch.as_tensor(biases)
    return head


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores (64, 1), unsorted biases (5,), and labels (64,)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 1)) * 3, rng.normal(size=5) * 2, rng.integers(0, 6, size=64)


def test_three_labels_computed_manually() -> None:
    # P(y > 0) = 3/4 and P(y > 1) = 1/4
    head = head_of(3, biases=[math.log(3) - 1, -math.log(3) - 1])
    outputs = torch.tensor([[1.0]])

    assert head.num_outputs == 1
    assert head.posterior(outputs).tolist()[0] == pytest.approx([0.25, 0.5, 0.25])
    assert head.loss(outputs, torch.tensor([1])).item() == pytest.approx(2 * math.log(4 / 3))  # y > 0, not y > 1
    assert head.loss(outputs, torch.tensor([0])).item() == pytest.approx(math.log(4) + math.log(4 / 3))  # not y > 0


def test_the_loss_equals_a_numpy_computation(drawn) -> None:
    outputs, biases, target = drawn
    above, labels = sigmoid(outputs + biases), target[:, None] > np.arange(5)
    expected = -np.where(labels, np.log(above), np.log(1 - above)).sum(1).mean()

    loss = head_of(6, biases=biases).loss(torch.from_numpy(outputs), torch.from_numpy(target))

    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("num_labels", [2, 6, 49])
def test_initial_biases_loss_and_rank_equal_those_of_coral_pytorch(num_labels) -> None:
    rng = torch.Generator().manual_seed(0)
    features, target = torch.randn(64, 8, generator=rng) * 3, torch.randint(num_labels, (64,), generator=rng)
    layer, head = CoralLayer(8, num_labels), head_of(num_labels)

    outputs, logits = layer.coral_weights(features), layer(features)

    torch.testing.assert_close(head.biases, layer.coral_bias)
    expected = coral_loss(logits, levels_from_labelbatch(target, num_labels))
    torch.testing.assert_close(head.loss(outputs, target), expected, rtol=1e-5, atol=1e-5)
    assert head.point(outputs).tolist() == proba_to_label(logits.sigmoid()).tolist()


def test_the_rank_for_unsorted_biases_equals_that_of_coral_pytorch(drawn) -> None:
    outputs, biases, _ = (torch.from_numpy(x) for x in drawn)

    point = head_of(6, biases=biases).point(outputs)

    assert point.tolist() == proba_to_label((outputs + biases).sigmoid()).tolist()


def test_the_gradients_of_the_loss_are_correct(drawn) -> None:
    outputs, biases, target = (torch.from_numpy(x) for x in drawn)
    head = head_of(6, biases=biases)

    def loss(scores: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
        call = {"biases": biases}
        return torch.func.functional_call(Loss(head), {f"head.{k}": v for k, v in call.items()}, (scores, target[:4]))

    assert torch.autograd.gradcheck(loss, (outputs[:4].clone().requires_grad_(), biases.clone().requires_grad_()))


class Loss(torch.nn.Module):
    """Calls the loss of a head, for functional_call."""

    def __init__(self, head: CORAL) -> None:
        super().__init__()
        self.head = head

    def forward(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.head.loss(outputs, target)


def test_the_biases_are_trained_and_saved() -> None:
    head = head_of(4)
    head.loss(torch.tensor([[0.5], [-0.5]]), torch.tensor([0, 3])).backward()
    other = head_of(4, biases=[0.0, 0.0, 0.0])

    other.load_state_dict(head.state_dict())

    assert list(head.state_dict()) == ["biases"]
    assert (head.biases.grad != 0).all()
    assert other.biases.tolist() == pytest.approx([1, 2 / 3, 1 / 3])


def test_a_perfect_prediction_has_the_lowest_loss() -> None:
    head = head_of(4, biases=[100.0, 0.0, -100.0])
    scores = [-150.0, -50.0, 50.0, 150.0]  # in the middle of the interval of each label

    for target in range(4):
        losses = [head.loss(torch.tensor([[score]]), torch.tensor([target])).item() for score in scores]

        assert losses[target] == pytest.approx(0, abs=1e-6)
        assert np.argsort(losses)[0] == target
        assert min(loss for k, loss in enumerate(losses) if k != target) > 40


def test_trained_biases_reach_the_minimum_from_unsorted_initial_biases() -> None:
    # For scores of zero the minimum is known: each bias is the logit of the share of images with y > k.
    target = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4])
    head = head_of(5, biases=[-2.0, 1.0, -1.0, 3.0])
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = head.loss(torch.zeros(8, 1), target)
        loss.backward()
        return loss

    optimizer.step(closure)

    shares = np.array([6, 5, 2, 1]) / 8
    np.testing.assert_allclose(head.biases.detach().numpy(), np.log(shares / (1 - shares)), atol=1e-3)
    np.testing.assert_allclose(
        head.posterior(torch.zeros(1, 1)).detach().numpy()[0], np.array([2, 1, 3, 1, 1]) / 8, atol=1e-3
    )


def test_the_posterior_for_descending_biases_is_the_differences_of_the_task_probabilities(drawn) -> None:
    outputs, biases = drawn[0], np.sort(drawn[1])[::-1].copy()
    ends = np.ones((64, 1))
    expected = -np.diff(np.concatenate([ends, sigmoid(outputs + biases), 0 * ends], axis=1), axis=1)

    head = head_of(6, biases=biases)

    posterior, above = (f(torch.from_numpy(outputs)).detach().numpy() for f in (head.posterior, head.above))
    np.testing.assert_allclose(posterior, expected, rtol=1e-9, atol=1e-15)
    assert (np.diff(above, axis=1) <= 0).all()


def test_unsorted_biases_give_a_valid_distribution(drawn) -> None:
    outputs, biases, _ = (torch.from_numpy(x).float() for x in drawn)

    posterior = head_of(6, biases=biases).posterior(outputs).detach()

    assert (biases.diff() > 0).any()
    assert (posterior >= 0).all()
    np.testing.assert_allclose(posterior.sum(1).numpy(), 1, rtol=1e-6)
    np.testing.assert_allclose((posterior @ torch.arange(6.0)), (outputs + biases).sigmoid().sum(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("decode", "point"),
    [
        ("auto", 16.0),  # two of three P(y > k) exceed 0.5
        ("median", 16.0),  # 0.25, 0.15, 0.15, 0.45: cumulative sums 0.25, 0.4, 0.55
        ("mode", 17.0),
        ("mean", 15.8),  # 14 + 0.75 + 0.6 + 0.45
    ],
)
def test_the_point_is_the_chosen_statistic_of_the_posterior(decode, point) -> None:
    head = head_of(4, first=14, biases=torch.tensor([0.75, 0.6, 0.45]).logit(), decode=decode)

    assert head.point(torch.zeros(1, 1)).tolist() == pytest.approx([point])


def test_values_need_not_be_evenly_spaced() -> None:
    head = CORAL(3, [0, 18, 65], ordered=True)  # biases 1 and 1/2

    assert head.point(torch.tensor([[-2.0], [-0.75], [0.0]])).tolist() == [0, 18, 65]


def test_two_labels_are_one_task() -> None:
    head = head_of(2, first=1)

    assert head.biases.tolist() == [1]
    assert head.posterior(torch.tensor([[math.log(3) - 1]])).tolist()[0] == pytest.approx([0.25, 0.75])
    assert head.point(torch.tensor([[-1.5], [1.0]])).tolist() == [1, 2]


def test_loss_and_gradient_are_finite_if_a_label_has_no_images() -> None:
    head = head_of(4, biases=[0.0, 0.0, 0.0])

    loss = head.loss(torch.zeros(3, 1), torch.tensor([0, 1, 3]))
    loss.backward()

    assert loss.item() == pytest.approx(3 * math.log(2))
    # 1/2 minus the share of y > k: 2/3 for k = 0, 1/3 for k = 1 and 2
    assert head.biases.grad.tolist() == pytest.approx([-1 / 6, 1 / 6, 1 / 6])


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_outputs_stay_finite(size) -> None:
    outputs = torch.tensor([[size], [-size]], requires_grad=True)
    head = head_of(3)

    loss = head.loss(outputs, torch.tensor([0, 2]))
    loss.backward()

    assert torch.isfinite(loss)
    assert torch.isfinite(outputs.grad).all()
    assert torch.isfinite(head.biases.grad).all()
    assert head.posterior(outputs).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_classes_and_a_single_label_raise_an_error() -> None:
    with pytest.raises(UserError, match="CORAL needs labels with an order"):
        CORAL(3, [0, 1, 2], ordered=False)
    with pytest.raises(UserError, match="only one"):
        head_of(1)
