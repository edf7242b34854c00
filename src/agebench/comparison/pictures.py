"""A comparison drawn: the ranking, the learning curves, and the parameters of each group beside its result."""

import csv
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from agebench.comparison.cells import heading
from agebench.comparison.groups import LOWER, Group
from agebench.comparison.parameters import short_names
from agebench.comparison.tables import Comparison, Table, name_of
from agebench.runs.read import Run

log = logging.getLogger(__name__)

Mode = Literal["min", "max"]


def draw_pictures(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Write ranking.png, curves.png and parallel.png of each table, as far as there is something to draw.

    Those of a second table are called ranking-2.png and so on. A picture that cannot be drawn is left out with a
    warning, for the tables are complete without it.

    Returns:
        What the pictures show, and where they are.
    """
    from agebench.report.style import plot_style

    drawn: dict[str, Path] = {}
    ways: dict[str, Callable[[Table], Any]] = {"ranking": _ranking, "curves": _curves, "parallel": _parallel}
    with plot_style():
        for i, table in enumerate(comparison.tables, start=1):
            for name, draw in ways.items():
                path = folder / (f"{name}.png" if i == 1 else f"{name}-{i}.png")
                path.unlink(missing_ok=True)  # an older one would be taken for this one
                try:
                    figure = draw(table)
                    if figure is not None:
                        figure.savefig(path)
                        drawn[f"{name}: {heading(table)}"] = path
                except Exception as error:  # whatever a figure trips over
                    log.warning("%s is left out: %s: %s", path.name, type(error).__name__, error)
    return drawn


def _ranking(table: Table) -> Any:
    from agebench.report.ranking import Ranked, draw_ranking

    if len(table.rows) < 2:
        return None
    values = [_oriented(row.group.values(table.metric), table) for row in table.rows]
    names = _names([row.group for row in table.rows])
    # Of the bias its size is drawn, of which the interval is none.
    intervals = [None if _short(table) == "bias" else row.group.interval(table.metric) for row in table.rows]
    known = [(each.name, each.figures[table.metric]) for each in table.baselines if table.metric in each.figures]
    return draw_ranking(
        [Ranked(*each) for each in zip(names, values, intervals, strict=True)],
        _axis(table),
        mode=_mode(table),
        title=heading(table),
        reference=known[0] if known else None,
        note=next((note for note in table.notes if "leaks" in note), ""),
    )


def _curves(table: Table) -> Any:
    from agebench.report.learning_curves import draw_learning_curves

    runs = [row.group.runs for row in table.rows]
    histories = [[history for run in group if (history := _history(run))] for group in runs]
    groups = dict(zip(_names([row.group for row in table.rows]), histories, strict=True))
    monitors = [(str(run.told("best", "monitor")), run.told("best", "mode")) for group in runs for run in group]
    monitor, mode = max(set(monitors), key=monitors.count)
    panels = {monitor: _named(monitor, table.unit)}
    if "head" not in table.parameters:  # which have losses that cannot be compared
        panels["train/loss"] = "training loss"
    drawn = {name: each for name, each in groups.items() if each}
    if not drawn:
        return None
    return draw_learning_curves(drawn, panels, mode="min" if mode == "min" else "max", title=heading(table))


def _parallel(table: Table) -> Any:
    from agebench.report.parallel_coordinates import draw_parallel

    if len(table.rows) < 3 or len(table.parameters) < 2:  # the ranking says as much
        return None
    names = short_names(table.parameters)
    points = [{names[key]: _plain(row.group.params[key]) for key in table.parameters} for row in table.rows]
    values = [_oriented([row.group.mean(table.metric)], table)[0] for row in table.rows]
    return draw_parallel(points, values, metric=_axis(table), mode=_mode(table), title=heading(table))


def _names(groups: Sequence[Group]) -> list[str]:
    """Return what to call groups, no two alike."""
    names = [name_of(group) for group in groups]
    return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _history(run: Run) -> list[dict[str, float]]:
    """Return the rows of the metrics.csv of a run, or of the run that an evaluation tested; none if it has none."""
    try:
        with ((run.evaluated or run.folder) / "metrics.csv").open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
        return [{key: float(value) for key, value in row.items() if key and value} for row in rows]
    except (OSError, ValueError, TypeError, csv.Error):
        return []


def _oriented(values: Sequence[float], table: Table) -> list[float]:
    return [abs(value) for value in values] if _short(table) == "bias" else list(values)


def _mode(table: Table) -> Mode:
    return "min" if _short(table) in (*LOWER, "bias") else "max"


def _axis(table: Table) -> str:
    return _named(table.metric, table.unit)


def _named(metric: str, unit: str) -> str:
    part, _, name = metric.partition("/")
    of_unit = f" ({unit})" if unit and name in ("mae", "rmse", "median_error", "bias", "balanced_mae") else ""
    return f"{'size of the ' if name == 'bias' else ''}{name} on {part}{of_unit}"


def _short(table: Table) -> str:
    return table.metric.removeprefix("test/")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
