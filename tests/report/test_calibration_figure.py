"""The reliability diagram against scikit-learn, and the figure of ages and of classes."""

import csv
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import multiclass_calibration_error

from agebench.report.calibration import draw_reliability, reliability, write_calibration, write_reliability
from agebench.report.style import plot_style

RNG = np.random.default_rng(0)
POSTERIOR, TARGET = RNG.dirichlet(np.full(4, 0.4), size=500), RNG.integers(0, 4, size=500)


def test_the_reliability_equals_that_of_scikit_learn() -> None:
    confidence, accuracy = reliability(POSTERIOR, TARGET)

    correct = POSTERIOR.argmax(1) == TARGET
    expected = calibration_curve(correct, POSTERIOR.max(1), n_bins=15)
    np.testing.assert_allclose(accuracy, expected[0])
    np.testing.assert_allclose(confidence, expected[1])


@pytest.mark.parametrize("decades", [["10s", "20s"], []])
def test_the_figure_has_a_panel_for_decades_only_for_ages(tmp_path, decades) -> None:
    row = {"coverage": 0.9, "coverage_low": 0.8, "coverage_high": None}

    path = write_calibration(
        tmp_path / "report" / "calibration.png",
        (POSTERIOR, POSTERIOR),
        TARGET,
        by_decade=dict.fromkeys(decades, row),
        coverage=0.9,
        title="demo",
    )

    height, width, _ = imread(path).shape
    assert (width > 1.5 * height) == bool(decades)


def test_the_bins_of_the_diagram_hold_all_images(tmp_path, digits_outcome) -> None:
    confidence = digits_outcome.posterior.max(axis=1)
    right = digits_outcome.posterior.argmax(axis=1) == digits_outcome.target

    path = write_reliability(tmp_path / "reliability.csv", digits_outcome)

    rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    edges = np.arange(16) / 15
    expected = [
        (here.sum(), confidence[here].mean(), right[here].mean())
        for low, high in pairwise(edges)
        if (here := (confidence > low) & (confidence <= high)).any()
    ]
    found = [(int(row["images"]), float(row["mean_confidence"]), float(row["accuracy"])) for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_title_of_the_diagram_has_the_expected_calibration_error(digits_outcome) -> None:
    posterior, target = map(torch.from_numpy, (digits_outcome.posterior, digits_outcome.target))
    expected = multiclass_calibration_error(posterior, target, 10, n_bins=15, norm="l1")

    with plot_style():
        figure = draw_reliability(digits_outcome, title="t")

    assert figure is not None
    assert f"ECE: {float(expected):.3f}" in figure.axes[0].get_title()
