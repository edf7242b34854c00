"""Metrics by group, with their intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agebench.files import atomic_write
from agebench.report.style import COLOURS, GREY, MARKERS, add_note, new_figure, plot_style, printable

MAX_ROWS = 60  # groups of a figure; more are hard to read


class Panel(NamedTuple):
    """A panel of the figure.

    Args:
        axis: The name of its axis.
        overall: The value of the metric for all images, a vertical line.
        gaps: A text for the gap of each column.
    """

    axis: str
    overall: float
    gaps: Sequence[str]


def write_groups(
    folder: Path,
    table: tuple[Sequence[str], Sequence[Sequence[object]]],
    panels: Mapping[str, Panel],
    *,
    title: str,
) -> Path | None:
    """Write by_group.png into a folder, which is created, and return its path; None if no group has metrics.

    Args:
        folder: Output folder.
        table: The columns and rows of by_group.csv.
        panels: The metrics to draw.
        title: Title of the figure.
    """
    with plot_style():
        figure = draw_table(table, panels, title=title)
        if figure is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "by_group.png") as part:
            figure.savefig(part, format="png")
    return folder / "by_group.png"


def draw_table(
    table: tuple[Sequence[str], Sequence[Sequence[object]]], panels: Mapping[str, Panel], *, title: str
) -> Figure | None:
    """Return the figure of by_group.csv, see write_groups; None if no group has metrics."""
    header, body = table
    rows = [dict(zip(header, map(str, row), strict=True)) for row in body]
    rows = [row for row in rows if any(row[name] for name in panels)]
    if not rows:
        return None
    return draw_groups(rows, panels, title=title)


def draw_groups(rows: Sequence[Mapping[str, str]], panels: Mapping[str, Panel], *, title: str) -> Figure:
    """Return a figure with a panel per metric, in which each group has a marker and its 95% interval.

    Args:
        rows: Rows of by_group.csv. Groups with a note have an empty marker.
        panels: The metrics to draw.
        title: Title of the figure.
    """
    shown = rows[:MAX_ROWS]
    columns = list(dict.fromkeys(row["by"] for row in shown))
    places = [i + 0.8 * columns.index(row["by"]) for i, row in enumerate(shown)]  # a space between two columns
    labels = [f"{printable(row['group'], 40)} ({row['people'] or row['images']})" for row in shown]
    width = 0.5 + 0.07 * max(map(len, labels)) + 3.2 * len(panels)
    figure = new_figure(width, 1.6 + 0.2 * (places[-1] + 1) + 0.13 * len(columns), title)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (metric, panel) in zip(all_axes, panels.items(), strict=True):
        axes.axvline(panel.overall, color=GREY, linestyle="--", linewidth=1, label="all images")
        for row, place in zip(shown, places, strict=True):
            if row[metric]:
                _draw_group(axes, row, metric, place, columns.index(row["by"]))
        heading = "largest difference between compared groups [95%], p (Holm)"
        heading = heading if panel.gaps else "not compared: too few images"
        axes.set_title("\n".join([heading, *panel.gaps]), fontsize=7.5)
        axes.set_xlabel(panel.axis)
        axes.grid(True, axis="x")
    all_axes[0].set_yticks(places, labels)
    all_axes[0].set_ylim(places[-1] + 0.7, -0.7)
    all_axes[0].legend(loc="best", fontsize=8)
    if len(shown) < len(rows):
        add_note(figure, f"{len(rows) - len(shown)} more groups are in by_group.csv")
    return figure


def _draw_group(panel: Axes, row: Mapping[str, str], metric: str, place: float, column: int) -> None:
    colour = COLOURS[column % len(COLOURS)]
    if row[f"{metric}_low"]:
        panel.plot([float(row[f"{metric}_{end}"]) for end in ("low", "high")], [place, place], color=colour)
    panel.plot(
        float(row[metric]),
        place,
        color=colour,
        marker=MARKERS[column % len(MARKERS)],
        markerfacecolor="white" if row["note"] else colour,
        linestyle="",
    )
