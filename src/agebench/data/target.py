"""Targets: the label of each record, and the unit of its errors."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from agebench.data.keys import TargetName
from agebench.data.records import Array, Records
from agebench.errors import UserError

TARGETS = get_args(TargetName)


@dataclass(frozen=True)
class Target:
    """The labels of N records.

    Args:
        name: One of TARGETS.
        labels: Index of each record's label, int64, shape (N,), in [0, R).
        label_names: Names of the R labels, in order.
        values: Value of each label in `unit`, ascending, float64, shape (R,).
        ordered: Whether the labels have an order, which distances and ranking heads need.
        unit: `years`, `decades`, `bins`, or empty for classes.
    """

    name: str
    labels: Array
    label_names: tuple[str, ...]
    values: Array
    ordered: bool
    unit: str

    @property
    def num_labels(self) -> int:
        """R, the number of labels, including labels without images."""
        return len(self.label_names)


def make_target(
    records: Records, name: str, *, bins: Sequence[float] | None = None, ages: Sequence[int] | None = None
) -> Target:
    """Return the target: the label of each record.

    Ages cover each year from the youngest to the oldest record, and decades each decade, including years and decades
    without an image. `ages` fixes the first and the last of these labels.

    Args:
        records: N records with a column `class`, or `age` in years.
        name: `class`, `decade` (10s, 20s, ...), `age` (one label per year) or `bins`.
        bins: Lower edges in years of all bins except the first, ascending. [18, 30] means under 18, 18-29, 30 and over.
        ages: Lowest and highest age in years that have a label, for `age` and `decade`; None: those of the records.

    Raises:
        UserError: If the records lack the column of the target, the bins are not ascending, or a record has an age
            outside `ages`.
    """
    if name not in TARGETS:
        raise UserError(f"data.target={name} is not a target: choose one of {', '.join(TARGETS)}")
    needed = "class" if name == "class" else "age"
    if needed not in records.columns:
        other = (
            "class, or data.source.label=age for a table of ages"
            if "class" in records.columns
            else "age, decade or bins"
        )
        raise UserError(f"data.target={name} needs {needed} labels, and this data has none: use data.target={other}")
    if name == "class":
        labels = records.columns["class"].astype(np.int64)
        values = np.arange(len(records.class_names), dtype=np.float64)
        return Target(name, labels, records.class_names, values, ordered=False, unit="")

    years = records.columns["age"].astype(np.int64)
    if name == "bins":
        edges = _edges(bins)
        if len(edges) == 0 or not np.all(np.isfinite(edges)) or np.any(np.diff(edges) <= 0):
            raise UserError(f"data.target=bins needs ascending edges in years, got {bins}: data.bins=[18,30,45,60]")
        labels = np.searchsorted(edges, years, side="right").astype(np.int64)
        inner = [f"{a:g}" if b - a == 1 else f"{a:g}-{b - 1:g}" for a, b in itertools.pairwise(edges)]
        names = (f"<{edges[0]:g}", *inner, f"{edges[-1]:g}+")
        return Target(name, labels, names, np.arange(len(names), dtype=np.float64), ordered=True, unit="bins")

    step = 10 if name == "decade" else 1
    unit = "decades" if name == "decade" else "years"
    low, high = (int(years.min()), int(years.max())) if ages is None else ages
    if (outside := np.flatnonzero((years < low) | (years > high))).size:
        raise UserError(
            f"data.ages=[{low},{high}] has no label for {len(outside):,} of the {len(years):,} images, such as "
            f"{records.names[outside[0]]} of {years[outside[0]]} years: give a range with all ages"
        )
    values = np.arange(low // step, high // step + 1, dtype=np.float64)
    return Target(name, years // step - int(values[0]), names_of(values, unit), values, ordered=True, unit=unit)


def names_of(values: Array, unit: str) -> tuple[str, ...]:
    """Return the names of labels with these values in `years` or `decades`."""
    return tuple(f"{int(value) * 10}s" if unit == "decades" else str(int(value)) for value in values)


def _edges(bins: Sequence[float] | None) -> Array:
    """Return the edges as float64, shape (n,); empty if they are not a list of numbers."""
    try:
        edges = np.asarray(bins if bins is not None else [], dtype=np.float64)
    except (TypeError, ValueError):
        return np.array([])
    return edges if edges.ndim == 1 else np.array([])
