"""Parallel coordinates: the height at which each line crosses each axis."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from agebench.report.parallel_coordinates import draw_parallel
from agebench.report.ranking import Mode
from agebench.report.style import GREY, plot_style

MAE = "mean absolute error on test (years)"
NAN = float("nan")


def draw(points: list[dict[str, Any]], values: list[float], *, mode: Mode = "min", **more: Any) -> Figure:
    with plot_style():
        figure = draw_parallel(points, values, metric=MAE, mode=mode, title="a/b/c", **more)
        figure.draw_without_rendering()
    return figure


def drawn(figure: Figure, label: str) -> Any:
    (found,) = [lines for lines in figure.axes[0].collections if lines.get_label() == label]
    assert isinstance(found, LineCollection)
    return found


def heights(figure: Figure, label: str = "points") -> list[list[float]]:
    """Return the height of each line at each axis, worst line first, shape (N, A)."""
    crossings: list[list[float]] = np.asarray(drawn(figure, label).get_segments())[:, :, 1].round(4).tolist()
    return crossings


def ticks(figure: Figure, axis: int) -> dict[str, float]:
    """Return the height of each tick text of an axis, in ascending order."""
    last = len(figure.axes[0].get_xticks()) - 1
    tick_texts = [
        t for t in figure.axes[0].texts if isinstance(t, Annotation) and t.xy[0] == axis + 0.06 * (axis == last)
    ]
    return {text.get_text(): round(float(text.xy[1]), 4) for text in sorted(tick_texts, key=lambda text: text.xy[1])}


def test_a_narrow_range_is_on_a_linear_scale() -> None:
    figure = draw([{"size": 16}, {"size": 32}, {"size": 64}], [3.0, 2.0, 1.0])

    assert ticks(figure, 0) == {"16": 0, "32": 0.3333, "64": 1}  # (32 - 16) / (64 - 16)
    assert heights(figure) == [[0, 1], [0.3333, 0.5], [1, 0]]


def test_a_wide_range_is_on_a_log_scale() -> None:
    figure = draw([{"lr": 1e-4}, {"lr": 1e-3}, {"lr": 1e-2}], [3.0, 2.0, 1.0])

    assert ticks(figure, 0) == {"0.0001": 0, "0.001": 0.5, "0.01": 1}


@pytest.mark.parametrize(("most", "middle"), [(29, 0.3214), (30, 0.677)])  # 9 / 28, log 10 / log 30
def test_the_log_scale_starts_at_a_factor_of_thirty(most: int, middle: float) -> None:
    figure = draw([{"size": 1}, {"size": 10}, {"size": most}], [3.0, 2.0, 1.0])

    assert ticks(figure, 0)["10"] == middle


def test_few_numbers_with_a_zero_and_a_wide_range_are_evenly_spaced() -> None:
    figure = draw([{"decay": 0.0}, {"decay": 1e-4}, {"decay": 1e-2}], [3.0, 2.0, 1.0])

    assert ticks(figure, 0) == {"0": 0, "0.0001": 0.5, "0.01": 1}


def test_text_booleans_null_and_missing_values_are_evenly_spaced() -> None:
    points: list[dict[str, Any]] = [
        {"patience": 10, "fold": "fold_10", "pretrained": True},
        {"patience": None, "fold": "fold_9", "pretrained": False},
        {"patience": 9, "fold": "fold_9"},
    ]

    figure = draw(points, [3.0, 2.0, 1.0])

    assert ticks(figure, 0) == {"9": 0, "10": 0.5, "null": 1}
    assert ticks(figure, 1) == {"fold_9": 0, "fold_10": 1}
    assert ticks(figure, 2) == {"false": 0, "true": 0.5, "not set": 1}


def test_lines_with_the_same_value_are_spread_in_the_order_of_their_results() -> None:
    figure = draw([{"head": "a"}, {"head": "b"}, {"head": "b"}, {"head": "b"}], [1.0, 4.0, 2.0, 3.0])

    worst, second, third, best = [at[0] for at in heights(figure)]
    assert best == 0
    assert 0.9 < third < second == 1 < worst < 1.1


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_first_of_several_equally_good_points_is_black(mode: Mode) -> None:
    points = [{"lr": 1.0, "size": 3}, {"lr": 2.0, "size": 2}, {"lr": 3.0, "size": 1}]

    figure = draw(points, [0.5, 0.5, 0.5], mode=mode)

    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "best"]
    lowest_lr, largest_size = line.get_ydata()[:2]  # type: ignore[index]  # an array
    assert lowest_lr < 0.1
    assert largest_size > 0.9


@pytest.mark.parametrize(("mode", "best"), [("min", 0.0), ("max", 1.0)])
def test_the_best_line_is_black_and_on_top_and_better_lines_are_darker(mode: Mode, best: float) -> None:
    figure = draw([{"size": 1}, {"size": 2}, {"size": 3}], [3.0, 2.0, 1.0], mode=mode)

    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "best"]
    assert np.asarray(line.get_ydata()).tolist() == ([1, 0] if mode == "min" else [0, 1])
    assert line.get_zorder() > drawn(figure, "points").get_zorder()
    luminance = np.asarray(drawn(figure, "points").get_colors())[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < -0.1).all()  # worst first
    assert heights(figure)[-1][1] == best
    assert figure.axes[0].get_title(loc="left").endswith("best (black): 1" if mode == "min" else "best (black): 3")


def test_the_colour_bar_matches_the_colours_of_the_lines() -> None:
    figure = draw([{"size": 1}, {"size": 2}, {"size": 3}], [3.0, 2.0, 1.0])

    (ramp,) = figure.axes[0].images
    shown = np.asarray(ramp.get_array())[:, 0]  # from the bottom up
    lines = drawn(figure, "points").get_colors()
    np.testing.assert_allclose(np.asarray(lines)[:, :3], shown[[255, 128, 0], :3], atol=0.01)


def test_a_point_without_a_result_is_grey_and_dashed_and_ends_below_the_axis() -> None:
    figure = draw([{"size": 1}, {"size": 2}, {"size": 3}], [3.0, NAN, 1.0])

    failed = drawn(figure, "no result")
    np.testing.assert_allclose(np.asarray(failed.get_colors())[0, :3], to_rgb(GREY))
    assert failed.get_linestyles()[0][1] is not None
    ((at_size, at_result),) = heights(figure, "no result")
    assert at_size == 0.5
    assert at_result == ticks(figure, 1)["no result (1)"] < 0
    assert len(heights(figure)) == 2


@pytest.mark.parametrize(("mode", "sign"), [("min", 1), ("max", -1)])
def test_a_diverged_result_ends_outside_the_bad_end_of_the_axis(mode: Mode, sign: int) -> None:
    values = [sign * 4.0, sign * 5.0, sign * 6.0, sign * 1e6]

    figure = draw([{"size": i} for i in range(4)], values, mode=mode)

    end = ticks(figure, 1)["off scale (1)"]
    assert (end > 1) if mode == "min" else (end < 0)
    assert [at[1] for at in heights(figure)] == [end, *([1, 0.5, 0] if mode == "min" else [0, 0.5, 1])]


def test_many_lines_are_thinner_and_more_transparent() -> None:
    few = draw([{"lr": 10.0**-i} for i in range(5)], [float(i) for i in range(5)])
    many = draw([{"lr": 1.001**-i} for i in range(2_000)], [float(i) for i in range(2_000)])

    assert len(heights(many)) == 2_000
    assert drawn(many, "points").get_alpha() < drawn(few, "points").get_alpha()
    assert drawn(many, "points").get_linewidths()[0] < drawn(few, "points").get_linewidths()[0]


def test_tick_texts_of_an_axis_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    points: list[dict[str, Any]] = [
        {
            "lr": float(10 ** rng.uniform(-5, -1)),
            "batch": int(rng.choice([16, 17, 18, 512])),
            "size": int(rng.integers(100)),
            "model": f"a_long_model_name_{rng.integers(200)}",
            "callbacks.early_stopping.patience": [None, 3, 5][rng.integers(3)],
            "optim.scheduler.warm_up.number_of_epochs": int(rng.integers(10)),
            "head": "学習" + "率" * int(rng.integers(12)),
        }
        for _ in range(400)
    ]

    figure = draw(points, [*rng.uniform(4, 9, 398), 1e9, NAN], note="leaks")

    for axis in range(8):
        last = 0.06 * (axis == 7)
        tick_texts = [t for t in figure.axes[0].texts if isinstance(t, Annotation) and t.xy[0] == axis + last]
        boxes = sorted((Annotation.get_window_extent(text) for text in tick_texts), key=lambda box: box.y0)
        assert len(boxes) >= 2
        assert all(upper.y0 >= lower.y1 for lower, upper in pairwise(boxes))
        assert max(box.x1 for box in boxes) <= figure.bbox.width
    named = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(left.x1 <= right.x0 for left, right in pairwise(named))
    assert min(box.x0 for box in named) >= 0


def test_only_the_first_ten_parameters_are_drawn_and_a_note_says_so() -> None:
    figure = draw([{f"p{i}": i * j for i in range(11)} for j in range(3)], [1.0, 2.0, 3.0])

    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert shown[:-1] == [f"p{i}" for i in range(10)]
    assert " ".join(shown[-1].split("\n")) == f"{MAE}, lower is better"
    assert figure.get_supxlabel() == "only the first 10 of 11 parameters are shown"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.5, 0.0, NAN, float("inf")])
@pytest.mark.parametrize("parameter", [1e-3, 0, None, "$a_b$", float("nan"), [18, 30]])
def test_a_single_point_is_drawn_for_any_result_and_value(value: float, parameter: object) -> None:
    with plot_style():
        figure = draw_parallel([{"a": parameter}], [value], metric=MAE, mode="max", title="")
        figure.draw_without_rendering()

    label = "points" if np.isfinite(value) else "no result"
    assert heights(figure, label)[0][0] == 0.5


def test_the_summary_fits_into_a_figure_with_a_single_parameter() -> None:
    figure = draw([{"lr": 0.1 / i} for i in range(1, 1_001)], [1.2345 * i for i in range(1, 1_001)])

    (title,) = [text for text in figure.axes[0].get_children() if getattr(text, "get_text", str)().startswith("1,000")]
    box = title.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


@pytest.mark.parametrize(("points", "values"), [([], []), ([{}], [1.0]), ([{"a": 1}], [1.0, 2.0])])
def test_missing_points_parameters_or_values_raise_an_error(points: list[dict[str, Any]], values: list[float]) -> None:
    with pytest.raises(ValueError, match="need points with parameters and a value each"):
        draw_parallel(points, values, metric=MAE, mode="min", title="")
