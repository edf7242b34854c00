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
from agebench.report.ranking import BETTER, Mode, robust_range, wrap_name
from agebench.report.style import COLOURS, GREY, MARKERS, add_note, new_figure

MAX_COLOURED = 10


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
    empty = [not any(len(courses[key][i].epochs) for key in drawn) for i in range(len(groups))]
    names = [f"{name} (no values)" if is_empty else name for name, is_empty in zip(groups, empty, strict=True)]
    handles = _legend(names, dotted=any(_parts(course)[1].any() for key in drawn for course in courses[key]))
    legend_width = 0.7 + 0.068 * max(len(line) for handle in handles for line in str(handle.get_label()).split("\n"))
    legend_height = 0.4 + 0.15 * sum(str(handle.get_label()).count("\n") + 1.2 for handle in handles)
    figure = new_figure(4.3 * len(drawn) + legend_width, max(3.6, legend_height), title)
    for axes, key in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        panel_mode: Mode = mode if key == next(iter(panels)) else "min"
        _draw_panel(axes, courses[key], panel_mode)
        axes.set(xlabel="epoch", ylabel=f"{textwrap.fill(panels[key], 42)}\n{BETTER[panel_mode]}")
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
    for rank, course in reversed(list(enumerate(courses))):  # the best is drawn last, on top of the others
        solid, dotted = _parts(course)
        if not solid.any():
            continue
        if rank >= MAX_COLOURED:
            axes.plot(course.epochs, course.mean, color=GREY, linewidth=0.6, alpha=0.5, zorder=1)
            continue
        every = max(1, len(course.epochs) // 12)
        style = {**_style(rank), "markevery": (rank % every, every)}  # markers of different groups at different epochs
        above = 3 - 0.01 * rank
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
    ends = np.concatenate([*bands, *(course.mean for course in courses)])
    low, high = robust_range(ends, mode)
    pad = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set(xlim=(epochs.min() - 0.5, epochs.max() + 0.5), ylim=(low - pad, high + pad))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.grid(True)


def _legend(names: Sequence[str], *, dotted: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], label=wrap_name(name, 30, lines=2), **_style(rank))
        for rank, name in enumerate(names[:MAX_COLOURED])
    ]
    if len(names) > MAX_COLOURED:
        handles.append(Line2D([], [], color=GREY, linewidth=0.6, label=f"{len(names) - MAX_COLOURED} other groups"))
    if dotted:
        handles.append(Line2D([], [], color=GREY, linestyle=":", label="mean over fewer seeds"))
    return handles
