"""The figure of an audit shows all of its results."""

from typing import Any

import numpy as np
import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from agebench.report.leak import draw_leak
from agebench.report.style import plot_style


def found(**changes: Any) -> dict[str, Any]:
    audited = {
        "test_identity_in_train": 0.9,
        "test_identity_and_label_in_train": 0.4,
        "val_identity_in_train": 0.8,
        "val_identity_and_label_in_train": 0.3,
        "lookup_mae": 2.714,
        "median_mae": 9.97,
        "lookup_accuracy": 0.1234,
        "majority_accuracy": 0.0567,
        "unit": "years",
        "verdict": "leaks: 90.0% of the test images are of an identity that is in train",
    }
    return {**audited, **changes}


def draw(audited: dict[str, Any], labels: int, names: tuple[str, ...] | None = None) -> Figure:
    rng = np.random.default_rng(0)
    counts = {part: rng.integers(1, 20, labels) for part in ("train", "val", "test")}
    names = names or tuple(str(14 + i) for i in range(labels))
    with plot_style():
        figure = draw_leak(audited, counts, label_names=names, values=np.arange(14.0, 14 + labels), title="a/b/c")
        figure.canvas.draw()
    return figure


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_ages_are_drawn_as_lines_and_bars_are_annotated_with_their_error() -> None:
    figure = draw(found(), 49)

    labels, errors = figure.axes
    assert [len(line.get_xdata()) for line in labels.lines] == [49, 49, 49]
    assert [bar.get_width() for bar in errors.patches] == [9.97, 2.714]
    assert texts(figure) == ["9.97", "2.71"]
    assert errors.get_xlabel() == "mean absolute error on test (years)"


def test_decades_are_drawn_as_bars_with_error_and_accuracy() -> None:
    figure = draw(found(unit="decades"), 6, ("10s", "20s", "30s", "40s", "50s", "60s"))

    assert len([c for c in figure.axes[0].containers if isinstance(c, BarContainer)]) == 3
    assert texts(figure) == ["9.97", "2.71", "0.057", "0.123"]


def test_shares_of_each_part_sum_to_one() -> None:
    figure = draw(found(unit="decades"), 6)

    for bars in figure.axes[0].containers:
        assert sum(bar.get_height() for bar in bars) == pytest.approx(1)


def test_classes_have_accuracy_only_and_one_tick_per_class() -> None:
    characters = tuple(chr(0x3042 + i) for i in range(73))

    figure = draw(found(unit="", lookup_mae=None, median_mae=None), 73, characters)

    assert tuple(tick.get_text() for tick in figure.axes[0].get_xticklabels()) == characters
    assert texts(figure) == ["0.057", "0.123"]


def test_the_shares_and_the_verdict_are_printed_below_the_panels() -> None:
    figure = draw(found(), 49)

    below = figure.get_supxlabel().split("\n")

    assert below[0] == (
        "identity also in train: 90.0% of test images (40.0% with the same label), "
        "80.0% of val images (30.0% with the same label)"
    )
    assert " ".join(below[1:]) == found()["verdict"]


def test_a_long_verdict_fits_into_the_figure() -> None:
    figure = draw(found(verdict="a long verdict of many words " * 10), 49)

    box = figure._supxlabel.get_window_extent()
    assert box.x1 <= figure.bbox.width
    assert box.y0 >= 0


def test_without_identities_only_the_baseline_has_a_value() -> None:
    unknown = dict.fromkeys(key for key in found() if "identity" in key or key.startswith("lookup"))

    figure = draw(found(**unknown), 49)

    assert texts(figure) == ["9.97", "not available: identities unknown"]
    assert figure.get_supxlabel() == found()["verdict"]


def test_a_label_without_images_has_share_zero() -> None:
    with plot_style():
        counts = {"train": np.array([3, 1]), "val": np.array([0, 2]), "test": np.array([1, 0])}
        figure = draw_leak(found(unit=""), counts, label_names=("a", "b"), values=np.arange(2.0), title="")

    assert [[bar.get_height() for bar in bars] for bars in figure.axes[0].containers] == [[0.75, 0.25], [0, 1], [1, 0]]
