"""Learning curves of groups of runs: the mean over seeds per epoch."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from agebench.report.curves import History, epoch_numbers
from agebench.report.outcome import Array
from agebench.report.ranking import BETTER, Mode, robust_range, text_width, wrap_name
from agebench.report.style import COLOURS, GREY, MARKERS, add_note, monospace, new_figure, printable

MAX_COLOURED = 10
NAME_WIDTH = 30  # columns of text
CELL_WIDTH = 24


class _Course(NamedTuple):
    """Mean, minimum and maximum over seeds, and the number of seeds, at each epoch with a value."""

    epochs: Array
    mean: Array
    low: Array
    high: Array
    seeds: Array


def draw_learning_curves(
    groups: Mapping[str, Sequence[History]],
    panels: Mapping[str, str],
    *,
    mode: Mode,
    title: str,
    settings: Mapping[str, Sequence[str]] | None = None,
    note: str = "",
) -> Figure | None:
    """Return a figure with one panel per metric and one line per group: the mean over seeds, with a min-max band.

    A line is dotted from the epoch where some seeds end (early stopping, a crash), because the mean jumps there.
    Epochs without a value are skipped. A diverged value lies outside the axis, so that it does not flatten the others.

    Args:
        groups: Maps a group's name to the history of each seed (one dict per epoch, as for `draw_curves`), best group
            first. The first 10 groups are coloured and named. The others are thin and grey.
        panels: Maps a key of the history to an axis name with its unit, such as `{"val/mae": "mean absolute error on
            val (years)", "train/loss": "training loss"}`. A key without values gives no panel.
        mode: Whether lower (`min`) or higher (`max`) is better in the first panel. In the others, losses, lower is.
        title: Title of the figure.
        settings: Maps a setting, such as `lr`, to its text for each group. With several of them the legend is a table
            of the settings in which the named groups differ, instead of their names.
        note: A warning, printed below the figure.

    Returns:
        The figure, or None if there are no values.
    """
    measured = {
        key for histories in groups.values() for history in histories for row in history for key in row if key in panels
    }
    drawn = [key for key in panels if key in measured]
    if not drawn:
        return None
    courses = {key: [_course(histories, key) for histories in groups.values()] for key in drawn}
    dotted = any(_parts(course)[1].any() for key in drawn for course in courses[key])
    empty = [not any(len(courses[key][i].epochs) for key in drawn) for i in range(len(groups))]
    table = _tabulate(settings or {}, min(len(groups), MAX_COLOURED))
    labels = table.rows if table else [wrap_name(name, NAME_WIDTH, lines=2) for name in groups]
    labels = [f"{label} (no values)" if is_empty else label for label, is_empty in zip(labels, empty, strict=False)]
    handles = _legend(labels, len(groups), dotted=dotted, table=table)
    lines = [line for handle in handles for line in str(handle.get_label()).split("\n")]
    width, height = 0.7 + 0.068 * max(map(text_width, lines)), 0.4 + 0.15 * len(lines) + 0.03 * len(handles)
    panels_width = 4.3 * len(drawn)
    size = (max(panels_width, width), 3.6 + height) if table else (panels_width + width, max(3.6, height))
    figure = new_figure(*size, title)
    for axes, key in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        panel_mode: Mode = mode if key == next(iter(panels)) else "min"
        _draw_panel(axes, courses[key], panel_mode)
        axes.set(xlabel="epoch", ylabel=f"{textwrap.fill(panels[key], 42)}\n{BETTER[panel_mode]}")
    if table:
        figure.legend(handles=handles, loc="outside lower center", prop=monospace(8))
    else:
        figure.legend(handles=handles, loc="outside right center", fontsize=8)
    add_note(figure, note)
    return figure


def _course(histories: Sequence[History], key: str) -> _Course:
    found: dict[int, list[float]] = {}
    for history in histories:
        for epoch, row in zip(epoch_numbers(history), history, strict=True):
            if np.isfinite(value := row.get(key, np.nan)):
                found.setdefault(int(epoch), []).append(value)
    epochs = sorted(found)
    values = [found[epoch] for epoch in epochs]
    of = {name: np.asarray([name(v) for v in values], dtype=np.float64) for name in (np.mean, np.min, np.max)}
    return _Course(np.asarray(epochs), of[np.mean], of[np.min], of[np.max], np.asarray([len(v) for v in values]))


def _parts(course: _Course) -> tuple[Array, Array]:
    """Return two masks over epochs, shape (E,) each: of the solid line and of the dotted line that continues it."""
    places = np.arange(len(course.epochs))
    if not len(places):
        return places.astype(bool), places.astype(bool)
    last = np.flatnonzero(course.seeds == course.seeds.max())[-1]
    return places <= last, (places >= last) & (last < len(places) - 1)


def _style(rank: int) -> dict[str, Any]:
    colour = COLOURS[rank % len(COLOURS)]
    return {
        "color": colour,
        "marker": MARKERS[rank],
        "markerfacecolor": colour if rank < len(COLOURS) else "white",  # because the colours repeat
    }


def _draw_panel(axes: Axes, courses: Sequence[_Course], mode: Mode) -> None:
    # On top are the lines that end first, which longer ones would hide, and of equal ones the best.
    ends = [course.epochs[-1] if len(course.epochs) else 0 for course in courses]
    order = sorted(range(len(courses)), key=lambda rank: (ends[rank], rank))
    for place, rank in reversed(list(enumerate(order))):
        course = courses[rank]
        solid, dotted = _parts(course)
        if not solid.any():
            continue
        if rank >= MAX_COLOURED:
            axes.plot(course.epochs, course.mean, color=GREY, linewidth=0.6, alpha=0.5, zorder=1)
            continue
        every = max(1, len(course.epochs) // 12)
        style = {**_style(rank), "markevery": (rank % every, every)}  # markers of different groups at different epochs
        above = 3 - 0.01 * place
        if course.seeds.max() > 1:
            axes.fill_between(
                course.epochs, course.low, course.high, color=style["color"], alpha=0.15, linewidth=0, zorder=above - 1
            )
        axes.plot(course.epochs[solid], course.mean[solid], zorder=above, **style)
        if dotted.any():
            axes.plot(course.epochs[dotted], course.mean[dotted], linestyle=":", zorder=above, **style)
    epochs = np.concatenate([course.epochs for course in courses])
    if not len(epochs):
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", va="center")
        return
    bands = [end for course in courses[:MAX_COLOURED] for end in (course.low, course.high)]
    drawn = np.concatenate([*bands, *(course.mean for course in courses)])
    low, high = robust_range(drawn, mode)
    pad = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set(xlim=(epochs.min() - 0.5, epochs.max() + 0.5), ylim=(low - pad, high + pad))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.grid(True)


class _Table(NamedTuple):
    """The lines of a table of settings: the names, the values of each group, and those that are equal for all."""

    header: str
    rows: list[str]
    shared: str


def _tabulate(settings: Mapping[str, Sequence[str]], count: int) -> _Table | None:
    """Return a table of the settings in which the first `count` groups differ.

    Returns:
        The table, or None if fewer than two settings differ or if two groups do not differ.
    """
    texts = {key: [printable(value) for value in values[:count]] for key, values in settings.items()}
    columns = [[key, *values] for key, values in texts.items() if len(set(values)) > 1]
    if len(columns) < 2 or len(set(zip(*columns, strict=True))) <= count:
        return None
    rows = ["  ".join(cells).rstrip() for cells in zip(*map(_pad, columns), strict=True)]
    shared = " ".join(f"{key}={values[0]}" for key, values in texts.items() if len(set(values)) == 1)
    width = max(60, *map(text_width, rows))
    return _Table(rows[0], rows[1:], wrap_name(f"all of these: {shared}", width, lines=3) if shared else "")


def _pad(cells: Sequence[str]) -> list[str]:
    """Return cells of equal width; a longer one is shortened in the middle."""
    short = [wrap_name(cell, CELL_WIDTH, lines=1) for cell in cells]
    width = max(map(text_width, short))
    return [cell + " " * (width - text_width(cell)) for cell in short]


def _legend(labels: Sequence[str], count: int, *, dotted: bool, table: _Table | None) -> list[Line2D]:
    """Return an entry for each named group, for the others and for dotted lines, and the other lines of a table."""
    named = labels[:MAX_COLOURED]
    handles = [Line2D([], [], label=label, **_style(rank)) for rank, label in enumerate(named)]
    if count > len(named):
        handles.append(Line2D([], [], color=GREY, linewidth=0.6, label=f"{count - len(named)} other groups"))
    if dotted:
        handles.append(Line2D([], [], color=GREY, linestyle=":", label="mean over fewer seeds"))
    if table:
        handles.insert(0, Line2D([], [], linestyle="none", label=table.header))
        handles += [Line2D([], [], linestyle="none", label=table.shared)] if table.shared else []
    return handles
