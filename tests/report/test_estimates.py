"""Estimated against true values."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from agebench.report.estimates import draw_estimates, write_estimates
from agebench.report.outcome import Outcome
from agebench.report.style import plot_style


def test_the_table_has_the_quantiles_of_each_label(tmp_path, ages_outcome: Outcome) -> None:
    path = write_estimates(tmp_path / "estimates.csv", ages_outcome)

    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    true = ages_outcome.values[ages_outcome.target]
    assert sum(int(row["images"]) for row in rows) == 300
    for row in rows:
        here = ages_outcome.point[true == float(row["target"])]
        for column, share in (("estimate_q10", 10), ("estimate_q50", 50), ("estimate_q90", 90)):
            assert float(row[column]) == pytest.approx(np.percentile(here, share), abs=1e-4)


@pytest.mark.filterwarnings("error")
def test_each_image_is_a_dot_at_its_true_age_and_estimate(ages_outcome: Outcome) -> None:
    with plot_style():
        figure = draw_estimates(ages_outcome, title="t")

    assert figure is not None
    (axes,) = figure.axes
    lines = {str(line.get_label()): np.asarray(line.get_xydata()) for line in axes.lines}
    dots = lines["an image"]
    np.testing.assert_allclose(dots[:, 1], ages_outcome.point)
    np.testing.assert_array_less(np.abs(dots[:, 0] - ages_outcome.values[ages_outcome.target]), 0.5)
    exact = lines["exact: estimate = true value"]
    np.testing.assert_array_equal(exact[:, 0], exact[:, 1])
    assert axes.get_xlim() == axes.get_ylim()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("true value (years)", "estimate (years)")


def test_many_images_are_a_density_that_counts_all_of_them(ages_outcome: Outcome) -> None:
    many = np.tile(np.arange(300), 10)
    arrays = {name: getattr(ages_outcome, name)[many] for name in ("names", "target", "posterior", "point")}

    with plot_style():
        figure = draw_estimates(replace(ages_outcome, **arrays), title="t")

    assert figure is not None
    assert np.asarray(figure.axes[0].collections[0].get_array()).sum() == 3_000
    scale = [label.get_text() for label in figure.axes[1].get_yticklabels(which="both")]
    assert all(text.replace(",", "").isdecimal() for text in scale)  # math text is off, see plot_style
    assert len(scale) > 1


def test_classes_have_no_estimates(digits_outcome: Outcome) -> None:
    assert draw_estimates(digits_outcome, title="t") is None
