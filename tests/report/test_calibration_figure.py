"""The reliability diagram against scikit-learn, and the figure of ages and of classes."""

import numpy as np
import pytest
from matplotlib.image import imread
from sklearn.calibration import calibration_curve

from agebench.report.calibration import reliability, write_calibration

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
