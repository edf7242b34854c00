import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error

from agebench.report.error_by_age import draw_errors_by_age, errors_by_label, write_errors_by_age
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
        ["age", "images", "mae", "bias"],
        ["20", "2", "2.5000", "0.5000"],
        ["22", "1", "0.5000", "-0.5000"],
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
    assert len(upper.lines) == 3  # zero, mean absolute error, bias


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
