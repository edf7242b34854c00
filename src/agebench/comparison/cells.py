"""A table of groups as cells of text, and what is said beneath it: what Markdown and HTML share."""

import math
from dataclasses import dataclass

from agebench.comparison.groups import LOWER, count, goodness
from agebench.comparison.parameters import short_names, tell
from agebench.comparison.tables import Baseline, Row, Table, name_of, shown_metrics
from agebench.metrics.bootstrap import resamples_for

FINE = 2_000  # test images from which on a share has a fourth digit
NONE = "-"


@dataclass(frozen=True)
class Cells:
    """Text in rows and columns.

    Args:
        header: One a column.
        rows: As long as the header each.
        numbers: Whether each column is one of numbers.
        quiet: Whether each row has no rank.
    """

    header: list[str]
    rows: list[list[str]]
    numbers: list[bool]
    quiet: list[bool]


def heading(table: Table) -> str:
    """Return what a table is of."""
    images = "" if table.images is None else f": {count(table.images, 'test image')}"
    people = table.rows[0].group.runs[0].told("bootstrap", "groups")
    over = table.rows[0].group.runs[0].told("bootstrap", "over")
    whose = f" of {people:,} people" if over == "identity" and isinstance(people, int) else ""
    return f"{table.protocol}{images}{whose} (split {table.split_sha[:8]})"


def lay_out(table: Table) -> Cells:
    """Return a table's cells: rank, parameters, seeds, the metric, its difference to the best, and what else is told.

    Columns of which every row says the same are left to the caption.
    """
    names = short_names(table.parameters)
    further = shown_metrics(table)
    columns: list[tuple[str, bool, list[str]]] = [("rank", True, [_rank(row) for row in table.rows])]
    if table.parameters:
        for key in table.parameters:
            values = [row.group.params[key] for row in table.rows]
            numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values if v is not None)
            columns.append((names[key], numeric, [tell(value) for value in values]))
    else:
        columns.append(("run", False, [name_of(row.group) for row in table.rows]))
    columns.append(("n", True, [str(len(row.group.runs)) for row in table.rows]))
    columns.append((_metric_header(table), True, [_figure(row, table) for row in table.rows]))
    if table.paired and table.paired.differences:
        least = table.paired.least
        columns.append(("less the best [95%]", True, [_difference(row, table) for row in table.rows]))
        columns.append(("p (Holm)", True, [_p(row, least) for row in table.rows]))
    for metric in further:
        means = [row.group.mean(metric) for row in table.rows]
        columns.append((_short(metric), True, [_value(mean, metric, table) for mean in means]))
    epochs = [_count(row.group.average("epochs")) for row in table.rows]
    if len(set(epochs)) > 1:
        columns.append(("epochs", True, epochs))
    columns.append(("fit s", True, [_count(row.group.average("timing", "fit_s")) for row in table.rows]))
    size = [_thousands(row.group.average("params", "total")) for row in table.rows]
    if len(set(size)) > 1:
        columns.append(("weights", True, size))
    header = [name for name, _, _ in columns]
    body = [list(row) for row in zip(*(cells for _, _, cells in columns), strict=True)]
    lines = [
        (_place(row.group.mean(table.metric), row, table), cells) for row, cells in zip(table.rows, body, strict=True)
    ]
    for baseline in table.baselines:
        figure = baseline.figures.get(table.metric, float("nan"))
        lines.append((_place(figure, baseline, table), _baseline_row(baseline, table, header)))
    lines.sort(key=lambda line: line[0])
    numbers = [number and not (i == 1 and table.baselines) for i, (_, number, _) in enumerate(columns)]
    return Cells(header, [cells for _, cells in lines], numbers, [cells[0] == NONE for _, cells in lines])


def caption(table: Table) -> str:
    """Return how to read a table."""
    metric = _short(table.metric)
    best = "nearest to zero is best" if metric == "bias" else "less is better" if metric in LOWER else "more is better"
    seeds = {len(row.group.runs) for row in table.rows}
    said = [f"Ranked by {metric}, {best}."]
    if max(seeds) > 1:
        said.append("With n > 1 seeds: mean ± standard deviation over seeds.")
    alone = [row.group for row in table.rows if len(row.group.runs) == 1 and row.group.interval(table.metric)]
    if alone:
        about = alone[0].runs[0].told("bootstrap")
        over = ""
        if isinstance(about, dict) and isinstance(about.get("groups"), int):
            whom = "people" if about.get("over") == "identity" else "images"
            drawn = about.get("resamples") or resamples_for(about["groups"])
            over = f", {drawn:,} resamples of {about['groups']:,} {whom}"
        said.append(f"With {'one' if max(seeds) > 1 else 'one seed'}: its 95% bootstrap interval{over}.")
    if table.paired and table.paired.differences:
        pair, compared = table.paired, count(len(table.paired.differences), "comparison")
        said.append(
            f"The difference to the best is taken on each of the same images, averaged over seeds: 95% interval and p "
            f"by {pair.resamples:,} paired bootstrap resamples of {pair.drawn:,} {pair.over}, p corrected for "
            f"{compared} after Holm. They tell of other {pair.over}, not of other seeds. The best was chosen on these "
            "same images, which flatters it."
        )
    every = []
    size = {_count(row.group.average("params", "total")) for row in table.rows}
    epochs = {_count(row.group.average("epochs")) for row in table.rows}
    if len(size) == 1 and size != {NONE}:
        every.append(f"{size.pop()} weights")
    if len(epochs) == 1 and epochs != {NONE}:
        told = epochs.pop()
        every.append(f"{told} epoch{'' if told == '1' else 's'}")
    if every:
        said.append(f"Every run: {', '.join(every)}.")
    return " ".join(said)


def _metric_header(table: Table) -> str:
    name = _short(table.metric)
    arrow = "" if name == "bias" else " ↓" if name in LOWER else " ↑"
    unit = f" ({table.unit})" if table.unit and name in ("mae", "rmse", "median_error", "bias", "balanced_mae") else ""
    return f"{name}{unit}{arrow}"


def _rank(row: Row) -> str:
    return NONE if row.rank is None else str(row.rank)


def _figure(row: Row, table: Table) -> str:
    group, metric = row.group, table.metric
    mean = group.mean(metric)
    if not math.isfinite(mean):
        return "n/a"
    text, std, interval = _value(mean, metric, table), group.std(metric), group.interval(metric)
    if std is not None:
        return f"{text} ± {_value(std, metric, table)}"
    if interval is not None:
        return f"{text} [{', '.join(_value(bound, metric, table) for bound in interval)}]"
    return text


def _difference(row: Row, table: Table) -> str:
    if row.difference is None:
        return NONE
    value, *bounds = (
        _signed(x, table.metric, table) for x in (row.difference.value, row.difference.low, row.difference.high)
    )
    return f"{value} [{', '.join(bounds)}]" if math.isfinite(row.difference.low) else value


def _p(row: Row, least: float) -> str:
    if row.difference is None or row.adjusted is None or not math.isfinite(row.adjusted):
        return NONE
    if row.difference.p <= least * (1 + 1e-9):  # as small as resamples can tell: it may be smaller still
        return f"< {_up(row.adjusted)}"
    return f"{row.adjusted:.2f}" if row.adjusted >= 0.095 else f"{row.adjusted:.2g}"


def _up(p: float) -> str:
    """Return a bound with one digit, or two, never below what it stands for."""
    digits = max(0, -math.floor(math.log10(p))) + (1 if p >= 0.001 else 0)
    return f"{math.ceil(p * 10**digits - 1e-3) / 10**digits:g}"


def _value(value: float, metric: str, table: Table) -> str:
    if not math.isfinite(value):
        return "n/a"
    return f"{value:.{_digits(metric, table)}f}"


def _signed(value: float, metric: str, table: Table) -> str:
    return f"{value:+.{_digits(metric, table)}f}" if math.isfinite(value) else "n/a"


def _digits(metric: str, table: Table) -> int:
    name = _short(metric)
    if name in ("mae", "rmse", "median_error", "bias", "balanced_mae"):
        return 2 if table.unit == "years" else 3
    return 4 if (table.images or 0) >= FINE and name not in ("nll", "loss") else 3


def _count(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _thousands(value: float | None) -> str:
    if value is None:
        return NONE
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.0f}"


def _place(figure: float, line: Row | Baseline, table: Table) -> tuple[int, float, int]:
    """Return what to sort lines by: a baseline stands where it would if it had a rank, behind its equals."""
    if not math.isfinite(figure):
        return (1 if isinstance(line, Baseline) else 2, 0.0, 0)
    return 0, goodness(table.metric, figure), int(isinstance(line, Baseline))


def _baseline_row(baseline: Baseline, table: Table, header: list[str]) -> list[str]:
    told = {_short(metric): _value(figure, metric, table) for metric, figure in baseline.figures.items()}
    told[_metric_header(table)] = told.pop(_short(table.metric), NONE)
    return [NONE, baseline.name, *(told.get(name, NONE) for name in header[2:])]


def _short(metric: str) -> str:
    return metric.removeprefix("test/")
