"""The figures of a comparison: ranking, tuning of a setting, learning curves and parallel coordinates."""

import csv
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agebench.comparison.caption import heading
from agebench.comparison.groups import Group, name_of
from agebench.comparison.parameters import Parameters, format_value, short_names
from agebench.comparison.tables import Comparison, Table
from agebench.files import read_csv
from agebench.metrics.table import axis_name, find
from agebench.runs.read import Run

log = logging.getLogger(__name__)

MIN_VALUES = 3  # of a setting that has a picture of its own
SETTINGS = {
    "optim.lr": "learning rate (optim.lr)",
    "optim.weight_decay": "weight decay (optim.weight_decay)",
    "optim.momentum": "momentum (optim.momentum)",
    "data.batch_size": "batch size in images (data.batch_size)",
    "data.image_size": "image size in px (data.image_size)",
    "trainer.max_epochs": "epochs (trainer.max_epochs)",
}


def draw_pictures(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Write ranking.png, tuning.png, curves.png and parallel.png of each table that has enough data for them.

    The figures of a second table are ranking-2.png and so on. A figure that cannot be drawn is skipped with a warning.

    Returns:
        The path of each figure by its title.
    """
    from agebench.report.style import plot_style

    drawn: dict[str, Path] = {}
    ways: dict[str, Callable[[Table], Any]] = {
        "ranking": _ranking,
        "tuning": _tuning,
        "curves": _curves,
        "parallel": _parallel,
    }
    with plot_style():
        for i, table in enumerate(comparison.tables, start=1):
            for name, draw in ways.items():
                path = folder / (f"{name}.png" if i == 1 else f"{name}-{i}.png")
                path.unlink(missing_ok=True)  # so that no old figure remains
                try:
                    figure = draw(table)
                    if figure is not None:
                        figure.savefig(path)
                        drawn[f"{name}: {heading(table)}"] = path
                except Exception as error:  # the tables are complete without figures
                    log.warning("%s is skipped: %s: %s", path.name, type(error).__name__, error)
    return drawn


def _ranking(table: Table) -> Any:
    from agebench.report.ranking import Ranked, draw_ranking

    if len(table.rows) < 2:
        return None
    values = [_oriented(row.group.values(table.metric), table) for row in table.rows]
    names = _names([row.group for row in table.rows])
    # The figure shows the absolute value of a bias, which has no interval.
    signed = find(table.metric).better == "nearest to zero"
    intervals = [None if signed else row.group.interval(table.metric) for row in table.rows]
    known = [(each.name, each.metrics[table.metric]) for each in table.baselines if table.metric in each.metrics]
    return draw_ranking(
        [Ranked(*each) for each in zip(names, values, intervals, strict=True)],
        axis_name(table.metric, table.unit),
        mode=find(table.metric).mode,
        title=heading(table),
        reference=known[0] if known else None,
        note=next((note for note in table.notes if "leaks" in note), ""),
    )


def _tuning(table: Table) -> Any:
    from agebench.report.tuning import draw_tuning

    key = tuned_key([row.group.params for row in table.rows])
    if key is None:
        return None
    lines: dict[str, dict[float, list[float]]] = {}
    for row in table.rows:
        others = {name: value for name, value in row.group.params.items() if name != key}
        line = lines.setdefault(name_of(Group(row.group.runs, others)), {})
        line.setdefault(float(row.group.params[key]), []).extend(_oriented(row.group.values(table.metric), table))
    if max(map(len, lines.values())) < MIN_VALUES:  # a random search: no two points differ in the setting alone
        return None
    return draw_tuning(
        lines,
        setting=SETTINGS.get(key, key),
        metric=axis_name(table.metric, table.unit),
        mode=find(table.metric).mode,
        title=heading(table),
    )


def tuned_key(params: Sequence[Parameters]) -> str | None:
    """Return the numeric parameter with the most values, at least three; None if there is none."""
    found: dict[str, int] = {}
    for key in params[0] if params else ():
        values = [each[key] for each in params]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            found[key] = len(set(values))
    best = max(found, key=lambda key: found[key], default=None)
    return best if best is not None and found[best] >= MIN_VALUES else None


def _curves(table: Table) -> Any:
    from agebench.report.learning_curves import draw_learning_curves

    runs = [row.group.runs for row in table.rows]
    trained = [[each for run in group for each in run.folds or (run,)] for group in runs]
    histories = [[history for run in group if (history := _history(run))] for group in trained]
    rows = [row for row, found in zip(table.rows, histories, strict=True) if found]
    monitors = [(str(run.result("best", "monitor")), run.result("best", "mode")) for group in runs for run in group]
    monitor, mode = max(set(monitors), key=monitors.count)
    panels = {monitor: axis_name(monitor, table.unit)}
    if "head" not in table.parameters:  # losses of different heads are not comparable
        panels["train/loss"] = "training loss"
    if not rows:
        return None
    names = short_names(table.parameters)
    return draw_learning_curves(
        dict(zip(_names([row.group for row in rows]), filter(None, histories), strict=True)),
        panels,
        mode="min" if mode == "min" else "max",
        title=heading(table),
        settings={names[key]: [format_value(row.group.params[key]) for row in rows] for key in table.parameters},
    )


def _parallel(table: Table) -> Any:
    from agebench.report.parallel_coordinates import draw_parallel

    if len(table.rows) < 3 or len(table.parameters) < 2:  # the ranking shows the same
        return None
    names = short_names(table.parameters)
    points = [{names[key]: _plain(row.group.params[key]) for key in table.parameters} for row in table.rows]
    values = [_oriented([row.group.mean(table.metric)], table)[0] for row in table.rows]
    return draw_parallel(
        points, values, metric=axis_name(table.metric, table.unit), mode=find(table.metric).mode, title=heading(table)
    )


def _names(groups: Sequence[Group]) -> list[str]:
    """Return unique names of the groups."""
    names = [name_of(group) for group in groups]
    return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _history(run: Run) -> list[dict[str, float]]:
    """Return the rows of metrics.csv of a run, or of the evaluated run; no rows if it cannot be read."""
    try:
        rows = read_csv((run.evaluated or run.folder) / "metrics.csv")
        return [{key: float(value) for key, value in row.items() if key and value} for row in rows]
    except (OSError, ValueError, TypeError, csv.Error):
        return []


def _oriented(values: Sequence[float], table: Table) -> list[float]:
    return [find(table.metric).oriented(value) for value in values]


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
