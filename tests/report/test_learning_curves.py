"""Learning curves: means and bands over seeds with different numbers of epochs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from agebench.report.curves import History
from agebench.report.learning_curves import draw_learning_curves
from agebench.report.ranking import Mode
from agebench.report.style import COLOURS, GREY, plot_style

NAN = float("nan")
PANELS = {"val/mae": "mean absolute error on val (years)", "train/loss": "training loss"}


def history(*values: float, key: str = "val/mae") -> History:
    return [{"epoch": epoch, key: value} for epoch, value in enumerate(values)]


def draw(groups: dict[str, list[History]], *, mode: Mode = "min", **more: Any) -> Figure:
    with plot_style():
        figure = draw_learning_curves(groups, PANELS, mode=mode, title="a/b/c", **more)
        assert figure is not None
        figure.draw_without_rendering()
    return figure


def legend(figure: Figure) -> Legend:
    (found,) = figure.legends
    return found


def names(figure: Figure) -> list[str]:
    return [text.get_text() for text in legend(figure).get_texts()]


def test_the_line_is_the_mean_and_the_band_spans_minimum_to_maximum() -> None:
    figure = draw({"a": [history(9, 6), history(7, 5)]})

    (axes,) = figure.axes
    (line,) = axes.lines
    assert np.asarray(line.get_xydata()).tolist() == [[1, 8], [2, 5.5]]
    (band,) = [drawn for drawn in axes.collections if isinstance(drawn, PolyCollection)]
    assert {tuple(corner) for corner in np.asarray(band.get_paths()[0].vertices).tolist()} == {
        (1, 7),
        (1, 9),
        (2, 5),
        (2, 6),
    }
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "mean absolute error on val (years)\nlower is better")


def test_a_line_is_dotted_after_a_seed_stopped() -> None:
    figure = draw({"a": [history(9, 6), history(7, 4, 3, 2)]})

    solid, dotted = figure.axes[0].lines
    assert np.asarray(solid.get_xydata()).tolist() == [[1, 8], [2, 5]]
    assert np.asarray(dotted.get_xydata()).tolist() == [[2, 5], [3, 3], [4, 2]]
    assert (solid.get_linestyle(), dotted.get_linestyle()) == ("-", ":")
    assert names(figure) == ["a", "mean over fewer seeds"]


def test_a_line_that_ends_first_is_on_top_and_of_equal_ones_the_best() -> None:
    figure = draw({"long": [history(9, 6, 5)], "short": [history(9, 7)], "short too": [history(9, 8)]})

    above = {tuple(line.get_ydata()): line.get_zorder() for line in figure.axes[0].lines}
    assert above[9, 7] > above[9, 8] > above[9, 6, 5]


def test_missing_epochs_and_nan_are_skipped() -> None:
    incomplete: History = [
        {"epoch": 0, "val/mae": 9.0},
        {"epoch": 1},
        {"epoch": 2, "val/mae": NAN},
        {"epoch": 3, "val/mae": 5},
    ]

    figure = draw({"a": [incomplete], "b": [history(NAN, NAN)]})

    (line,) = figure.axes[0].lines
    assert np.asarray(line.get_xydata()).tolist() == [[1, 9], [4, 5]]
    assert not figure.axes[0].collections  # a single seed has no band
    assert names(figure) == ["a", "b (no values)"]


def test_ten_groups_differ_in_colour_or_marker_and_the_others_are_grey() -> None:
    figure = draw({f"g{i}": [history(9, i)] for i in range(12)})

    drawn = {line.get_ydata()[1]: line for line in figure.axes[0].lines}  # type: ignore[index]  # an array
    styles = {(line.get_color(), line.get_marker()) for line in (drawn[i] for i in range(10))}
    assert len(styles) == 10
    assert drawn[0].get_color() == COLOURS[0]
    assert {drawn[10].get_color(), drawn[11].get_color()} == {GREY}
    assert drawn[0].get_zorder() > drawn[9].get_zorder() > drawn[11].get_zorder()
    assert names(figure) == [*(f"g{i}" for i in range(10)), "2 other groups"]


def test_the_training_loss_has_its_own_panel_if_measured() -> None:
    histories: list[History] = [
        [{"epoch": 0, "val/mae": 0.5, "train/loss": 2.0}, {"epoch": 1, "val/mae": 0.75, "train/loss": 1.0}]
    ]

    figure = draw({"a": histories}, mode="max", note="leaks")

    assert [axes.get_ylabel().split("\n")[1] for axes in figure.axes] == ["higher is better", "lower is better"]
    assert [axes.lines[0].get_ydata()[1] for axes in figure.axes] == [0.75, 1.0]  # type: ignore[index]  # an array
    assert figure.get_supxlabel() == "leaks"


def test_a_diverged_run_does_not_flatten_the_others() -> None:
    figure = draw({"a": [history(9, 6, 5)], "b": [history(9, 1e6, 1e9)]})

    low, high = figure.axes[0].get_ylim()
    assert 4 < low < 5
    assert 9 < high < 10


def test_grey_groups_are_within_the_axis_limits() -> None:
    figure = draw({f"g{i}": [history(9, 5 + i)] for i in range(20)})

    assert figure.axes[0].get_ylim()[1] > 24


@pytest.mark.parametrize("count", [1, 5, 10, 40])
@pytest.mark.parametrize("name", ["lr={}", "optim.lr=0.001, model=convnext, head=dldl_v2, seed={}", "学習率 {}"])
def test_the_legend_overlaps_no_panel_and_fits_into_the_figure(count: int, name: str) -> None:
    figure = draw({name.format(i): [history(9, 5), history(8, 6, 5)] for i in range(count)})

    box = legend(figure).get_window_extent()
    assert figure.axes[0].bbox.x1 < box.x0
    assert box.x1 <= figure.bbox.width
    assert box.y0 >= 0
    assert figure.axes[0].bbox.width >= 300  # two inches


def test_several_settings_are_a_table_below_the_panels_with_what_is_equal_in_its_last_line() -> None:
    settings = {"model": ["mlp", "ひらがな", "mlp"], "lr": ["0.01", "0.1", "0.001"], "decay": ["0", "0", "0"]}

    figure = draw({"a": [history(9, 5)], "b": [history(9, 6)], "c": []}, settings=settings)

    assert names(figure) == [
        "model     lr",
        "mlp       0.01",
        "ひらがな  0.1",
        "mlp       0.001 (no values)",
        "all of these: decay=0",
    ]
    assert {text.get_fontname() for text in legend(figure).get_texts()} == {"DejaVu Sans Mono"}
    assert [bool(str(line.get_linestyle()) != "None") for line in legend(figure).get_lines()] == [0, 1, 1, 1, 0]
    assert legend(figure).get_window_extent().y1 < figure.axes[0].bbox.y0


def test_the_table_has_the_settings_of_the_ten_named_groups_only() -> None:
    groups = {f"g{i}": [history(9, i)] for i in range(12)}
    settings = {"lr": [str(i) for i in range(12)], "size": ["a", *"b" * 11], "head": [*"c" * 10, "d", "e"]}

    found = names(draw(groups, settings=settings))

    assert found[:3] == ["lr  size", "0   a", "1   b"]
    assert found[-2:] == ["2 other groups", "all of these: head=c"]


@pytest.mark.parametrize(
    "settings",
    [{"lr": ["1", "2"], "decay": ["0", "0"]}, {"lr": ["1", "1"], "decay": ["0", "0"]}],
    ids=["one differs", "none differs"],
)
def test_groups_have_their_names_if_fewer_than_two_settings_differ(settings: dict[str, list[str]]) -> None:
    figure = draw({"lr=1": [history(9, 5)], "lr=2": [history(9, 6)]}, settings=settings)

    assert names(figure) == ["lr=1", "lr=2"]


def test_a_table_of_many_settings_with_long_values_fits_into_the_figure() -> None:
    settings = {f"setting {i}": [f"{k} {'long ' * 20}" for k in range(10)] for i in range(12)}

    figure = draw({f"g{i}": [history(9, 5)] for i in range(10)}, settings=settings, note="leaks")

    box = legend(figure).get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert 0 <= box.y0 < box.y1 < figure.axes[0].bbox.y0
    assert figure.axes[0].bbox.height >= 300  # two inches


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.5, NAN, float("inf")])
def test_a_group_with_a_single_epoch_is_drawn_even_if_it_diverged(tmp_path: Path, value: float) -> None:
    with plot_style():
        figure = draw_learning_curves({"$a$": [history(value)]}, PANELS, mode="min", title="")
        assert figure is not None
        figure.savefig(tmp_path / "a.png")

    assert len(figure.axes) == 1


def test_histories_without_metrics_give_no_figure() -> None:
    assert draw_learning_curves({}, PANELS, mode="min", title="") is None
    assert draw_learning_curves({"a": [history(1.0, key="lr")], "b": []}, PANELS, mode="min", title="") is None
