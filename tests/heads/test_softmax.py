"""The softmax head against float64 NumPy and values computed manually."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from agebench import build
from agebench.errors import UserError
from agebench.heads.softmax import Softmax


def head_of(num_labels: int, **settings) -> Softmax:
    return Softmax(num_labels, list(range(num_labels)), ordered=False, **settings)


def softmax(outputs: np.ndarray) -> np.ndarray:
    powers = np.exp(outputs - outputs.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 5)) * 3, rng.integers(0, 5, size=32)


def test_two_labels_computed_manually() -> None:
    # softmax of (ln 3, 0) is (3/4, 1/4)
    outputs = torch.tensor([[math.log(3), 0.0]])

    assert head_of(2).posterior(outputs).tolist()[0] == pytest.approx([0.75, 0.25])
    assert head_of(2).loss(outputs, torch.tensor([0])).item() == pytest.approx(math.log(4 / 3))
    # (1/4 squared + 1/4 squared) / 2
    assert head_of(2, loss="squared_error").loss(outputs, torch.tensor([0])).item() == pytest.approx(0.0625)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_losses_equal_a_numpy_computation(drawn, smoothing) -> None:
    outputs, target = drawn
    probabilities, soft = softmax(outputs), np.full((32, 5), smoothing / 5)
    soft[np.arange(32), target] += 1 - smoothing
    expected = {
        "cross_entropy": -(soft * np.log(probabilities)).sum(1).mean(),
        "squared_error": 0.5 * ((probabilities - soft) ** 2).sum(1).mean(),
    }

    for loss, value in expected.items():
        head = head_of(5, loss=loss, label_smoothing=smoothing)

        found = head.loss(torch.from_numpy(outputs), torch.from_numpy(target))

        assert found.shape == ()
        assert found.item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_the_gradient_of_the_loss_is_correct(drawn, loss) -> None:
    outputs = torch.from_numpy(drawn[0][:4]).requires_grad_()
    target = torch.from_numpy(drawn[1][:4])
    head = head_of(5, loss=loss, label_smoothing=0.1)

    assert torch.autograd.gradcheck(lambda x: head.loss(x, target), outputs)


def test_the_posterior_sums_to_one_and_equals_a_numpy_computation(drawn) -> None:
    posterior = head_of(5).posterior(torch.from_numpy(drawn[0])).numpy()

    np.testing.assert_allclose(posterior, softmax(drawn[0]), rtol=1e-12)
    np.testing.assert_allclose(posterior.sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_a_perfect_prediction_has_the_lowest_loss(loss) -> None:
    head, target = head_of(4, loss=loss), torch.tensor([2])
    perfect = torch.tensor([[0.0, 0.0, 50.0, 0.0]])
    others = [torch.tensor([row]) for row in ([0.0, 0, 0, 0], [0.0, 0, 2, 0], [50.0, 0, 0, 0], [0.0, 0, 50, 50])]

    best = head.loss(perfect, target)

    assert best.item() == pytest.approx(0, abs=1e-6)
    assert all(head.loss(other, target) > best + 1e-3 for other in others)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_extreme_outputs_stay_finite(loss) -> None:
    head = head_of(3, loss=loss)
    outputs = torch.tensor([[1e4, -1e4, 0.0], [-1e30, 1e30, 0.0]], requires_grad=True)

    value = head.loss(outputs, torch.tensor([1, 1]))
    value.backward()

    assert torch.isfinite(value)
    assert torch.isfinite(outputs.grad).all()
    assert torch.isfinite(head.posterior(outputs)).all()


def test_the_point_is_the_median_for_ordered_labels_and_the_mode_for_others() -> None:
    outputs = torch.tensor([[0.4, 0.15, 0.05, 0.4 + 1e-3]]).log()  # the softmax inverts the logarithm
    values = [10.0, 20.0, 30.0, 40.0]

    assert Softmax(4, values, ordered=True).point(outputs).tolist() == [20.0]
    assert Softmax(4, values, ordered=False).point(outputs).tolist() == [40.0]


def test_the_head_has_one_output_per_label() -> None:
    assert head_of(7).num_outputs == 7


def test_an_unknown_loss_raises_an_error_with_all_choices() -> None:
    with pytest.raises(UserError, match=r"head\.loss=hinge .*cross_entropy, squared_error"):
        head_of(3, loss="hinge")


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_label_smoothing_out_of_range_raises_an_error(smoothing) -> None:
    with pytest.raises(UserError, match=rf"head\.label_smoothing must be in \[0, 1\), got {smoothing}"):
        head_of(3, label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_make_the_losses_weighted_means(drawn, smoothing) -> None:
    outputs, target = drawn
    weights = np.array([0.5, 2.0, 1.0, 4.0, 0.25])
    probabilities, soft = softmax(outputs), np.full((32, 5), smoothing / 5)
    soft[np.arange(32), target] += 1 - smoothing
    errors = 0.5 * ((probabilities - soft) ** 2).sum(1)
    expected = {
        "cross_entropy": -(weights * soft * np.log(probabilities)).sum() / weights[target].sum(),
        "squared_error": np.average(errors, weights=weights[target]),
    }

    for loss, value in expected.items():
        head = head_of(5, loss=loss, label_smoothing=smoothing, class_weight=weights.tolist())

        found = head.loss(torch.from_numpy(outputs), torch.from_numpy(target))

        assert found.item() == pytest.approx(value, rel=1e-12)
        np.testing.assert_array_equal(head.sample_weights(torch.from_numpy(target)).numpy(), weights[target])


def test_balanced_weights_equal_those_of_scikit_learn() -> None:
    labels = np.repeat(np.arange(4), [1, 10, 40, 149])
    head = head_of(4, class_weight="balanced")

    head.set_label_counts(torch.tensor([1, 10, 40, 149]))

    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(head.weights.numpy(), expected, rtol=1e-6)
    assert head.weights.numpy()[labels].mean() == pytest.approx(1, rel=1e-6)  # the loss keeps its scale


@pytest.mark.parametrize(
    ("counts", "weights"),
    [
        ([2, 0, 6], [2.0, 1.0, 8 / 12]),  # 8 images, 2 labels with images
        ([0, 0, 0], [1.0, 1.0, 1.0]),  # a data set without train images
    ],
)
def test_a_label_without_train_images_has_the_weight_one(counts, weights) -> None:
    head = head_of(3, class_weight="balanced")

    head.set_label_counts(torch.tensor(counts))

    assert head.weights.tolist() == pytest.approx(weights)
    assert torch.isfinite(head.loss(torch.zeros(2, 3), torch.tensor([1, 1])))


def test_balanced_weights_compensate_for_an_imbalanced_batch() -> None:
    outputs, target = torch.tensor([[1.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1])
    head = head_of(2, class_weight="balanced")
    head.set_label_counts(torch.bincount(target))

    found = head.loss(outputs, target).item()

    first, second = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    assert found == pytest.approx((first + second) / 2)


def test_loading_a_model_replaces_the_balanced_weights_of_other_data() -> None:
    trained, other = (head_of(3, class_weight="balanced") for _ in range(2))
    trained.set_label_counts(torch.tensor([1, 2, 3]))
    other.set_label_counts(torch.tensor([7, 7, 7]))

    other.load_state_dict(trained.state_dict())

    assert other.weights.tolist() == trained.weights.tolist() == pytest.approx([2.0, 1.0, 2 / 3])


def test_a_head_without_class_weights_saves_nothing() -> None:
    head = head_of(3)

    head.set_label_counts(torch.tensor([1, 2, 3]))

    assert list(head.state_dict()) == []


def test_label_counts_do_not_change_explicit_class_weights() -> None:
    head = head_of(3, class_weight=[1, 2, 3])

    head.set_label_counts(torch.tensor([1, 1, 100]))

    assert head.weights.tolist() == [1, 2, 3]


def test_class_weights_are_converted_to_the_precision_of_the_outputs(drawn) -> None:
    outputs, target = torch.from_numpy(drawn[0]).float(), torch.from_numpy(drawn[1])
    head = head_of(5, class_weight=[1, 2, 4, 8, 16])

    single, half = head.loss(outputs, target), head.to(torch.bfloat16).loss(outputs, target)

    assert half.dtype == torch.float32
    assert half.item() == single.item()  # powers of two are exact in all precisions


def test_balanced_weights_without_label_counts_raise_an_error() -> None:
    with pytest.raises(RuntimeError, match="set_label_counts"):
        head_of(3, class_weight="balanced").loss(torch.zeros(1, 3), torch.tensor([0]))


@pytest.mark.parametrize("weights", ["inverse", [1, 2], [1, 2, 0], [1, 2, -1], [1, 2, math.nan], [1, 2, "3"]])
def test_class_weights_that_are_not_one_positive_number_per_label_raise_an_error(weights) -> None:
    with pytest.raises(UserError, match=r"head\.class_weight must be null, balanced or 3 positive numbers"):
        head_of(3, class_weight=weights)


def test_the_gradient_of_a_weighted_loss_is_correct(drawn) -> None:
    outputs, target = torch.from_numpy(drawn[0][:4]).requires_grad_(), torch.from_numpy(drawn[1][:4])

    for loss in ("cross_entropy", "squared_error"):
        head = head_of(5, loss=loss, class_weight=[1, 2, 3, 4, 5])

        assert torch.autograd.gradcheck(lambda x, head=head: head.loss(x, target), outputs)


def test_balanced_weights_come_from_the_train_part_only(compose_config) -> None:
    config = compose_config("head.class_weight=balanced", "data.normalise=half")
    data = build.build_data(config)
    labels = data.part("train").target.numpy()

    head = build.build_module(config, data).head

    present, counts = np.unique(labels, return_counts=True)
    expected = np.ones(10)
    expected[present] = len(labels) / (len(present) * counts)
    assert counts.min() < counts.max()
    np.testing.assert_allclose(head.weights.numpy(), expected, rtol=1e-6)
