"""The text cells of a table of groups, for Markdown and HTML."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agebench.comparison import formatting as numbers
from agebench.comparison.baselines import Baseline
from agebench.comparison.formatting import NONE
from agebench.comparison.groups import Group, name_of
from agebench.comparison.parameters import format_value, short_names
from agebench.comparison.tables import Row, Table, shown_metrics
from agebench.metrics.table import find, is_decision
from agebench.runs.read import number

ARROWS = {"lower": " ↓", "higher": " ↑", "nearest to zero": ""}


@dataclass(frozen=True)
class Cells:
    """The cells of a table.

    Args:
        header: The name of each column.
        rows: The cells of each row.
        numbers: For each column, whether it holds numbers.
        quiet: For each row, whether it has no rank and is shown in grey.
        groups: The group of each row; None for a baseline.
    """

    header: list[str]
    rows: list[list[str]]
    numbers: list[bool]
    quiet: list[bool]
    groups: list[Group | None]


@dataclass(frozen=True)
class Column:
    """A column of a table, without the baselines.

    Args:
        header: The name of the column.
        cells: One cell per row.
        number: Whether the cells are numbers.
        metric: The metric of the column, such as `test/mae`, of which a baseline may have a value; else empty.
        baselines: The cells of baselines by their names, in a column without a metric.
    """

    header: str
    cells: list[str]
    number: bool = True
    metric: str = ""
    baselines: Mapping[str, str] = field(default_factory=dict)


def lay_out(table: Table) -> Cells:
    """Return the cells of a table: rank, parameters, seeds, metric, folds, difference to the best, gaps, other columns.

    The caption has the number of epochs and parameters if they are the same in every row.
    """
    columns = [Column("rank", [NONE if row.rank is None else str(row.rank) for row in table.rows])]
    columns += [*config_columns(table), ranking_column(table), *_fold_columns(table), *difference_columns(table)]
    columns += [*gap_columns(table), *further_columns(table)]
    columns += _cost_columns(table)
    header = [column.header for column in columns]
    body = [list(cells) for cells in zip(*(column.cells for column in columns), strict=True)]
    lines: list[tuple[tuple[int, float, int], list[str], Group | None]] = [
        (_sort_key(row.group.mean(table.metric), row, table), cells, row.group)
        for row, cells in zip(table.rows, body, strict=True)
    ]
    for baseline in table.baselines:
        value = baseline.metrics.get(table.metric, float("nan"))
        lines.append((_sort_key(value, baseline, table), _baseline_row(baseline, table, columns), None))
    lines.sort(key=lambda line: line[0])
    numeric = [column.number and not (i == 1 and table.baselines) for i, column in enumerate(columns)]
    body = [cells for _, cells, _ in lines]
    return Cells(header, body, numeric, [cells[0] == NONE for cells in body], [group for _, _, group in lines])


def config_columns(table: Table) -> list[Column]:
    """Return the columns of the parameters that differ, and of the number of seeds."""
    seeds = Column("n", [str(len(row.group.runs)) for row in table.rows])
    if not table.parameters:
        return [Column("run", [name_of(row.group) for row in table.rows], number=False), seeds]
    names, columns = short_names(table.parameters), []
    for key in table.parameters:
        values = [row.group.params[key] for row in table.rows]
        number = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values if v is not None)
        columns.append(Column(names[key], [format_value(value) for value in values], number))
    return [*columns, seeds]


def ranking_column(table: Table) -> Column:
    """Return the column of the metric of the ranks, with standard deviations or intervals."""
    form = numbers.form_of(table.metric, unit=table.unit, images=table.images)
    cells = [numbers.result(row.group, table.metric, form, interval=row.interval) for row in table.rows]
    return Column(metric_header(table.metric, table), cells, metric=table.metric)


def further_columns(table: Table, *, arrows: bool = False) -> list[Column]:
    """Return the columns of the further metrics.

    Args:
        table: The table.
        arrows: Whether the headers have the unit and an arrow for the better direction.
    """
    columns = []
    for metric in shown_metrics(table):
        form = numbers.form_of(metric, unit=table.unit, images=table.images)
        header = metric_header(metric, table) if arrows else metric_name(metric, table)
        columns.append(Column(header, [form(group.mean(metric)) for group in _groups(table)], metric=metric))
    return columns


def difference_columns(table: Table) -> list[Column]:
    """Return the columns of the difference to the best group and of its p-value, if there are differences."""
    if not table.paired or not table.paired.differences:
        return []
    signed = numbers.form_of(table.metric, unit=table.unit, images=table.images, sign=True)
    least = table.paired.least
    p_values = [
        numbers.p_value(row.difference.p, row.adjusted, least=least) if row.difference else NONE for row in table.rows
    ]
    differences = [numbers.difference(row.difference, signed) for row in table.rows]
    return [Column("Δ to best [95% CI]", differences), Column("p (Holm)", p_values)]


def _fold_columns(table: Table) -> list[Column]:
    """Return the column of the metric of each fold, if the runs are pooled."""
    form = numbers.form_of(table.metric, unit=table.unit, images=table.images)
    of_folds = [group.by_fold(table.metric) for group in _groups(table)]
    if not any(of_folds):
        return []
    cells = [" ".join(map(form, values)) or NONE for values in of_folds]
    return [Column(f"folds 0 to {max(map(len, of_folds)) - 1}", cells)]


def gap_columns(table: Table) -> list[Column]:
    """Return a column for each gap between groups of test images, with the worst and the best group.

    A gap of the metric of the ranks is followed by the age-standardised one. The gaps of other metrics also have the
    values of both groups.
    """
    found = []
    for metric, by in dict.fromkeys(key for row in table.rows for key in row.gaps):
        form = numbers.form_of(metric, unit=table.unit, images=table.images)
        is_main = metric == table.metric
        name = "" if is_main else f" of {find(metric).name}"
        cells = [numbers.gap(row.gaps.get((metric, by)), form, values=not is_main) for row in table.rows]
        of_baselines = {each.name: numbers.gap(each.gaps.get((metric, by)), form) for each in table.baselines}
        found.append(Column(f"gap{name} by {by} [95% CI] (worst, best)", cells, baselines=of_baselines))
        if is_main and any(by in row.standardised for row in table.rows):
            cells = [numbers.gap(row.standardised.get(by), form) for row in table.rows]
            of_baselines = {each.name: numbers.gap(each.standardised.get(by), form) for each in table.baselines}
            header = f"age-standardised gap by {by} [95% CI] (worst, best)"
            found.append(Column(header, cells, baselines=of_baselines))
    return found


def _groups(table: Table) -> list[Group]:
    return [row.group for row in table.rows]


def _cost_columns(table: Table) -> list[Column]:
    """Return the columns of training time and, if they differ, of epochs and parameters."""
    groups = _groups(table)
    epochs = [numbers.amount(group.average("epochs")) for group in groups]
    seconds = [numbers.amount(group.average("timing", "fit_s")) for group in groups]
    size = [numbers.thousands(group.average("params", "total")) for group in groups]
    columns = [Column("epochs", epochs)] if len(set(epochs)) > 1 else []
    columns.append(Column("fit (s)", seconds))
    return [*columns, Column("parameters", size)] if len(set(size)) > 1 else columns


def metric_name(name: str, table: Table) -> str:
    """Return the name of a metric, with the age limit that it depends on if the name has no age."""
    metric = find(name)
    limits = sorted({number(run.result("decision", "age_limit")) or 0.0 for run in table.runs} - {0.0})
    if not (limits and is_decision(name)) or "_at_" in metric.name:
        return metric.name
    return f"{metric.name} (age limit {', '.join(f'{limit:g}' for limit in limits)})"


def metric_header(name: str, table: Table) -> str:
    """Return the header of a metric, with its unit and an arrow for the better direction."""
    metric = find(name)
    unit = f" ({table.unit})" if table.unit and metric.in_unit else ""
    return f"{metric_name(name, table)}{unit}{ARROWS[metric.better]}"


def _sort_key(value: float, line: Row | Baseline, table: Table) -> tuple[int, float, int]:
    """Return the sort key of a line. Baselines are sorted by their metric, after groups with the same value."""
    if not math.isfinite(value):
        return (1 if isinstance(line, Baseline) else 2, 0.0, 0)
    return 0, find(table.metric).cost(value), int(isinstance(line, Baseline))


def _baseline_row(baseline: Baseline, table: Table, columns: Sequence[Column]) -> list[str]:
    cells = [NONE, baseline.name]
    for column in columns[2:]:
        value = baseline.metrics.get(column.metric)
        form = numbers.form_of(column.metric, unit=table.unit, images=table.images)
        cells.append(column.baselines.get(baseline.name, NONE) if value is None else form(value))
    return cells
