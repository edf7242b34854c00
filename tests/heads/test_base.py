"""The contract of a head: what every point estimate is."""

import numpy as np
import pytest
import torch
from torch import Tensor

from agebench.heads.base import Head


class Given(Head):
    """Takes its outputs for the posterior."""

    num_outputs = 4

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return outputs.sum()

    def posterior(self, outputs: Tensor) -> Tensor:
        return outputs


def test_a_head_without_a_loss_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Head(2, [0, 1], ordered=False)  # type: ignore[abstract]  # what is tested


@pytest.mark.parametrize(
    ("posterior", "median"),
    [
        ([0.4, 0.15, 0.05, 0.4], 30.0),  # the sums are 0.4, 0.55
        ([0.1, 0.2, 0.3, 0.4], 50.0),  # 0.1, 0.3, 0.6
        ([0.5, 0.0, 0.0, 0.5], 20.0),  # a half is reached at once
        ([0.0, 0.0, 0.0, 1.0], 70.0),
        ([1.0, 0.0, 0.0, 0.0], 20.0),
    ],
)
def test_the_point_of_ordered_labels_is_the_median_of_the_posterior(posterior, median) -> None:
    head = Given(4, [20, 30, 50, 70], ordered=True)

    point = head.point(torch.tensor([posterior]))

    assert point.tolist() == [median]


def test_no_label_has_a_smaller_expected_absolute_error_than_the_point_of_ordered_labels() -> None:
    values = np.array([14.0, 15.0, 20.0, 41.0, 60.0])
    posterior = np.random.default_rng(0).dirichlet(np.ones(5), size=200)
    expected_error = np.abs(values[:, None] - values[None]) @ posterior.T  # (5, 200)

    point = Given(5, values.tolist(), ordered=True).point(torch.from_numpy(posterior)).numpy()

    chosen = np.searchsorted(values, point)
    np.testing.assert_allclose(expected_error[chosen, np.arange(200)], expected_error.min(0), rtol=1e-9)


def test_the_point_of_nominal_labels_is_the_value_of_the_likeliest() -> None:
    head = Given(4, [20, 30, 50, 70], ordered=False)

    point = head.point(torch.tensor([[0.3, 0.2, 0.1, 0.4], [0.3, 0.4, 0.2, 0.1]]))

    assert point.tolist() == [70.0, 30.0]


def test_a_posterior_that_rounding_leaves_below_one_half_still_has_a_point() -> None:
    head = Given(4, [20, 30, 50, 70], ordered=True)

    point = head.point(torch.tensor([[0.1, 0.1, 0.1, 0.1]]))

    assert point.tolist() == [70.0]


def test_values_travel_with_the_device_but_not_with_the_weights() -> None:
    head = Given(4, [20, 30, 50, 70], ordered=True)

    assert dict(head.named_buffers())["values"].tolist() == [20, 30, 50, 70]
    assert list(head.state_dict()) == []
