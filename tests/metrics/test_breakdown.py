"""Tables of metrics by label, decade and tolerance."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from agebench.metrics import breakdown
from agebench.metrics.bootstrap import intervals
from agebench.metrics.compute import summarise
from agebench.metrics.predictions import LabelledPredictions

# Six images of ages 19, 20, 21, 35 and none of 36. Errors by decade: 0, 2 | 1, -1, 0 | -10.
TARGET, POINT = np.array([0, 0, 1, 2, 2, 3]), np.array([19.0, 21.0, 21.0, 20.0, 21.0, 25.0])
PREDICTED = np.array([0, 2, 2, 1, 2, 2])
VALUES = np.array([19.0, 20.0, 21.0, 35.0, 36.0])
FACES = LabelledPredictions(np.eye(5)[PREDICTED], POINT, TARGET, VALUES, ordered=True, unit="years")


def test_each_label_has_a_row_and_undefined_metrics_are_empty() -> None:
    bounds = intervals(FACES, resamples=200)

    header, rows = breakdown.per_class(FACES, ["19", "20", "21", "35", "36"], bounds)

    assert header[:3] == ["label", "images", "predicted"]
    assert header[3:6] == ["precision", "precision_low", "precision_high"]
    assert [row[:3] for row in rows] == [["19", 2, 1], ["20", 1, 1], ["21", 2, 4], ["35", 1, 0], ["36", 0, 0]]
    expected = precision_recall_fscore_support(TARGET, PREDICTED, labels=range(5), zero_division=np.nan)[:3]
    shown = np.array([[float(row[at] or "nan") for row in rows] for at in (3, 6, 9)])
    np.testing.assert_allclose(shown, expected, rtol=1e-5)
    assert rows[4][3:] == [""] * 9
    assert [rows[2][4], rows[2][5]] == [f"{x:.6g}" for x in bounds["precision"][:, 2]]


def test_each_decade_with_images_has_a_row() -> None:
    bounds = intervals(FACES, resamples=200)

    header, rows = breakdown.error_by_decade(FACES, bounds)

    mae, bias = header.index("mae"), header.index("bias")
    assert [(row[0], row[1], float(row[mae]), float(row[bias])) for row in rows] == [
        ("10s", 2, 1, 1),
        ("20s", 3, pytest.approx(2 / 3, rel=1e-5), 0),
        ("30s", 1, 10, -10),
    ]
    assert rows[2][mae + 1] == rows[2][bias + 2] == ""  # no interval for a single image
    assert float(rows[0][mae + 1]) == bounds["cell_mae"][0, 0] == 0


def test_mae_and_bias_of_a_decade_have_separate_intervals() -> None:
    bounds = {
        "cell_mae": np.array([[0.5, 0.25, 9.0], [1.5, 0.75, 11.0]]),
        "cell_bias": np.array([[-0.5, -0.625, -12.0], [2.5, 0.625, -8.0]]),
    }

    header, rows = breakdown.error_by_decade(FACES, bounds)

    columns = [header.index(name) for name in ("mae_low", "mae_high", "bias_low", "bias_high")]
    assert [[float(row[column]) for column in columns] for row in rows] == [
        [0.5, 1.5, -0.5, 2.5],
        [0.25, 0.75, -0.625, 0.625],
        [9, 11, -12, -8],
    ]


def test_a_target_of_decades_has_the_same_table() -> None:
    target = np.array([0, 0, 2])
    predictions = LabelledPredictions(
        np.eye(3)[target], np.array([2.0, 3.0, 3.0]), target, np.array([2.0, 3.0, 4.0]), True, "decades"
    )

    _, rows = breakdown.error_by_decade(predictions, intervals(predictions, resamples=10))

    assert [(row[0], row[1], row[2]) for row in rows] == [("20s", 2, "0.5"), ("40s", 1, "1")]


def test_the_curve_consists_of_the_cumulative_scores() -> None:
    bounds = intervals(FACES, resamples=200)

    header, rows = breakdown.cs_curve(FACES, bounds)

    assert header == ["years", "share", "low", "high"]
    assert [row[0] for row in rows] == list(range(11))
    shares = [float(row[1]) for row in rows]
    assert shares == pytest.approx([2 / 6, 4 / 6, *[5 / 6] * 8, 1], rel=1e-5)
    assert shares[5] == pytest.approx(summarise(FACES)["cs5"], rel=1e-5)
    assert [float(x) for x in rows[3][2:]] == pytest.approx(bounds["cs3"], rel=1e-5)
