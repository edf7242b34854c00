"""The gap between groups of test images, such as both sexes, for each row of a comparison."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agebench.comparison.baselines import NAMES, Baseline, blind_numbers
from agebench.comparison.by_group import Columns, read_columns
from agebench.comparison.paired_differences import read_group
from agebench.comparison.predictions_csv import NoPairsError, Numbers, read_tested
from agebench.comparison.tables import Comparison, Row, Table, why_no_pairs
from agebench.metrics.bootstrap import FEW_IN_CELL
from agebench.metrics.by_group import LEAST, Gap, gap_of_means, group_sizes, small_groups, standardise
from agebench.metrics.predictions import Array
from agebench.metrics.table import METRICS, find
from agebench.runs.predictions_csv import UNREADABLE, label_values
from agebench.runs.read import Run

Gaps = dict[tuple[str, str], Gap | None]


def with_gaps(comparison: Comparison, columns: Sequence[str], *, grouped: Sequence[Run] = ()) -> Comparison:
    """Return a comparison with the gaps between the groups of each column.

    They are the gap of the metric of the ranks and, of calibrated runs, those of the coverage and the size of the
    ranges. The value of an image is the mean over seeds. Groups of fewer than LEAST people, or images of unknown
    people, are left out. See metrics.by_group.find_gaps for the interval, which accounts for the selection of both
    groups. For ages and decades, the metric of the ranks also has an age-standardised gap, see
    metrics.by_group.standardise.

    Args:
        comparison: The comparison.
        columns: Columns of groups.csv, such as `sex`.
        grouped: Further runs whose groups.csv is read.

    Raises:
        UserError: If no run has a column.
    """
    columns_of = read_columns([*(run for table in comparison.tables for run in table.runs), *grouped], columns)
    return replace(comparison, tables=tuple(_add_gaps(table, columns, columns_of) for table in comparison.tables))


def _add_gaps(table: Table, columns: Sequence[str], columns_of: Callable[[Run], Columns]) -> Table:
    """Return a table with the gaps of its rows and of the baseline that gives one answer for every image."""
    notes, metrics = list(table.notes), _metrics(table)
    if table.metric not in metrics:
        notes.append(f"no gaps: {why_no_pairs(table.metric)}")
    decades = _decades(table)
    rows = []
    for row in table.rows:
        run = row.group.runs[0]
        measure = _Measure(run.folder.name, columns_of(run), columns, decades, notes)
        rows.append(_with_gaps_of_row(row, measure, metrics, table))
    first = table.rows[0].group.runs[0]
    measure = _Measure(first.folder.name, columns_of(first), columns, decades, [])  # the rows have the notes
    baselines = [_with_gaps_of_baseline(each, measure, first, table) for each in table.baselines]
    return replace(table, rows=tuple(rows), baselines=tuple(baselines), notes=tuple(dict.fromkeys(notes)))


def _metrics(table: Table) -> list[str]:
    """Return the metrics whose gaps are shown: that of the ranks if it is a mean over images, and those of ranges."""
    known = {name for run in table.runs for name in run.metrics}
    of_ranges = [f"test/{row.name}" for row in METRICS if row.calibrated and row.by_group]
    first = [table.metric] if find(table.metric).can_pair else []
    return [*first, *(name for name in of_ranges if name in known)]


def _decades(table: Table) -> dict[str, int]:
    """Return the decade of the true age of each test image by its name; nothing for other labels."""
    if table.unit not in ("years", "decades"):
        return {}
    for run in table.runs:
        try:
            labels, leading, _ = read_tested(run, posterior=False)
            values = np.array(label_values(labels, table.unit))
        except (*UNREADABLE, NoPairsError):
            continue
        of_label = dict(zip(labels, (values // (10 if table.unit == "years" else 1)).astype(int).tolist(), strict=True))
        return {name: of_label[target] for name, _, target, _ in leading}
    return {}


@dataclass(frozen=True)
class _Measure:
    """What is needed to compute the gaps of a value for each image.

    Args:
        name: The name of the run for notes.
        groups: The group of each image by column and name.
        columns: The columns whose gaps are computed.
        decades: The decade of the true age of each image by name; empty without ages.
        notes: Receives a note for each group that is left out, and for each reason why there is no gap.
    """

    name: str
    groups: Columns
    columns: Sequence[str]
    decades: Mapping[str, int]
    notes: list[str]

    def gap(self, values: Numbers, column: str, metric: str) -> Gap | None:
        """Return the gap of the mean of a value by a column; None if fewer than two groups are large enough."""
        return self._gap(values, column, metric, None)

    def standardised_gap(self, values: Numbers, column: str, metric: str) -> Gap | None:
        """Return the gap of means with the same distribution over decades in every group."""
        cells = np.array([self.decades[name] for name in values.names])
        adjusted, weights = standardise(values.numbers, self._labels(values, column), cells, np.array(values.people))
        gap = self._gap(replace(values, numbers=adjusted), column, metric, weights)
        if gap is not None:
            names = ", ".join(f"{decade * 10}s" for decade in np.unique(cells[weights > 0]).tolist())
            self.notes.append(
                f"age-standardised gap by {column}: over the decades in which every group has {FEW_IN_CELL} "
                f"{_units(values)} ({names}); {(weights == 0).sum():,} of {len(weights):,} images are left out"
            )
        return gap

    def _gap(self, values: Numbers, column: str, metric: str, weights: Array | None) -> Gap | None:
        labels, people = self._labels(values, column), np.array(values.people)  # an unknown identity is empty
        what = f"gap by {column}" if weights is None else f"age-standardised gap by {column}"
        sizes, of = group_sizes(labels, people), ""
        if weights is not None:  # the note of the other gap names the groups that are small in all decades
            kept = [name for name, size in sizes.items() if size >= LEAST]
            sizes, of = group_sizes(labels, people, weights), " in the decades that all groups have"
            sizes = {name: sizes[name] for name in kept}
        if small := small_groups(sizes):
            self.notes.append(f"{what}: left out, fewer than {LEAST} {_units(values)}{of}: {small}")
        gap = gap_of_means(values.numbers, labels, people, by=column, metric=find(metric).name, weights=weights)
        if gap is None:
            self.notes.append(f"no {what}: fewer than two groups have {LEAST} people or images")
        return gap

    def _labels(self, values: Numbers, column: str) -> Array:
        if column not in self.groups:
            raise NoPairsError(f"{self.name} has no groups by {column!r}")
        return np.array([self.groups[column][name] for name in values.names])


def _units(values: Numbers) -> str:
    return "people" if any(values.people) else "images"


def _with_gaps_of_row(row: Row, measure: _Measure, metrics: Sequence[str], table: Table) -> Row:
    """Return a row with the gap of each metric for each column, and add a note for each reason why there is none."""
    gaps: Gaps = {(metric, by): None for metric in metrics for by in measure.columns}
    has_ages = table.metric in metrics and bool(measure.decades)
    standardised: dict[str, Gap | None] = dict.fromkeys(measure.columns if has_ages else ())
    for metric in metrics:
        try:
            values = read_group(row.group, metric, table.unit)
            for column in measure.columns:
                gaps[metric, column] = measure.gap(values, column, metric)
                if has_ages and metric == table.metric:
                    standardised[column] = measure.standardised_gap(values, column, metric)
        except KeyError as error:
            measure.notes.append(f"no gap: the groups of {measure.name} lack the image {error}")
        except NoPairsError as error:
            measure.notes.append(f"no gap: {error}")
    return replace(row, gaps=gaps, standardised=standardised)


def _with_gaps_of_baseline(baseline: Baseline, measure: _Measure, run: Run, table: Table) -> Baseline:
    """Return a baseline with its gaps, if it gives one answer for every image and has the metric of the ranks."""
    value, metric = baseline.metrics.get(table.metric), find(table.metric).name
    if value is None or baseline.name != NAMES.get(metric):
        return baseline
    numbers = blind_numbers(run, table.metric, table.unit)
    if numbers is None or not math.isclose(float(numbers.numbers.mean()), value, rel_tol=1e-6):
        return baseline  # the runs were trained on different images
    try:
        gaps: Gaps = {(table.metric, by): measure.gap(numbers, by, metric) for by in measure.columns}
        of_ages = measure.columns if measure.decades else ()
        return replace(
            baseline, gaps=gaps, standardised={by: measure.standardised_gap(numbers, by, metric) for by in of_ages}
        )
    except (KeyError, NoPairsError):  # the rows have the note
        return baseline
