"""A metric over a numeric setting."""

from typing import Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from agebench.report.ranking import Mode
from agebench.report.style import plot_style
from agebench.report.tuning import draw_tuning

Seeds = dict[float, list[float]]


def draw(lines: dict[str, Seeds], *, mode: Mode = "max") -> Figure:
    with plot_style():
        figure = draw_tuning(lines, setting="learning rate (optim.lr)", metric="accuracy", mode=mode, title="a/b/c")
        assert figure is not None
        figure.draw_without_rendering()
    return figure


def drawn(figure: Figure) -> dict[str, Any]:
    """Return x, mean and the ends of the bars by the label of a line."""
    found = {}
    for container in figure.axes[0].containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, (bars,) = container
        ends = np.asarray(bars.get_segments())[:, :, 1]
        found[container.get_label()] = [list(line.get_xdata()), list(line.get_ydata()), ends.tolist()]
    return found


def test_a_line_is_the_mean_over_seeds_with_bars_of_the_sample_deviation() -> None:
    # 0.6 and 0.8: mean 0.7, deviations of 0.1 each, so sqrt(0.02 / (2 - 1)) = 0.1414.
    figure = draw({"adam": {0.1: [0.5], 0.001: [0.6, 0.8]}, "sgd": {0.001: [0.3], 0.1: [np.nan, 0.4]}})

    found = drawn(figure)
    assert found["adam"][0] == [0.001, 0.1]
    assert found["adam"][1] == pytest.approx([0.7, 0.5])
    assert found["adam"][2][0] == pytest.approx([0.7 - 0.02**0.5, 0.7 + 0.02**0.5])
    assert found["sgd"][1] == [0.3, 0.4]
    assert figure.axes[0].get_ylabel() == "accuracy\nhigher is better"
    assert figure.axes[0].get_xlabel() == "learning rate (optim.lr)"
    assert "Best: adam at 0.001, 0.7." in figure.get_suptitle().replace("\n", " ")
    assert figure.get_supxlabel() == "1 run is left out: no result"


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1e-3, 1e-2, 3e-2], "log"),
        ([1.0, 2.0, 29.0], "linear"),
        ([0.0, 1e-4, 1e-2], "symlog"),
        ([0.0, 0.5, 1.0], "linear"),
    ],
)
def test_the_axis_is_logarithmic_for_values_that_span_a_factor_of_thirty(values, scale) -> None:
    figure = draw({"a": {value: [0.5] for value in values}})

    (axes,) = figure.axes
    assert axes.get_xscale() == scale
    assert [float(label.get_text()) for label in axes.get_xticklabels()] == values
    assert not figure.legends  # a single line


@pytest.mark.parametrize(("mode", "first", "lost"), [("max", "line 9", "line 0"), ("min", "line 0", "line 9")])
def test_the_best_eight_lines_are_drawn_in_the_order_of_their_best_means(mode, first, lost) -> None:
    figure = draw({f"line {i}": {1.0: [i], 2.0: [i], 3.0: [i]} for i in range(10)}, mode=mode)

    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == 8
    assert labels[0] == first
    assert lost not in labels
    assert figure.get_supxlabel() == "only the best 8 of 10 lines are shown"
    lines = [container[0] for container in figure.axes[0].containers]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 8


def test_no_result_gives_no_figure() -> None:
    assert draw_tuning({"a": {1.0: [np.nan]}}, setting="s", metric="m", mode="max", title="t") is None
