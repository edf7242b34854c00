import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from sklearn.metrics import confusion_matrix

from agebench.report.confusion import (
    count_confusions,
    draw_confusion,
    normalise_columns,
    write_confusion,
    write_most_confused,
)
from agebench.report.outcome import Outcome
from agebench.report.style import plot_style


def reference_counts(outcome: Outcome) -> np.ndarray:
    """Return scikit-learn's confusion matrix, transposed: its rows are true labels, ours are most likely labels."""
    labels = np.arange(len(outcome.label_names))
    return confusion_matrix(outcome.target, outcome.posterior.argmax(axis=1), labels=labels).T


def test_counts_agree_with_scikit_learn(digits_outcome: Outcome) -> None:
    np.testing.assert_array_equal(count_confusions(digits_outcome), reference_counts(digits_outcome))


def test_columns_with_images_sum_to_one(digits_outcome: Outcome) -> None:
    labels = np.arange(10)
    predicted = digits_outcome.posterior.argmax(axis=1)
    expected = confusion_matrix(digits_outcome.target, predicted, labels=labels, normalize="true").T

    shares = normalise_columns(count_confusions(digits_outcome))

    np.testing.assert_allclose(shares[:, :9], expected[:, :9])
    np.testing.assert_allclose(shares[:, :9].sum(axis=0), 1)
    assert np.isnan(shares[:, 9]).all()


def test_the_table_contains_counts_and_label_names(tmp_path: Path, digits_outcome: Outcome) -> None:
    names = tuple("あいうえおかきくけこ")

    path = write_confusion(tmp_path / "confusion.csv", count_confusions(digits_outcome), names)

    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    header, *rows = csv.reader(path.read_text(encoding="utf-8-sig").splitlines())
    assert tuple(header[1:]) == names
    assert tuple(row[0] for row in rows) == names
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], dtype=np.int64), reference_counts(digits_outcome))


def test_the_most_confused_pair_comes_first(tmp_path: Path) -> None:
    counts = np.array([[5, 3, 0], [1, 5, 0], [0, 2, 5]])  # three images of b are predicted as a

    path = write_most_confused(tmp_path / "most.csv", counts, ("a", "b", "c"))

    header, *rows = csv.reader(path.read_text(encoding="utf-8-sig").splitlines())
    assert header == ["target", "most_likely_label", "count", "share_of_target"]
    assert rows == [["b", "a", "3", "0.3000"], ["b", "c", "2", "0.2000"], ["a", "b", "1", "0.1667"]]


@pytest.mark.filterwarnings("error")
def test_cells_of_few_labels_are_annotated_with_their_share_and_count(digits_outcome: Outcome) -> None:
    counts = reference_counts(digits_outcome)
    expected = counts / np.maximum(counts.sum(axis=0), 1)

    with plot_style():
        figure = draw_confusion(digits_outcome, count_confusions(digits_outcome), title="t")

    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("true label", "most likely label")
    drawn = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(drawn) == (counts > 0).sum()  # a cell without images stays empty
    for (true, predicted), text in drawn.items():
        cell = int(predicted), int(true)
        assert text == f"{expected[cell]:.2f}\n{counts[cell]}"
    assert (
        axes.yaxis_inverted()
    )  # the first label is at the top, so that the diagonal runs from top left to bottom right
    assert "no images with this true label" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_numbers_in_all_cells_have_enough_contrast(digits_outcome: Outcome) -> None:
    """A contrast of 4.5 is what WCAG 2.2 asks of text."""
    counts = np.diag(np.linspace(50, 95, 10).astype(int))
    counts += np.roll(np.diag(100 - np.diag(counts)), 1, axis=0)  # the shares are from 0.05 to 0.95

    with plot_style():
        figure = draw_confusion(digits_outcome, counts, title="t")

    (image,) = figure.axes[0].images
    for text in figure.axes[0].texts:
        column, row = (int(place) for place in text.get_position())
        cell = luminance(image.to_rgba(np.asarray([[counts[row, column] / 100]]))[0, 0, :3])
        ink = luminance(np.asarray(to_rgb(text.get_color())))
        assert (max(cell, ink) + 0.05) / (min(cell, ink) + 0.05) >= 4.5, text.get_text()
    assert len(figure.axes[0].texts) == 20


def luminance(colour: np.ndarray) -> float:
    """Return the relative luminance of WCAG 2.2 for an sRGB colour."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_shares_of_each_prediction_sum_to_one(digits_outcome: Outcome) -> None:
    outcome = replace(digits_outcome, posterior=np.roll(digits_outcome.posterior, 1, axis=1))
    expected = confusion_matrix(
        outcome.target, outcome.posterior.argmax(axis=1), labels=np.arange(10), normalize="pred"
    ).T

    with plot_style():
        figure = draw_confusion(outcome, count_confusions(outcome), title="t", by="predicted")

    np.testing.assert_allclose(np.asarray(figure.axes[0].images[0].get_array()), expected)
    assert "share of its row" in figure.axes[0].get_title()


def test_a_share_that_rounds_to_zero_is_written_as_less_than_a_hundredth() -> None:
    posterior = np.eye(2)[np.r_[np.zeros(999, dtype=int), 1]]
    target = np.zeros(1000, dtype=np.int64)
    outcome = Outcome(target.astype(str), target, posterior, target * 1.0, np.arange(2.0), ("a", "b"), False, "")

    with plot_style():
        figure = draw_confusion(outcome, count_confusions(outcome), title="t")

    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["1.00\n999", "<0.01\n1"]


@pytest.mark.ci
@pytest.mark.filterwarnings("error")
def test_all_73_hiragana_have_a_tick_label(tmp_path: Path) -> None:
    codes = [code for code in range(0x3042, 0x3094) if code not in (0x3043, 0x3045, 0x3047, 0x3049)]
    names = tuple(chr(code) for code in codes)[:73]
    posterior = np.random.default_rng(0).dirichlet(np.ones(73), size=500)
    target = np.random.default_rng(1).integers(0, 73, size=500)
    outcome = Outcome(target.astype(str), target, posterior, target * 1.0, np.arange(73.0), names, False, "")

    with plot_style():
        figure = draw_confusion(outcome, count_confusions(outcome), title="t")
        figure.savefig(tmp_path / "confusion.png")

    axes = figure.axes[0]
    assert tuple(label.get_text() for label in axes.get_xticklabels()) == names
    assert tuple(label.get_text() for label in axes.get_yticklabels()) == names
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes)), "names overlap"


def test_cells_of_many_labels_are_not_annotated_and_the_colour_scale_ends_at_the_largest_share(
    ages_outcome: Outcome,
) -> None:
    counts = count_confusions(ages_outcome)

    with plot_style():
        figure = draw_confusion(ages_outcome, counts, title="t")

    axes = figure.axes[0]
    assert not axes.texts
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("true label (years)", "most likely label (years)")
    reference = reference_counts(ages_outcome)
    assert axes.images[0].get_clim()[1] == pytest.approx((reference / np.maximum(reference.sum(axis=0), 1)).max())


@pytest.mark.filterwarnings("error")
def test_a_note_is_printed_below_the_figure_without_overlap(tmp_path: Path, digits_outcome: Outcome) -> None:
    note = "for comparison: looking up the identity, without seeing a pixel, scores accuracy 0.756"
    leaky = replace(digits_outcome, note=note)

    with plot_style():
        figure = draw_confusion(leaky, count_confusions(leaky), title="t")
        figure.savefig(tmp_path / "confusion.png")

    printed = next(text for text in figure.texts if "looking up" in text.get_text())
    assert " ".join(printed.get_text().split()) == note
    box = printed.get_window_extent()
    axis, legend = figure.axes[0].xaxis.label.get_window_extent(), figure.legends[0].get_window_extent()
    assert not box.overlaps(axis)
    assert not box.overlaps(legend)
