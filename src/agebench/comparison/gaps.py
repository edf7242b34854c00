"""The gap between groups of test images, such as both sexes, for each row of a comparison."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agebench.comparison.by_group import Columns, read_columns
from agebench.comparison.paired_differences import read_group
from agebench.comparison.predictions_csv import NoPairsError
from agebench.comparison.tables import Comparison, Row, Table, why_no_pairs
from agebench.metrics.by_group import LEAST, Gap, gap_of_means
from agebench.metrics.table import METRICS, find
from agebench.runs.read import Run


def with_gaps(comparison: Comparison, columns: Sequence[str], *, grouped: Sequence[Run] = ()) -> Comparison:
    """Return a comparison with the gaps between the groups of each column.

    They are the gap of the metric of the ranks and, of calibrated runs, those of the coverage and the size of the
    ranges. The value of an image is the mean over seeds. Groups of fewer than LEAST people, or images of unknown
    people, are left out. See metrics.by_group.find_gaps for the interval, which accounts for the selection of both
    groups.

    Args:
        comparison: The comparison.
        columns: Columns of groups.csv, such as `sex`.
        grouped: Further runs whose groups.csv is read.

    Raises:
        UserError: If no run has a column.
    """
    columns_of = read_columns([*(run for table in comparison.tables for run in table.runs), *grouped], columns)
    tables = []
    for table in comparison.tables:
        notes, metrics = list(table.notes), _metrics(table)
        if table.metric not in metrics:
            notes.append(f"no gaps: {why_no_pairs(table.metric)}")
        rows = [
            replace(
                row, gaps=_gaps(row, columns_of(row.group.runs[0]), columns, metrics=metrics, table=table, notes=notes)
            )
            for row in table.rows
        ]
        tables.append(replace(table, rows=tuple(rows), notes=tuple(dict.fromkeys(notes))))
    return replace(comparison, tables=tuple(tables))


def _metrics(table: Table) -> list[str]:
    """Return the metrics whose gaps are shown: that of the ranks if it is a mean over images, and those of ranges."""
    known = {name for run in table.runs for name in run.metrics}
    of_ranges = [f"test/{row.name}" for row in METRICS if row.calibrated and row.by_group]
    first = [table.metric] if find(table.metric).can_pair else []
    return [*first, *(name for name in of_ranges if name in known)]


def _gaps(
    row: Row, groups: Columns, columns: Sequence[str], *, metrics: Sequence[str], table: Table, notes: list[str]
) -> dict[tuple[str, str], Gap | None]:
    """Return the gap of each metric for each column, and add a note for each reason why there is none."""
    found: dict[tuple[str, str], Gap | None] = {(metric, by): None for metric in metrics for by in columns}
    for metric in metrics:
        try:
            values = read_group(row.group, metric, table.unit)
            people = np.array(values.people)  # an unknown identity is empty
            for column in columns:
                if column not in groups:
                    raise NoPairsError(f"{row.group.runs[0].folder.name} has no groups by {column!r}")
                labels = np.array([groups[column][name] for name in values.names])
                gap = gap_of_means(values.numbers, labels, people, by=column, metric=find(metric).name)
                found[metric, column] = gap
                if gap is None:
                    notes.append(f"no gap by {column}: fewer than two groups have {LEAST} people or images")
        except KeyError as error:
            notes.append(f"no gap: the groups of {row.group.runs[0].folder.name} lack the image {error}")
        except NoPairsError as error:
            notes.append(f"no gap: {error}")
    return found
