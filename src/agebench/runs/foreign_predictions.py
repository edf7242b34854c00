"""The labelled predictions in a file of another program: its numbers and its labels are checked."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from agebench.data.plan import Plan
from agebench.data.target import Target, names_of
from agebench.errors import UserError
from agebench.metrics.age_limit import make_age_limit
from agebench.metrics.predictions import Array, Predictions
from agebench.runs.foreign_sheet import Matches, Sheet
from agebench.runs.label_alignment import Alignment, OrderedLabels, align_labels, label_predictions

# A number of ten or more significant digits, which no float32 needs.
LONG = re.compile(r"[1-9](?:\.?[0-9]){9}")
FAR = 3  # decades or bins beyond the last label, which half of the estimates cannot be
SUM_TOLERANCE = 0.01  # of the probabilities of an image, which may be rounded


def predictions_of(
    sheet: Sheet, matches: Matches, plan: Plan, *, settings: Mapping[str, Any], bins: Sequence[float] | None = None
) -> tuple[Plan, Predictions, Alignment | None]:
    """Return the labelled predictions of the matched rows, and the plan and the alignment of their labels.

    Args:
        sheet: The file.
        matches: Its rows that are test images.
        plan: The data.
        settings: The keys of agebench.metrics.age_limit.DEFAULTS.
        bins: The edges of the data's bins.

    Raises:
        UserError: If a prediction is not a number, or the labels do not fit the data.
    """
    target, posterior, alignment = plan.target, None, None
    lines = matches.lines.tolist()
    if sheet.posterior is not None:
        posterior = _numbers(sheet, lines, [sheet.posterior[line] for line in lines])
        _check_probabilities(sheet, lines, posterior)
        posterior, alignment = _align(sheet, posterior, target)
    point = _points(sheet, lines, target, alignment, posterior=posterior)
    if alignment is not None:
        plan = replace(plan, target=alignment.target)
    limit = make_age_limit(settings, values=plan.target.values.tolist(), unit=plan.target.unit, bins=bins)
    found = label_predictions(plan, matches.rows, point, posterior, alignment=alignment, age_limit=limit)
    return plan, found, alignment


def _numbers(sheet: Sheet, lines: list[int], cells: list[list[str]]) -> Array:
    """Return cells as finite numbers, shape (n, K): float32, the precision of the networks, unless a cell has more."""
    numbers = [[_number(cell) for cell in row] for row in cells]
    for line, row, found in zip(lines, cells, numbers, strict=True):
        if not all(map(math.isfinite, found)):
            wrong = next(cell for cell, number in zip(row, found, strict=True) if not math.isfinite(number))
            raise UserError(
                f"{sheet.file}: the prediction for {sheet.names[line]} is {wrong[:40]!r}, which is not a number: "
                "remove rows without a prediction, which then count as missing"
            )
    is_long = any(LONG.search(cell) for row in cells for cell in row)
    doubles = np.array(numbers, dtype=np.float64)
    with np.errstate(over="ignore"):
        singles = doubles.astype(np.float32)
    return singles if np.isfinite(singles).all() and not is_long else doubles


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _check_probabilities(sheet: Sheet, lines: list[int], posterior: Array) -> None:
    """Raise UserError if a probability is negative, or those of an image do not sum to 1."""
    sums = posterior.sum(1, dtype=np.float64)
    wrong = np.flatnonzero((posterior < 0).any(1) | (np.abs(sums - 1) > SUM_TOLERANCE))
    if len(wrong):
        name, others = sheet.names[lines[wrong[0]]], f" (and {len(wrong) - 1:,} more images)" if len(wrong) > 1 else ""
        raise UserError(
            f"{sheet.file}: the probabilities of {name}{others} sum to {sums[wrong[0]]:.4g}, the lowest is "
            f"{posterior[wrong[0]].min():.4g}: they must be 0 or more and sum to 1"
        )


def _align(sheet: Sheet, posterior: Array, target: Target) -> tuple[Array, Alignment | None]:
    """Return the posterior in the order of its labels, and how they are aligned if they differ from those of the data.

    Raises:
        UserError: If the labels of the file are no labels of this target.
    """
    if set(sheet.labels) == set(target.label_names):
        return posterior[:, [sheet.labels.index(name) for name in target.label_names]], None
    values = _values(sheet.labels, target.unit)
    if values is None:
        named = [f"p({name})" for name in sheet.labels if name not in target.label_names]
        lacks = [f"p({name})" for name in target.label_names if name not in sheet.labels]
        in_years = target.ordered and _values(sheet.labels, "years") is not None
        hint = "; for columns of ages in years set data.target=age" if in_years else ""
        differ = f"it lacks {', '.join(lacks[:3])}" if lacks else f"{', '.join(named[:3])} are unknown"
        raise UserError(
            f"{sheet.file} has {len(sheet.labels)} columns p(LABEL), and the data has {target.num_labels} labels: "
            f"{differ}; the labels are {', '.join(target.label_names[:6])}"
            f"{', ...' if target.num_labels > 6 else ''}{hint}"
        )
    order = np.argsort(values)
    values = values[order]
    if (gaps := np.flatnonzero(np.diff(values) != 1)).size:
        after = names_of(values[gaps[:1] + 1], target.unit)[0]
        raise UserError(
            f"{sheet.file} has no column for the label before p({after}): add it, with 0 if it is never predicted"
        )
    return posterior[:, order], align_labels(target, OrderedLabels(values, target.unit), bins=None)


def _values(labels: Sequence[str], unit: str) -> Array | None:
    """Return the values of labels in years or decades; None if they are something else."""
    form = {"years": r"[0-9]{1,3}", "decades": r"[0-9]{1,2}0s|0s"}.get(unit)
    if form is None or not all(re.fullmatch(form, label) for label in labels):
        return None
    return np.array([float(label) if unit == "years" else float(label[:-1]) // 10 for label in labels])


def _points(
    sheet: Sheet, lines: list[int], target: Target, alignment: Alignment | None, *, posterior: Array | None
) -> Array:
    """Return the point estimates, shape (n,). Without any they are the most likely class, or the posterior's mean."""
    if sheet.points is None:
        if posterior is None:
            raise UserError(
                f"{sheet.file} has no prediction: its columns p(LABEL) are empty, and it has no column point"
            )
        values = target.values if alignment is None else alignment.model.values
        return posterior @ values if target.ordered else posterior.argmax(1)
    cells = [sheet.points[line] for line in lines]
    if target.ordered:
        points = _numbers(sheet, lines, [[cell] for cell in cells])[:, 0]
        if target.unit != "years" and np.median(points) > target.values[-1] + FAR:
            raise UserError(
                f"{sheet.file} predicts {np.median(points):.4g} (median), and data.target={target.name} has values "
                f"from {target.values[0]:g} to {target.values[-1]:g}: for predictions in years set data.target=age"
            )
        return points
    index = {name: i for i, name in enumerate(target.label_names)}
    for line, cell in zip(lines, cells, strict=True):
        if cell not in index:
            known = ", ".join(target.label_names[:6]) + (", ..." if target.num_labels > 6 else "")
            raise UserError(
                f"{sheet.file}: the prediction for {sheet.names[line]} is {cell[:40]!r}, which is not a label of the "
                f"data: the labels are {known}"
            )
    return np.array([index[cell] for cell in cells])
