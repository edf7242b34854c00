"""How fast groups of runs learn: the mean over their seeds, epoch by epoch."""

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
from agebench.report.ranking import BETTER, Mode, shown_range, wrapped
from agebench.report.style import COLOURS, GREY, MARKERS, add_note, new_figure

COLOURED_MOST = 10


class _Course(NamedTuple):
    """Mean, lowest and highest over the seeds at each epoch that any of them measured, and the seeds behind it."""

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
    """Draw a panel a metric, in it a line a group: the mean over its seeds, in a band from their lowest to highest.

    A line is dotted from where fewer seeds are left than before (early stopping, a crash), for there the mean jumps.
    An epoch without a value is passed over; one so bad that the others would be flat beside it is off the axis.

    Args:
        groups: The history of each seed (one dict an epoch, as for `draw_curves`) by the group's name, best first. The
            first 10 are coloured and named, the others are thin and grey.
        panels: The axis name with its unit by the key in the history, such as `{"val/mae": "mean absolute error on val
            (years)", "train/loss": "training loss"}`. A key that no run has measured gives no panel.
        mode: Whether low (`min`) or high (`max`) is good in the first panel; in the others, losses, low is.
        title: Printed on top.
        note: What nobody may overlook, printed below in the colour of a warning.

    Returns:
        None if nothing was measured.
    """
    measured = {
        key for histories in groups.values() for history in histories for row in history for key in row if key in panels
    }
    drawn = [key for key in panels if key in measured]
    if not drawn:
        return None
    courses = {key: [_course(histories, key) for histories in groups.values()] for key in drawn}
    silent = [not any(len(courses[key][i].epochs) for key in drawn) for i in range(len(groups))]
    names = [f"{name} (no value)" if none else name for name, none in zip(groups, silent, strict=True)]
    handles = _legend(names, dotted=any(_parts(course)[1].any() for key in drawn for course in courses[key]))
    legend_width = 0.7 + 0.068 * max(len(line) for handle in handles for line in str(handle.get_label()).split("\n"))
    legend_height = 0.4 + 0.15 * sum(str(handle.get_label()).count("\n") + 1.2 for handle in handles)
    figure = new_figure(4.3 * len(drawn) + legend_width, max(3.6, legend_height), title)
    for axes, key in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        wanted: Mode = mode if key == next(iter(panels)) else "min"
        _draw_panel(axes, courses[key], wanted)
        axes.set(xlabel="epoch", ylabel=f"{textwrap.fill(panels[key], 42)}\n{BETTER[wanted]}")
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
    """Return which epochs belong to the solid line and which to the dotted one that starts where it ends."""
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
        "markerfacecolor": colour if rank < len(COLOURS) else "white",  # as colours come round again
    }


def _draw_panel(axes: Axes, courses: Sequence[_Course], mode: Mode) -> None:
    for rank, course in reversed(list(enumerate(courses))):  # the best is drawn last, on top
        solid, dotted = _parts(course)
        if not solid.any():
            continue
        if rank >= COLOURED_MOST:
            axes.plot(course.epochs, course.mean, color=GREY, linewidth=0.6, alpha=0.5, zorder=1)
            continue
        every = max(1, len(course.epochs) // 12)
        style = {**_style(rank), "markevery": (rank % every, every)}  # not all at the same epochs
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
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", va="center")
        return
    bands = [end for course in courses[:COLOURED_MOST] for end in (course.low, course.high)]
    ends = np.concatenate([*bands, *(course.mean for course in courses)])
    low, high = shown_range(ends, mode)
    pad = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set(xlim=(epochs.min() - 0.5, epochs.max() + 0.5), ylim=(low - pad, high + pad))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.grid(True)


def _legend(names: Sequence[str], *, dotted: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], label=wrapped(name, 30, lines=2), **_style(rank))
        for rank, name in enumerate(names[:COLOURED_MOST])
    ]
    if len(names) > COLOURED_MOST:
        handles.append(Line2D([], [], color=GREY, linewidth=0.6, label=f"the other {len(names) - COLOURED_MOST}"))
    if dotted:
        handles.append(Line2D([], [], color=GREY, linestyle=":", label="fewer seeds are left"))
    return handles
