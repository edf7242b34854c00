"""Contact sheets: which image is where, and what is written below it."""

import csv

import numpy as np
import pytest
from matplotlib.figure import Figure

from agebench.report.contact_sheets import (
    draw_augmentation,
    draw_confused_pairs,
    draw_excluded,
    draw_sheet,
    percent,
    write_sheets,
)
from agebench.report.outcome import Outcome
from agebench.report.report_images import ReportImages
from agebench.report.style import plot_style

SIDE = 4


def outcome_of(target, posterior, *, names=("cat", "dog", "owl"), ordered=False, point=None) -> Outcome:
    posterior = np.array(posterior, dtype=float)
    return Outcome(
        names=np.array([f"photo-{i}.png" for i in range(len(target))]),
        target=np.array(target),
        posterior=posterior,
        point=np.array(point if ordered else posterior.argmax(1), dtype=float),
        values=np.array([20.0, 30.0, 40.0]) if ordered else np.arange(3.0),
        label_names=names,
        ordered=ordered,
        unit="years" if ordered else "",
    )


def images_of(rows, *, before=0, after=0, channels=1) -> ReportImages:
    """Return images whose pixels are the number of their row."""
    rows = np.array(rows)
    pixels = np.broadcast_to(rows[:, None, None, None], (len(rows), channels, SIDE, SIDE)).astype(np.uint8)
    sample = np.zeros((before, channels, SIDE, SIDE), dtype=np.uint8)
    return ReportImages(rows, pixels, sample, sample[:after] + 9, np.arange(before) % 3)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def shown(figure: Figure) -> list[int]:
    """Return the grey level of each image."""
    return [int(np.asarray(image.get_array()).flat[0]) for image in figure.axes[0].images]


THREE = ([0, 1, 2], [[0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.95, 0.03, 0.02]])


def test_the_sheet_of_mistakes_shows_the_worst_image_first_with_both_labels_and_the_probability() -> None:
    with plot_style():
        figure = draw_sheet("worst", outcome_of(*THREE), images_of([0, 1, 2]), title="run")

    assert figure is not None
    assert shown(figure) == [2, 0]
    assert texts(figure) == ["true: owl", "taken for: cat", "95%", "true: cat", "taken for: dog", "70%"]
    assert "The worst 2 of 2 mistakes (of 3 test images)" in " ".join(figure.axes[0].get_title().split())


def test_the_error_of_an_age_is_signed() -> None:
    outcome = outcome_of([2, 0], [[0.5, 0.5, 0.0]] * 2, names=("20", "30", "40"), ordered=True, point=[24.6, 20.0])

    with plot_style():
        figure = draw_sheet("worst", outcome, images_of([0, 1]), title="run")

    assert figure is not None
    assert texts(figure) == ["true age: 40", "estimate: 25 (-15)", "P(40) = 0%"]


def test_an_image_that_is_not_kept_is_left_out() -> None:
    with plot_style():
        figure = draw_sheet("uncertain", outcome_of(*THREE), images_of([0, 2]), title="run")

    assert figure is not None
    assert shown(figure) == [0, 2]


def test_without_mistakes_there_is_no_sheet_of_mistakes() -> None:
    outcome = outcome_of([0], [[1.0, 0.0, 0.0]])

    assert draw_sheet("worst", outcome, images_of([0]), title="run") is None
    assert draw_confused_pairs(outcome, images_of([0]), title="run") is None


def test_a_long_name_is_shortened_in_the_middle() -> None:
    names = ("a very long label name", "another very long name", "x")

    with plot_style():
        figure = draw_sheet("worst", outcome_of([0], [[0.1, 0.9, 0.0]], names=names), images_of([0]), title="run")

    assert figure is not None
    assert texts(figure)[:2] == ["true: a very…l name", "as: anothe…g name"]


def test_the_examples_of_a_pair_are_next_to_their_counts() -> None:
    sure = [[0.0, 1.0, 0.0], [0.0, 0.9, 0.1], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]

    with plot_style():
        figure = draw_confused_pairs(outcome_of([0, 0, 0, 1], sure), images_of(range(4)), title="run")

    assert figure is not None
    assert shown(figure) == [0, 1, 3]
    assert texts(figure) == ["cat taken for dog: 2 of 3", "100%", "90%", "dog taken for cat: 1 of 1", "100%"]


def test_each_augmented_image_is_below_the_stored_one() -> None:
    with plot_style():
        figure = draw_augmentation(images_of([0], before=8, after=8), label_names=("a", "b", "c"), title="run")

    assert figure is not None
    corners = [(image.get_extent()[0], image.get_extent()[3]) for image in figure.axes[0].images]  # left, top
    levels = shown(figure)
    assert levels == [0] * 6 + [9] * 6 + [0] * 2 + [9] * 2
    for stored, augmented in [*zip(range(6), range(6, 12), strict=True), (12, 14), (13, 15)]:
        assert corners[stored][0] == corners[augmented][0]
        assert corners[stored][1] < corners[augmented][1]


def test_without_augmentation_only_the_stored_images_are_drawn() -> None:
    with plot_style():
        figure = draw_augmentation(images_of([0], before=3, channels=3), label_names=("a", "b", "c"), title="run")

    assert figure is not None
    assert texts(figure) == ["a", "b", "c"]


def test_the_images_that_are_left_out_are_counted_and_the_first_are_named() -> None:
    with plot_style():
        figure = draw_excluded([f"{i}.png" for i in range(25)], {"bad.png": "it is truncated"}, title="run")

    assert figure is not None
    assert "Cannot be decoded: 1; do not exist: 25" in figure.axes[0].get_title()
    cells = figure.axes[0].tables[0].get_celld()
    assert [cells[1, column].get_text().get_text() for column in (0, 1)] == ["bad.png", "it is truncated"]
    assert draw_excluded([], {}, title="run") is None


def test_the_numbers_of_the_sheets_are_in_a_table(tmp_path) -> None:
    path = write_sheets(tmp_path / "sheets.csv", outcome_of(*THREE))

    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows if row["sheet"] == "worst"] == ["photo-2.png", "photo-0.png"]
    assert [row["name"] for row in rows if row["sheet"] == "certain"] == ["photo-1.png"]
    assert rows[0] == {
        "sheet": "worst",
        "place": "1",
        "name": "photo-2.png",
        "target": "owl",
        "estimated_label": "cat",
        "point": "",
        "highest_probability": "0.9500",
        "probability_of_target": "0.0200",
        "doubt": "0.0500",
    }


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.0, "0%"), (0.001, "<1%"), (0.37, "37%"), (0.9949, "99%"), (0.9999, ">99%"), (1.0, "100%")],
)
def test_a_percentage_is_only_0_or_100_if_the_probability_is(probability, expected) -> None:
    assert percent(probability) == expected


def test_the_images_are_read_as_they_were_written(tmp_path) -> None:
    images = images_of([3, 5, 8], before=2, after=2, channels=3)

    read = ReportImages.load(images.save(tmp_path / "images.npz"))

    rows, pixels = read.find(np.array([8, 4, 3]))
    assert rows.tolist() == [8, 3]
    assert pixels[:, 0, 0, 0].tolist() == [8, 3]
    assert read.after.tolist() == images.after.tolist()
