"""One table of all groups of test images: a row per group of runs, and a column per group of images, such as a sex."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agebench.comparison import formatting as numbers
from agebench.comparison.cells import Cells, Column, config_columns, metric_header
from agebench.comparison.formatting import NONE
from agebench.comparison.tables import Comparison, Row, Table
from agebench.metrics.table import find

MEAN = "mean of groups"


@dataclass(frozen=True)
class Overview:
    """The metric of the ranks in each group of test images.

    Args:
        protocol: `dataset/split/target`.
        heading: The title.
        columns: The columns of parameters and seeds, then one per group of test images, then their mean.
        means: The mean over seeds of each row, NaN if there is none, for each of the last columns.
        baselines: The names of the baselines.
        caption: The explanation of the numbers.
    """

    protocol: str
    heading: str
    columns: tuple[Column, ...]
    means: tuple[Sequence[float], ...]
    baselines: tuple[str, ...]
    caption: str

    @property
    def cells(self) -> Cells:
        """The text of all cells. The baselines are the last rows."""
        rows = [list(cells) for cells in zip(*(column.cells for column in self.columns), strict=True)]
        rows += self.baseline_rows
        quiet = [i >= len(rows) - len(self.baselines) for i in range(len(rows))]
        numeric = [column.number and not (i == 0 and self.baselines) for i, column in enumerate(self.columns)]
        return Cells([column.header for column in self.columns], rows, numeric, quiet, [None] * len(rows))

    @property
    def baseline_rows(self) -> list[list[str]]:
        """The cells of each baseline."""
        return [[name, *(column.baselines.get(name, NONE) for column in self.columns[1:])] for name in self.baselines]


def overviews(comparison: Comparison) -> list[Overview]:
    """Return an overview for each protocol and list of test images that is ranked within several groups of images."""
    of_images: dict[tuple[str, str, str], list[Table]] = {}
    for table in comparison.tables:
        if table.group:
            of_images.setdefault((table.protocol, table.split_sha, table.metric), []).append(table)
    return [_overview(tables) for tables in of_images.values() if len(tables) > 1]


def _overview(tables: Sequence[Table]) -> Overview:
    table = max(tables, key=lambda each: len(each.rows))
    metric, by = table.metric, table.group.partition(" = ")[0]
    form = numbers.form_of(metric, unit=table.unit, images=table.images)
    of_runs = [{_folders(row): row.group for row in each.rows} for each in tables]
    lines: list[tuple[Row, list[float], list[str]]] = []
    for row in table.rows:
        groups = [known.get(_folders(row)) for known in of_runs]
        means = _with_mean([math.nan if group is None else group.mean(metric) for group in groups])
        cells = [
            NONE if group is None else numbers.result(group, metric, form, interval=group.interval(metric))
            for group in groups
        ]
        lines.append((row, means, [*cells, form(means[-1])]))
    lines.sort(key=lambda line: find(metric).cost(line[1][-1]) if math.isfinite(line[1][-1]) else math.inf)
    rows, of_rows, cells_of_rows = zip(*lines, strict=True)
    names = dict.fromkeys(baseline.name for each in tables for baseline in each.baselines)
    of_baselines = {name: _baseline_values(name, tables, metric) for name in names}
    headers = [f"{each.group.partition(' = ')[2]} ({each.images or 0:,})" for each in tables]
    columns = [
        Column(header, list(column), metric=metric, baselines={n: form(v[i]) for n, v in of_baselines.items()})
        for i, (header, column) in enumerate(zip([*headers, MEAN], zip(*cells_of_rows, strict=True), strict=True))
    ]
    return Overview(
        protocol=table.protocol,
        heading=f"{table.protocol}: {metric_header(metric, table)} by {by} (split {table.split_sha[:8]})",
        columns=(*config_columns(replace(table, rows=rows)), *columns),
        means=tuple(zip(*of_rows, strict=True)),
        baselines=tuple(names),
        caption="A column for each group of test images, with its number of images: mean ± standard deviation over "
        f"seeds, or one seed with its 95% interval. The {MEAN} gives every group the same weight, and the rows are "
        "sorted by it.",
    )


def _baseline_values(name: str, tables: Sequence[Table], metric: str) -> list[float]:
    """Return a metric of a baseline in each table, then the mean; NaN where it is unknown."""
    known = [{each.name: each.metrics.get(metric, math.nan) for each in table.baselines} for table in tables]
    return _with_mean([of_table.get(name, math.nan) for of_table in known])


def _with_mean(values: list[float]) -> list[float]:
    return [*values, float(np.mean(values))]


def _folders(row: Row) -> tuple[str, ...]:
    """Return what identifies the runs of a row in the tables of all groups of test images."""
    return tuple(str(run.folder) for run in row.group.runs)
