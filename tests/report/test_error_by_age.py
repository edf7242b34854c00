import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error

from agebench.report.error_by_age import (
    age_cells,
    draw_errors_by_age,
    errors_by_label,
    intervals_by_label,
    write_errors_by_age,
)
from agebench.report.outcome import Outcome
from agebench.report.style import plot_style


def test_errors_per_age_agree_with_scikit_learn(ages_outcome: Outcome) -> None:
    images, mae, bias = errors_by_label(ages_outcome)

    true_ages = ages_outcome.values[ages_outcome.target]
    for label, age in enumerate(ages_outcome.values):
        here = true_ages == age
        assert images[label] == here.sum()
        if here.any():
            assert mae[label] == pytest.approx(mean_absolute_error(true_ages[here], ages_outcome.point[here]))
            assert bias[label] == pytest.approx(np.mean(ages_outcome.point[here]) - age)
        else:
            assert np.isnan(mae[label])
            assert np.isnan(bias[label])


def test_the_table_lists_the_ages_that_have_images(tmp_path: Path) -> None:
    outcome = Outcome(
        names=np.array(["a", "b", "c"]),
        target=np.array([0, 0, 2]),
        posterior=np.eye(3),
        point=np.array([23.0, 18.0, 21.5]),
        values=np.array([20.0, 21.0, 22.0]),
        label_names=("20", "21", "22"),
        ordered=True,
        unit="years",
    )

    path = write_errors_by_age(tmp_path / "error_by_age.csv", outcome)

    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    assert rows == [
        ["age", "images", "mae", "mae_low", "mae_high", "bias", "bias_low", "bias_high"],
        ["20", "2", "2.5000", "2.0000", "3.0000", "0.5000", "-2.0000", "3.0000"],  # two images: their range
        ["22", "1", "0.5000", "", "", "-0.5000", "", ""],
    ]


@pytest.mark.filterwarnings("error")
def test_axes_have_units_and_bars_count_the_images(tmp_path: Path, ages_outcome: Outcome) -> None:
    with plot_style():
        figure = draw_errors_by_age(ages_outcome, title="t")
        figure.savefig(tmp_path / "error.png")

    upper, lower = figure.axes
    assert upper.get_ylabel() == "error (years)"
    assert lower.get_xlabel() == "true age (years)"
    assert sum(bar.get_height() for bar in lower.patches) == 300
    names = [text.get_text() for text in upper.get_legend().get_texts()]
    assert {"mean absolute error", "bias (estimate - true age)"} <= set(names)


@pytest.mark.filterwarnings("error")
def test_predictions_of_a_diverged_model_for_a_single_age_are_drawn(tmp_path: Path) -> None:
    nan = np.array([np.nan])
    outcome = Outcome(np.array(["a"]), np.array([0]), nan[:, None], nan, np.array([20.0]), ("20",), True, "years")

    with plot_style():
        draw_errors_by_age(outcome, title="t").savefig(tmp_path / "error.png")

    assert (tmp_path / "error.png").is_file()


def test_a_leak_adds_the_lookup_line_and_a_note(ages_outcome: Outcome) -> None:
    leaky = replace(ages_outcome, note="for comparison: MAE 2.71", lookup_mae=2.71)

    with plot_style():
        plain, warned = (draw_errors_by_age(outcome, title="t") for outcome in (ages_outcome, leaky))

    assert warned.get_supxlabel() == "for comparison: MAE 2.71"
    labels = [line.get_label() for line in warned.axes[0].lines]
    assert "MAE of an identity lookup, without images: 2.71" in labels
    level = next(line for line in warned.axes[0].lines if "lookup" in str(line.get_label()))
    assert set(level.get_ydata()) == {2.71}
    assert not plain.get_supxlabel()
    assert len(plain.axes[0].lines) == len(warned.axes[0].lines) - 1


def outcome_at(ages: list[int], error: np.ndarray, people: np.ndarray | None = None) -> Outcome:
    """Return the outcome of images with the given true ages, 0 to 99, and errors."""
    values = np.arange(100.0)
    posterior = np.full((len(ages), 100), 0.01)
    names = np.arange(len(ages)).astype(str)
    return Outcome(
        names, np.array(ages), posterior, np.array(ages) + error, values,
        tuple(f"{v:g}" for v in values), True, "years", people=people,
    )  # fmt: skip


def test_the_interval_of_the_bias_agrees_with_students_over_single_images() -> None:
    error = np.random.default_rng(0).normal(2, 5, 60)
    expected = stats.t.interval(0.95, 59, loc=error.mean(), scale=error.std(ddof=1) / np.sqrt(60))

    people, _, bias = intervals_by_label(outcome_at([30] * 60, error))

    assert people[30] == 60
    np.testing.assert_allclose(bias[30], expected, atol=0.2)
    assert np.isnan(bias[31]).all()


def test_images_of_one_person_do_not_narrow_the_interval() -> None:
    error = np.random.default_rng(0).normal(2, 5, 40)
    person = np.arange(40).astype(str)

    once = intervals_by_label(outcome_at([30] * 40, error, person))[1][30]
    five_times = intervals_by_label(outcome_at([30] * 200, np.repeat(error, 5), np.repeat(person, 5)))

    assert five_times[0][30] == 40
    np.testing.assert_allclose(five_times[1][30], once)


@pytest.mark.parametrize(("images_per_age", "width"), [(30, 1), (10, 2), (4, 5), (1, 10)])
def test_ages_are_taken_together_until_most_images_have_an_interval(images_per_age, width) -> None:
    ages = np.repeat(np.arange(20, 60), images_per_age).tolist()

    cell, years = age_cells(outcome_at(ages, np.zeros(len(ages))))

    assert years == width
    assert cell.tolist() == [age // width for age in range(100)]


def test_an_age_with_few_images_is_hollow_and_has_no_interval(tmp_path: Path) -> None:
    ages = [30] * 50 + [31] * 50 + [32] * 2

    with plot_style():
        upper = draw_errors_by_age(outcome_at(ages, np.linspace(-9, 9, 102)), title="t").axes[0]

    lines = [line for line in upper.lines if line.get_markerfacecolor() == "white" and len(line.get_xdata())]
    drawn = {line.get_marker(): np.asarray(line.get_xydata()) for line in lines}
    assert [drawn[marker][np.isfinite(drawn[marker][:, 1]), 0].tolist() for marker in "so"] == [[32.0], [32.0]]
    assert "fewer than 20 images" in [text.get_text() for text in upper.get_legend().get_texts()]


def test_if_all_ages_depend_on_few_people_all_have_intervals() -> None:
    people = np.tile(["a", "b", "c"], 40)
    error = np.tile([1.0, 2.0, 6.0], 40)

    with plot_style():
        upper = draw_errors_by_age(outcome_at(np.repeat([30, 40], 60).tolist(), error, people), title="t").axes[0]

    curve = next(each for each in upper.containers if each.get_label() == "mean absolute error")
    line, _, (bars,) = curve.lines
    assert line.get_markerfacecolor() == "white"
    heights = np.asarray(line.get_xydata())[:, 1]
    assert heights[np.isfinite(heights)].tolist() == [3.0, 3.0]
    ends = np.array([segment[:, 1] for segment in bars.get_segments() if len(segment)])
    assert ends[np.isfinite(ends).all(axis=1)].tolist() == [[1.0, 6.0]] * 2  # of three people: their range
