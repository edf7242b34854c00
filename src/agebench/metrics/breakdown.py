"""Metrics by label, by decade and by error tolerance, as tables for CSV files."""

from collections.abc import Mapping, Sequence

import numpy as np

from agebench.metrics.by_group import Group, rows_by_group
from agebench.metrics.compute import from_sums, per_image, rows_of, sums
from agebench.metrics.predictions import Array, Images, LabelledPredictions, cells
from agebench.metrics.table import TOLERANCES

Table = tuple[list[str], list[list[object]]]  # column names, rows


def per_class(predictions: LabelledPredictions, label_names: Sequence[str], bounds: Mapping[str, Array]) -> Table:
    """Return precision, recall and F1 of each label with their intervals. Undefined metrics are empty.

    Args:
        predictions: N images of R labels, all finite.
        label_names: Length R.
        bounds: The result of `intervals`.
    """
    metrics = ("precision", "recall", "f1")
    header = ["label", "images", "predicted", *(f"{name}{end}" for name in metrics for end in ("", "_low", "_high"))]
    added, found = _totals(predictions)
    rows: list[list[object]] = []
    for label, name in enumerate(label_names):
        counts = [int(added[by][label]) for by in ("actual", "predicted")]
        values = [text for metric in metrics for text in _format(found[metric][label], bounds[metric][:, label])]
        rows.append([name, *counts, *values])
    return header, rows


def error_by_decade(predictions: LabelledPredictions, bounds: Mapping[str, Array]) -> Table:
    """Return mean absolute error and bias, with their intervals, for each decade of the true age with images.

    Args:
        predictions: N images, all finite, with the unit `years` or `decades`, which is also the unit of the errors.
        bounds: The result of `intervals`.
    """
    added, found = _totals(predictions)
    rows: list[list[object]] = []
    for cell, decade in enumerate(cells(predictions)[1]):
        if images := int(added["cell_images"][cell]):
            mae, bias = (_format(found[name][cell], bounds[name][:, cell]) for name in ("cell_mae", "cell_bias"))
            rows.append([f"{int(decade) * 10}s", images, *mae, *bias])
    return ["decade", "images", "mae", "mae_low", "mae_high", "bias", "bias_low", "bias_high"], rows


def coverage_by_decade(
    predictions: LabelledPredictions, label_names: Sequence[str], bounds: Mapping[str, Array]
) -> Table:
    """Return coverage and mean width of the ranges, with their intervals, for each decade of the true age with images.

    Args:
        predictions: N images, all finite and calibrated, with ordered labels. Each label of bins is a row.
        label_names: Length R.
        bounds: The result of `intervals`.
    """
    added, found = _totals(predictions)
    bins = predictions.unit not in ("years", "decades")
    rows: list[list[object]] = []
    for cell, decade in enumerate(cells(predictions)[1]):
        if images := int(added["cell_images"][cell]):
            values = [
                _format(found[name][cell], bounds[name][:, cell]) for name in ("cell_coverage", "cell_range_width")
            ]
            rows.append([label_names[cell] if bins else f"{int(decade) * 10}s", images, *values[0], *values[1]])
    return ["decade", "images", "coverage", "coverage_low", "coverage_high", "width", "width_low", "width_high"], rows


def cs_curve(predictions: LabelledPredictions, bounds: Mapping[str, Array]) -> Table:
    """Return the share of images whose absolute error is at most k years, with its interval, for k = 0 to 10.

    Args:
        predictions: N images, all finite, with the unit `years`.
        bounds: The result of `intervals`.
    """
    shares = per_image(Images(predictions))
    rows = [[years, *_format(shares[f"cs{years}"].mean(), bounds[f"cs{years}"])] for years in TOLERANCES]
    return ["years", "share", "low", "high"], rows


def by_group(
    predictions: LabelledPredictions, groups: Sequence[Group], notes: Sequence[str], *, with_people: bool
) -> Table:
    """Return the metrics that are given by group, with their intervals, of each group and each pair of groups.

    Args:
        predictions: N images, all finite.
        groups: The result of `measure_groups`.
        notes: A text for each group.
        with_people: Whether the people are known. Otherwise their number is empty.
    """
    metrics = [metric.name for metric in rows_by_group(predictions)]
    columns = [f"{name}{end}" for name in metrics for end in ("", "_low", "_high")]
    unknown = np.full(2, np.nan)
    rows: list[list[object]] = []
    for group, note in zip(groups, notes, strict=True):
        found = ((group.values.get(name, np.nan), group.bounds.get(name, unknown)) for name in metrics)
        texts = [text for value, low_high in found for text in _format(value, low_high)]
        rows.append([group.by, group.name, len(group.rows), group.people if with_people else "", *texts, note])
    return ["by", "group", "images", "people", *columns, "note"], rows


def _totals(predictions: LabelledPredictions) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the sums over all images, shape (columns,) each, and the metrics computed from them."""
    added = sums(Images(predictions), np.zeros(len(predictions.target), dtype=np.int64), 1)
    found = from_sums(added, rows_of(predictions))
    return {name: each[0] for name, each in added.items()}, {name: each[0] for name, each in found.items()}


def _format(value: float, low_high: Array) -> list[object]:
    """Return a metric and both bounds as text. NaN is empty."""
    return ["" if np.isnan(x) else f"{x:.6g}" for x in (value, *low_high)]
