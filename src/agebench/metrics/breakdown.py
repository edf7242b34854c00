"""Metrics taken apart: by label, by decade, and by how large an error is let pass; each a table for a CSV file."""

from collections.abc import Mapping, Sequence

import numpy as np

from agebench.metrics.answers import Answers, Array, Images, cells
from agebench.metrics.compute import from_sums, per_image, rows_of, sums
from agebench.metrics.table import REACHES

Table = tuple[list[str], list[list[object]]]  # column names, rows


def per_class(answers: Answers, label_names: Sequence[str], bounds: Mapping[str, Array]) -> Table:
    """Return precision, recall and F1 of each label with their intervals; what no image bears on is empty.

    Args:
        answers: N images of R labels, all finite.
        label_names: What the labels are called, length R.
        bounds: Of `intervals`.
    """
    figures = ("precision", "recall", "f1")
    header = ["label", "images", "predicted", *(f"{name}{end}" for name in figures for end in ("", "_low", "_high"))]
    added, found = _whole(answers)
    rows: list[list[object]] = []
    for label, name in enumerate(label_names):
        counts = [int(added[by][label]) for by in ("actual", "predicted")]
        told = [text for figure in figures for text in _tell(found[figure][label], bounds[figure][:, label])]
        rows.append([name, *counts, *told])
    return header, rows


def error_by_decade(answers: Answers, bounds: Mapping[str, Array]) -> Table:
    """Return mean absolute error and bias, with their intervals, of each decade of the true age that has images.

    Args:
        answers: N images, all finite, whose unit is `years`, or `decades`, which the errors are then counted in too.
        bounds: Of `intervals`.
    """
    added, found = _whole(answers)
    rows: list[list[object]] = []
    for cell, decade in enumerate(cells(answers)[1]):
        if images := int(added["cell_images"][cell]):
            mae, bias = (_tell(found[name][cell], bounds[name][:, cell]) for name in ("cell_mae", "cell_bias"))
            rows.append([f"{int(decade) * 10}s", images, *mae, *bias])
    return ["decade", "images", "mae", "mae_low", "mae_high", "bias", "bias_low", "bias_high"], rows


def cs_curve(answers: Answers, bounds: Mapping[str, Array]) -> Table:
    """Return the share of images whose absolute error is at most k years, with its interval, for k = 0 to 10.

    Args:
        answers: N images, all finite, whose unit is `years`.
        bounds: Of `intervals`.
    """
    shares = per_image(Images(answers))
    rows = [[years, *_tell(shares[f"cs{years}"].mean(), bounds[f"cs{years}"])] for years in REACHES]
    return ["years", "share", "low", "high"], rows


def _whole(answers: Answers) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the sums over all images, shape (columns,) each, and the figures that follow from them."""
    added = sums(Images(answers), np.zeros(len(answers.target), dtype=np.int64), 1)
    found = from_sums(added, rows_of(answers))
    return {name: each[0] for name, each in added.items()}, {name: each[0] for name, each in found.items()}


def _tell(figure: float, low_high: Array) -> list[object]:
    """Return a figure, its lower and its upper bound as text; empty where there is none."""
    return ["" if np.isnan(x) else f"{x:.6g}" for x in (figure, *low_high)]
