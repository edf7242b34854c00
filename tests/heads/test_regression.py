"""The regression head against float64 NumPy, SciPy and values computed manually."""

import io
import math

import numpy as np
import pytest
import torch
from scipy import stats

from agebench.errors import UserError
from agebench.heads.regression import Regression

AGES = list(range(14, 63))
UNEVEN = [14.0, 15.0, 17.0, 22.0, 30.0]
LOSSES = ("l1", "mse", "huber")


def head_of(values, **settings) -> Regression:
    return Regression(len(values), list(values), ordered=True, **settings)


def outputs_for(values, estimates) -> torch.Tensor:
    """Return the outputs, float64, that give these estimates."""
    return torch.from_numpy((np.asarray(estimates, dtype=np.float64) - np.mean(values)) / np.std(values))[:, None]


def with_scale(head: Regression, scale: float) -> Regression:
    """Set the scale of the posterior, in the target's unit, with a batch of two errors of that size."""
    head.train()
    label = head.num_labels // 2
    head.loss(outputs_for(head.values.numpy(), [head.values[label].item() + scale] * 2), torch.tensor([label] * 2))
    return head.eval()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("l1", (1 + 1.5) / 2),  # errors of 2 and 3 units, with a std of 2
        ("mse", (1 + 2.25) / 2),
        ("huber", (0.5 * (1 - 0.25) + 0.5 * (1.5 - 0.25)) / 2),  # delta is one unit, 0.5 std
    ],
)
def test_the_losses_computed_manually(loss, expected) -> None:
    head = head_of([8, 12], loss=loss)  # mean 10, std 2

    value = head.loss(torch.tensor([[0.0], [2.5]]), torch.tensor([0, 1]))  # estimates 10 and 15, true values 8 and 12

    assert value.shape == ()
    assert value.item() == pytest.approx(expected)


def test_huber_is_half_the_square_below_delta() -> None:
    head = head_of([8, 12], loss="huber", delta=4.0)

    value = head.loss(torch.tensor([[0.0], [2.5]]), torch.tensor([0, 1]))

    assert value.item() == pytest.approx((0.5 + 1.125) / 2)


def test_an_output_of_zero_gives_the_mean_of_the_labels() -> None:
    assert head_of(AGES).point(torch.zeros(1, 1)).tolist() == [38.0]
    assert head_of(UNEVEN).point(torch.zeros(1, 1)).item() == pytest.approx(np.mean(UNEVEN), rel=1e-6)


def test_the_point_is_the_estimate_clamped_to_the_range_of_the_values() -> None:
    point = head_of(AGES).point(outputs_for(AGES, [30.4, -5, 70]))

    assert point.tolist() == pytest.approx([30.4, 14, 62], rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_of_the_loss_is_correct(loss) -> None:
    outputs = torch.tensor([[0.3], [-2.0], [1.51]], dtype=torch.float64, requires_grad=True)
    head = head_of(UNEVEN, loss=loss)

    assert torch.autograd.gradcheck(lambda x: head.loss(x, torch.tensor([0, 1, 3])), outputs)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_perfect_prediction_has_the_lowest_loss(loss) -> None:
    head = head_of(UNEVEN, loss=loss)

    for label, value in enumerate(UNEVEN):
        losses = [
            head.loss(outputs_for(UNEVEN, [value + off]), torch.tensor([label])).item() for off in (0, 0.5, -1, 5)
        ]
        assert losses[0] == pytest.approx(0, abs=1e-6)
        assert losses == sorted(losses)
        assert losses[1] > 1e-4


@pytest.mark.parametrize(
    ("loss", "density"), [("l1", stats.laplace), ("mse", stats.norm), ("huber", stats.norm)], ids=LOSSES
)
@pytest.mark.parametrize("estimate", [14, 16.2, 29.9])
def test_the_posterior_is_the_mass_of_the_density_in_each_cell(loss, density, estimate) -> None:
    edges = np.array([13.5, 14.5, 16.0, 19.5, 26.0, 34.0])  # halfway between labels; outer cells are symmetric
    mass = np.diff(density(loc=estimate, scale=2.5).cdf(edges))
    head = with_scale(head_of(UNEVEN, loss=loss), 2.5)

    posterior = head.posterior(outputs_for(UNEVEN, [estimate])).numpy()[0]

    np.testing.assert_allclose(posterior, mass / mass.sum(), rtol=1e-5)


@pytest.mark.parametrize(("loss", "density"), [("l1", stats.laplace), ("mse", stats.norm)], ids=["l1", "mse"])
def test_both_tails_of_the_posterior_are_precise(loss, density) -> None:
    below = np.diff(density(scale=2.0).cdf([-16.5, -15.5]))[0]  # 16 years, 8 scales, from the estimate
    head = with_scale(head_of(AGES, loss=loss), 2.0)

    posterior = head.posterior(outputs_for(AGES, [38.0]).float())[0]

    # The truncated part of the density is negligible.
    assert posterior[AGES.index(22)].item() == pytest.approx(below, rel=1e-4, abs=0)
    assert posterior[AGES.index(54)].item() == pytest.approx(below, rel=1e-4, abs=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_posterior_decreases_with_the_distance_from_the_estimate(loss) -> None:
    head = with_scale(head_of(AGES, loss=loss), 6.0)

    row = head.posterior(outputs_for(AGES, [30.2]))[0]

    assert row.argmax() == AGES.index(30)
    assert (row[: AGES.index(30) + 1].diff() > 0).all()
    assert (row[AGES.index(30) :].diff() < 0).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1e6])
def test_a_scale_of_any_size_gives_a_valid_posterior(loss, scale) -> None:
    head = with_scale(head_of(AGES, loss=loss), scale)

    posterior = head.posterior(outputs_for(AGES, [14, 30.5, 62]).float())

    assert (posterior >= 0).all()
    torch.testing.assert_close(posterior.sum(dim=1), torch.ones(3))
    assert (posterior.amax(dim=1) > 0.49).all() == (scale < 1)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_scale_is_the_average_error_of_the_batches_so_far(loss) -> None:
    errors = np.random.default_rng(0).normal(size=(20, 8))  # of 20 batches, standardized
    expected = np.abs(errors).mean() if loss == "l1" else np.square(errors).mean()
    head = head_of([0, 1, 2], loss=loss)

    for batch in errors:
        head.loss(torch.from_numpy(batch)[:, None], torch.ones(8, dtype=torch.int64))  # the middle label

    assert head.moment.item() == pytest.approx(expected, rel=1e-5)


def test_early_errors_are_forgotten() -> None:
    head, middle = head_of([0, 1, 2]), torch.tensor([1])

    for error in [5.0] * 50 + [0.5] * 1000:
        head.loss(torch.tensor([[error]]), middle)

    # 50 batches of error 5 and 50 of 0.5, then 950 batches that keep 0.99 of the difference each.
    assert head.moment.item() == pytest.approx(0.5 + 2.25 * 0.99**950, rel=1e-4)


def test_evaluation_and_overflow_do_not_change_the_scale() -> None:
    head, middle = head_of([0, 1, 2]), torch.tensor([1])
    head.loss(torch.tensor([[2.0]]), middle)

    head.loss(torch.tensor([[math.inf]]), middle)
    head.loss(torch.tensor([[math.nan]]), middle)
    head.eval().loss(torch.tensor([[9.0]]), middle)

    assert head.moment.item() == 2.0
    assert head.batches.item() == 1


def test_the_scale_is_saved_and_is_not_a_parameter() -> None:
    head = with_scale(head_of(AGES), 3.0)
    outputs = outputs_for(AGES, [20, 40])
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)

    other = head_of(AGES)
    before = other.posterior(outputs)
    other.load_state_dict(torch.load(file, weights_only=True))

    assert not torch.equal(before, head.posterior(outputs))
    assert torch.equal(other.posterior(outputs), head.posterior(outputs))
    assert list(head.parameters()) == []


def test_decoding_the_posterior_differs_from_the_estimate() -> None:
    outputs = outputs_for(AGES, [30.4, 62])
    points = {
        decode: with_scale(head_of(AGES, decode=decode), 8.0).point(outputs).tolist()
        for decode in ("auto", "mean", "median", "mode")
    }

    assert points["auto"] == pytest.approx([30.4, 62], rel=1e-6)
    # The cells from 13.5 to 62.5 span the quantiles 0.060 to 0.991, whose middle, 0.526, is at 30.8.
    assert points["median"][0] == 31
    assert points["mode"] == [30, 62]
    # The density is truncated at the end of the range, so its median and mean are below the estimate.
    assert points["median"][1] < 62
    assert points["mean"][1] < points["median"][1]


def test_an_unknown_loss_raises_an_error_with_all_choices() -> None:
    with pytest.raises(UserError, match=r"head\.loss=hinge .*l1, mse, huber"):
        head_of(AGES, loss="hinge")


@pytest.mark.parametrize("delta", [0, -1.0, math.nan, math.inf])
def test_a_delta_that_is_not_positive_raises_an_error(delta) -> None:
    with pytest.raises(UserError, match=r"head\.delta must be a positive number"):
        head_of(AGES, loss="huber", delta=delta)
