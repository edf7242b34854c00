"""The ranking: order of the groups, markers and texts."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from agebench.report.ranking import Mode, Ranked, draw_ranking, robust_range, text_width, wrap_name
from agebench.report.style import plot_style

MAE = "mean absolute error on test (years)"


def draw(groups: list[Ranked], metric: str = MAE, *, mode: Mode = "min", **more: Any) -> Figure:
    with plot_style():
        figure = draw_ranking(groups, metric, mode=mode, title="a/b/c", **more)
        figure.draw_without_rendering()
    return figure


def names(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def marks(figure: Figure, label: str) -> list[list[float]]:
    """Return x and y of the markers with this label."""
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == label]
    points: list[list[float]] = np.asarray(line.get_xydata()).round(6).tolist()
    return points


def written(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(("mode", "order"), [("min", ["b", "c", "a", "failed"]), ("max", ["a", "c", "b", "failed"])])
def test_the_best_group_is_on_top_and_failed_groups_are_at_the_bottom(mode: Mode, order: list[str]) -> None:
    groups = [Ranked("failed", [np.nan]), Ranked("a", [6.0]), Ranked("b", [4.0]), Ranked("c", [5.0])]

    figure = draw(groups, mode=mode)

    assert names(figure) == order
    bottom, top = figure.axes[0].get_ylim()
    assert top < 0 < 3 < bottom
    assert figure.axes[0].get_xlabel() == f"{MAE}, {'lower' if mode == 'min' else 'higher'} is better"


def test_mean_standard_deviation_and_seeds_are_drawn_at_their_values() -> None:
    # 4, 5, 6: mean 5, deviations -1, 0, 1, so sqrt(2 / (3 - 1)) = 1. 7, 9: mean 8, sqrt(2 / 1) = 1.4142.
    figure = draw([Ranked("far", [7.0, 9.0, np.nan]), Ranked("near", [4.0, 6.0, 5.0])])

    assert marks(figure, "best") == [[5, 0]]
    assert marks(figure, "mean") == [[8, 1]]
    assert [x for x, _ in marks(figure, "single seed")] == [4, 6, 5, 7, 9]
    assert [round(y) for _, y in marks(figure, "single seed")] == [0, 0, 0, 1, 1]
    (bars,) = [drawn for drawn in figure.axes[0].collections if drawn.get_label() == "± 1 standard deviation"]
    assert isinstance(bars, LineCollection)
    np.testing.assert_allclose(
        np.asarray(bars.get_segments()), [[[4.0, 0.0], [6.0, 0.0]], [[6.585786, 1.0], [9.414214, 1.0]]], rtol=1e-6
    )
    assert written(figure) == ["5.00 ± 1.00  (n = 3)", "8.00 ± 1.41  (n = 2 of 3)"]


def test_an_asymmetric_interval_is_drawn_from_its_lower_to_its_upper_bound() -> None:
    figure = draw([Ranked("a", [0.5], (0.25, 0.625)), Ranked("b", [0.25])], "accuracy", mode="max")

    (bar,) = [drawn for drawn in figure.axes[0].collections if isinstance(drawn, LineCollection)]
    assert np.asarray(bar.get_segments()).tolist() == [[[0.25, 0], [0.625, 0]]]
    assert written(figure) == ["0.5000  (n = 1)", "0.2500  (n = 1)"]


def test_a_near_reference_is_a_line_within_the_axis_limits() -> None:
    figure = draw([Ranked("a", [4.0]), Ranked("b", [6.0])], reference=("always the median", 7.75))

    (x, _), _ = marks(figure, "always the median 7.75")
    left, right = figure.axes[0].get_xlim()
    assert left < 4 < x == 7.75 < right


@pytest.mark.parametrize(
    ("value", "text", "side"), [(8.1, "always the median 8.1 →", 1), (1.9, "← always the median 1.9", 0)]
)
def test_a_reference_farther_away_than_the_span_is_a_text_at_the_edge(value, text, side) -> None:
    groups = [Ranked("a", [4.0]), Ranked("b", [6.0])]

    figure = draw(groups, reference=("always the median", value))

    assert figure.axes[0].get_xlim() == draw(groups).axes[0].get_xlim()
    (found,) = [each for each in figure.axes[0].texts if each.get_text() == text]
    assert found.xy[0] == figure.axes[0].get_xlim()[side]
    assert found.get_window_extent().y0 > figure.axes[0].transData.transform((0, 0))[1]  # above the first row
    assert figure.axes[0].get_window_extent().containsx(found.get_window_extent().x0 + 1)


def test_a_diverged_group_is_an_arrow_with_its_value() -> None:
    figure = draw([Ranked("a", [4.0]), Ranked("b", [4.5]), Ranked("c", [5.0]), Ranked("d", [1e6])])

    left, right = figure.axes[0].get_xlim()
    assert 3.5 < left < 4 < 5 < right < 5.5
    arrows = marks(figure, "off scale")
    assert {round(y) for _, y in arrows} == {3}
    assert all(5 <= x <= right for x, _ in arrows)
    assert written(figure)[3] == "1e+06  (n = 1)"


def test_only_the_best_sixty_groups_are_drawn_and_a_note_says_so() -> None:
    groups = [Ranked(f"g{i}", [float(i)]) for i in reversed(range(61))]

    figure = draw(groups, note="leaks")

    assert names(figure) == [f"g{i}" for i in range(60)]
    assert figure.get_supxlabel() == "leaks · only the best 60 of 61 groups are shown"


@pytest.mark.parametrize("count", [1, 12, 60])
@pytest.mark.parametrize(
    "name", ["lr=0.1 {}", "optim.lr=0.001, model=convnext, head=dldl_v2, augment=none, {}", "学習率 {}"]
)
def test_names_and_values_do_not_overlap_and_fit_into_the_figure(count: int, name: str) -> None:
    figure = draw([Ranked(name.format(i), [1.0 + i, 2.0 + i]) for i in range(count)], note="leaks")

    for texts in (figure.axes[0].get_yticklabels(), figure.axes[0].texts):
        boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: -box.y1)
        assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[], [np.nan], [np.inf], [0.0], [3.2, 3.2]])
def test_a_single_group_is_drawn_for_any_result(tmp_path: Path, values: list[float]) -> None:
    with plot_style():
        draw_ranking([Ranked("$a_b$", values)], MAE, mode="min", title="").savefig(tmp_path / "a.png")

    assert (tmp_path / "a.png").is_file()


def test_an_empty_ranking_raises_an_error() -> None:
    with pytest.raises(ValueError, match="needs at least one group"):
        draw_ranking([], MAE, mode="min", title="")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("short", "short"),
        ("lr=0.001 seed=1", "lr=0.001\nseed=1"),
        ("callbacks.early_stopping", "callbacks…\ny_stopping"),
        ("0123456789abcdef", "0123456789\nabcdef"),
        ("学習率学習率", "学習率学習\n率"),
    ],
)
def test_names_wrap_at_words_and_are_shortened_in_the_middle(name: str, expected: str) -> None:
    assert wrap_name(name, 10, lines=2) == expected


@pytest.mark.parametrize("letter", ["x", "学", "x学", "x_", "x "])
def test_a_wrapped_name_never_exceeds_its_width_and_lines(letter: str) -> None:
    for length in range(1, 120):
        lines = wrap_name(letter * length, 18, lines=2).split("\n")

        assert len(lines) <= 2
        assert max(map(text_width, lines)) <= 18


def test_the_range_excludes_diverged_values() -> None:
    assert robust_range(np.array([4.5, 4.6, 5.0, 1e6, np.nan]), "min") == (4.5, 5.0)
    assert robust_range(np.array([0.9, 0.1]), "max") == (0.1, 0.9)
    assert robust_range(np.array([-4.0, -1e6, -4.5, -5.0]), "max") == (-5.0, -4.0)
    assert robust_range(np.array([np.nan]), "min") == (0.0, 1.0)
