"""The picture of lr_find: its marks, its axes and its finding."""

import numpy as np
import pytest

from agebench.report.rate_curve import RateCurve, draw_rate_curve, short_rate
from agebench.report.style import plot_style

RATES = np.logspace(-7, 0, 8)
SMOOTHED = np.array([2.0, 2.0, 2.0, 1.8, 1.2, 0.9, 1.0, 50.0])


def draw(steepest: float | None, valley: float | None):
    with plot_style():
        figure = draw_rate_curve(RateCurve(RATES, SMOOTHED + 0.1, SMOOTHED, steepest, valley), title="digits, mlp")
        figure.draw_without_rendering()
    return figure


def test_both_rates_are_marked_on_the_smoothed_curve_of_a_log_axis() -> None:
    figure = draw(1e-3, 3.162278e-3)

    (axes,) = figure.axes
    marks = {line.get_label(): np.ravel(line.get_xydata()) for line in axes.lines}
    assert marks["steepest point: 1.0e-3"] == pytest.approx([1e-3, 1.2])
    assert marks["valley: 3.2e-3"] == pytest.approx([3.162278e-3, 1.05])  # halfway between 1.2 and 0.9 on the log axis
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()][1:-1] == [f"1e{i}" for i in range(-7, 1)]
    assert axes.get_ylim()[1] < 4  # the loss of the divergence does not flatten the curve
    assert "falls fastest at 1.0e-3 and is lowest at 1.0e-2" in figure.get_suptitle()


def test_a_loss_that_does_not_fall_has_no_mark() -> None:
    figure = draw(None, None)

    assert "The loss falls at no rate." in figure.get_suptitle()
    assert not [line for line in figure.axes[0].lines if "e-" in str(line.get_label())]


@pytest.mark.parametrize(("rate", "text"), [(3.94e-3, "3.9e-3"), (1.0, "1.0e0"), (1e-12, "1.0e-12")])
def test_a_rate_has_two_digits(rate, text) -> None:
    assert short_rate(rate) == text
