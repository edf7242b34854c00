"""The gap between groups of test images, such as both sexes, for each row of a comparison."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agebench.comparison.by_group import Columns, read_columns
from agebench.comparison.paired_differences import read_group
from agebench.comparison.predictions_csv import NoPairsError
from agebench.comparison.tables import Comparison, Row, Table, why_no_pairs
from agebench.metrics.by_group import LEAST, Gap, gap_of_means
from agebench.metrics.table import find


def with_gaps(comparison: Comparison, columns: Sequence[str]) -> Comparison:
    """Return a comparison with the gap of the metric of the ranks between the groups of each column.

    The value of an image is the mean over seeds. Groups of fewer than LEAST people, or images of unknown people, are
    left out. See metrics.by_group.find_gaps for the interval, which accounts for the selection of both groups.

    Args:
        comparison: The comparison.
        columns: Columns of groups.csv, such as `sex`.

    Raises:
        UserError: If no run has a column.
    """
    columns_of = read_columns([run for table in comparison.tables for run in table.runs], columns)
    tables = []
    for table in comparison.tables:
        if not find(table.metric).can_pair:
            tables.append(replace(table, notes=(*table.notes, f"no gaps: {why_no_pairs(table.metric)}")))
            continue
        notes = list(table.notes)
        rows = [
            replace(row, gaps=_gaps(row, columns_of(row.group.runs[0]), columns, table=table, notes=notes))
            for row in table.rows
        ]
        tables.append(replace(table, rows=tuple(rows), notes=tuple(dict.fromkeys(notes))))
    return replace(comparison, tables=tuple(tables))


def _gaps(
    row: Row, groups: Columns, columns: Sequence[str], *, table: Table, notes: list[str]
) -> dict[str, Gap | None]:
    """Return the gap of each column, and add a note for each reason why there is none."""
    found: dict[str, Gap | None] = dict.fromkeys(columns)
    try:
        values = read_group(row.group, table.metric, table.unit)
        people = np.array(values.people)  # an unknown identity is empty
        for column in columns:
            if column not in groups:
                raise NoPairsError(f"{row.group.runs[0].folder.name} has no groups by {column!r}")
            labels = np.array([groups[column][name] for name in values.names])
            name = find(table.metric).name
            found[column] = gap_of_means(values.numbers, labels, people, by=column, metric=name)
            if found[column] is None:
                notes.append(f"no gap by {column}: fewer than two groups have {LEAST} people or images")
    except KeyError as error:
        notes.append(f"no gap: the groups of {row.group.runs[0].folder.name} lack the image {error}")
    except NoPairsError as error:
        notes.append(f"no gap: {error}")
    return found
