"""The base class of heads, and the point estimate."""

import numpy as np
import pytest
import torch
from torch import Tensor

from agebench.errors import UserError
from agebench.heads.base import Head


class Given(Head):
    """The outputs are the posterior."""

    num_outputs = 4

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return outputs.sum()

    def posterior(self, outputs: Tensor) -> Tensor:
        return outputs


class Ranking(Given):
    """Supports only ordered labels."""

    needs_order = True


def test_a_head_without_a_loss_cannot_be_instantiated() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Head(2, [0, 1], ordered=False)  # type: ignore[abstract]  # the tested error


@pytest.mark.parametrize(
    ("posterior", "median"),
    [
        ([0.4, 0.15, 0.05, 0.4], 30.0),  # cumulative sums 0.4, 0.55
        ([0.1, 0.2, 0.3, 0.4], 50.0),  # 0.1, 0.3, 0.6
        ([0.5, 0.0, 0.0, 0.5], 20.0),  # the first label has one half
        ([0.0, 0.0, 0.0, 1.0], 70.0),
        ([1.0, 0.0, 0.0, 0.0], 20.0),
    ],
)
def test_the_point_of_ordered_labels_is_the_median_of_the_posterior(posterior, median) -> None:
    head = Given(4, [20, 30, 50, 70], ordered=True)

    point = head.point(torch.tensor([posterior]))

    assert point.tolist() == [median]


def test_the_point_of_ordered_labels_minimizes_the_expected_absolute_error() -> None:
    values = np.array([14.0, 15.0, 20.0, 41.0, 60.0])
    posterior = np.random.default_rng(0).dirichlet(np.ones(5), size=200)
    expected_error = np.abs(values[:, None] - values[None]) @ posterior.T  # (5, 200)

    point = Given(5, values.tolist(), ordered=True).point(torch.from_numpy(posterior)).numpy()

    chosen = np.searchsorted(values, point)
    np.testing.assert_allclose(expected_error[chosen, np.arange(200)], expected_error.min(0), rtol=1e-9)


def test_the_point_of_nominal_labels_is_the_value_of_the_most_probable_label() -> None:
    head = Given(4, [20, 30, 50, 70], ordered=False)

    point = head.point(torch.tensor([[0.3, 0.2, 0.1, 0.4], [0.3, 0.4, 0.2, 0.1]]))

    assert point.tolist() == [70.0, 30.0]


@pytest.mark.parametrize(
    ("decode", "point"),
    [
        ("mean", 48.0),  # 6 + 3 + 7.5 + 31.5
        ("median", 50.0),  # cumulative sums 0.3, 0.4, 0.55
        ("mode", 70.0),
        ("auto", 50.0),
    ],
)
def test_the_point_is_the_chosen_statistic_of_the_posterior(decode, point) -> None:
    head = Given(4, [20, 30, 50, 70], ordered=True, decode=decode)

    assert head.point(torch.tensor([[0.3, 0.1, 0.15, 0.45]])).tolist() == pytest.approx([point], rel=1e-6)


def test_the_mean_minimizes_the_expected_squared_error() -> None:
    values = np.array([14.0, 15.0, 20.0, 41.0, 60.0])
    posterior = np.random.default_rng(0).dirichlet(np.ones(5), size=50)
    candidates = np.linspace(14, 60, 4601)  # a hundredth of a year apart
    expected_error = (values[:, None] - candidates) ** 2  # (5, 4601)

    point = Given(5, values.tolist(), ordered=True, decode="mean").point(torch.from_numpy(posterior)).numpy()

    best = candidates[(posterior @ expected_error).argmin(1)]
    np.testing.assert_allclose(point, best, atol=0.006)


def test_nominal_labels_can_only_be_decoded_by_their_mode() -> None:
    assert Given(4, [20, 30, 50, 70], ordered=False, decode="mode").decode == "mode"
    for decode in ("mean", "median"):
        with pytest.raises(UserError, match=rf"^head\.decode={decode} needs labels with an order.*head=softmax"):
            Given(4, [20, 30, 50, 70], ordered=False, decode=decode)


def test_an_unknown_decode_raises_an_error_with_all_choices() -> None:
    with pytest.raises(UserError, match=r"head\.decode must be one of auto, mean, median, mode, got rank"):
        Given(4, [20, 30, 50, 70], ordered=True, decode="rank")


@pytest.mark.parametrize("decode", ["auto", "mode"])
def test_a_head_for_ordered_labels_raises_an_error_for_classes(decode) -> None:
    with pytest.raises(UserError, match=r"^Ranking needs labels with an order.*data\.target=age, decade or bins"):
        Ranking(4, [0, 1, 2, 3], ordered=False, decode=decode)


def test_a_head_for_ordered_labels_needs_at_least_two_labels() -> None:
    with pytest.raises(UserError, match="Ranking needs at least two labels, but this target has only one"):
        Ranking(1, [30], ordered=True)
    assert Ranking(2, [30, 31], ordered=True).num_labels == 2


def test_a_head_for_any_labels_accepts_a_single_label() -> None:
    assert Given(1, [30], ordered=True).point(torch.ones(2, 1)).tolist() == [30, 30]


def test_label_counts_do_not_change_a_head_that_ignores_them() -> None:
    head = Given(4, [20, 30, 50, 70], ordered=True)
    before = dict(vars(head))

    head.set_label_counts(torch.tensor([3, 0, 2, 5]))

    assert vars(head) == before


def test_a_posterior_whose_cumulative_sum_stays_below_one_half_has_a_point() -> None:
    head = Given(4, [20, 30, 50, 70], ordered=True)

    point = head.point(torch.tensor([[0.1, 0.1, 0.1, 0.1]]))

    assert point.tolist() == [70.0]


def test_values_are_a_buffer_that_is_not_saved() -> None:
    head = Given(4, [20, 30, 50, 70], ordered=True)

    assert dict(head.named_buffers())["values"].tolist() == [20, 30, 50, 70]
    assert list(head.state_dict()) == []
