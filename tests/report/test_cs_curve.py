"""The cumulative score."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from agebench.report.cs_curve import cumulative_scores, draw_cs_curve, write_cs_curve
from agebench.report.outcome import Outcome
from agebench.report.style import plot_style


def test_the_table_counts_the_images_within_each_number_of_years(tmp_path, ages_outcome: Outcome) -> None:
    path = write_cs_curve(tmp_path / "cs.csv", ages_outcome)

    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    errors = [abs(p - 14 - t) for p, t in zip(ages_outcome.point, ages_outcome.target, strict=True)]
    assert [int(row["years"]) for row in rows] == list(range(len(rows)))
    for row in rows:
        expected = sum(error <= int(row["years"]) for error in errors) / 300
        assert float(row["share"]) == pytest.approx(expected, abs=1e-4)
        assert float(row["low"]) <= expected <= float(row["high"])


def test_the_interval_agrees_with_that_of_a_binomial_share(ages_outcome: Outcome) -> None:
    share, (low, high) = cumulative_scores(ages_outcome)

    k = int(np.argmin(np.abs(share - 0.5)))
    expected = stats.binomtest(round(share[k] * 300), 300).proportion_ci(method="wilson")
    np.testing.assert_allclose((low[k], high[k]), expected, atol=0.01)


def test_the_interval_of_images_of_few_people_is_wider(ages_outcome: Outcome) -> None:
    over_images = cumulative_scores(ages_outcome)[1]
    error = np.abs(ages_outcome.point - ages_outcome.values[ages_outcome.target])
    people = (np.argsort(np.argsort(error)) // 10).astype(str)  # 30 people, whose 10 images have similar errors

    over_people = cumulative_scores(replace(ages_outcome, people=people))[1]

    assert np.ptp(over_people[:, 10]) > 2 * np.ptp(over_images[:, 10])


def test_the_marked_point_is_the_share_within_five_years(ages_outcome: Outcome) -> None:
    expected = np.mean(np.abs(ages_outcome.point - ages_outcome.values[ages_outcome.target]) <= 5)

    with plot_style():
        figure = draw_cs_curve(ages_outcome, title="t")

    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].texts] == [f"{expected:.0%} within 5 years"]


def test_classes_have_no_cumulative_score(digits_outcome: Outcome) -> None:
    assert draw_cs_curve(digits_outcome, title="t") is None
