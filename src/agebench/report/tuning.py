"""A metric over a numeric setting, such as accuracy over the learning rate: one line per combination of the others."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from agebench.report.outcome import Array
from agebench.report.ranking import BETTER, Mode, wrap_name
from agebench.report.style import COLOURS, MARKERS, add_finding, add_note, new_figure, printable

MAX_LINES = 8
MAX_TICKS = 12
WIDE = 30  # ratio of the values from which the axis is logarithmic


class _Line(NamedTuple):
    """The mean and standard deviation over seeds at each value; the deviation of a single seed is 0."""

    name: str
    values: Array
    mean: Array
    std: Array


def draw_tuning(
    lines: Mapping[str, Mapping[float, Sequence[float]]],
    *,
    setting: str,
    metric: str,
    mode: Mode,
    title: str,
) -> Figure | None:
    """Return a figure with a line per combination of settings: the mean over seeds, with bars of ± 1 std.

    The axis is logarithmic if all values are above 0 and the largest is at least 30 times the smallest. Values that
    diverged are left out, with a note.

    Args:
        lines: Maps the name of a combination to the metric of each seed, by the value of the setting. Of more than 8
            lines those with the best means are drawn, with a note.
        setting: Name of the horizontal axis, such as `learning rate (optim.lr)`.
        metric: Name of the vertical axis with its unit.
        mode: Whether lower (`min`) or higher (`max`) is better.
        title: Title of the figure.

    Returns:
        The figure, or None if no seed has a result.
    """
    found = [line for name, seeds in lines.items() if len((line := _summarise(name, seeds)).values)]
    if not found:
        return None
    sign = 1 if mode == "min" else -1
    found.sort(key=lambda line: float((sign * line.mean).min()))
    shown, best = found[:MAX_LINES], found[0]
    figure = new_figure(6.4, 4.0 + 0.17 * ((len(shown) + 1) // 2), title)
    axes = figure.subplots()
    for i, line in reversed(list(enumerate(shown))):  # the best is drawn last, on top of the others
        colour = COLOURS[i % len(COLOURS)]
        face = colour if i < len(COLOURS) else "white"  # because the colours repeat
        style: dict[str, Any] = {"color": colour, "marker": MARKERS[i], "markerfacecolor": face, "markersize": 6}
        axes.errorbar(line.values, line.mean, yerr=line.std, capsize=3, zorder=3 - 0.01 * i, label=line.name, **style)
    _set_scale(axes, np.unique(np.concatenate([line.values for line in shown])))
    axes.set(xlabel=setting, ylabel=f"{metric}\n{BETTER[mode]}")
    axes.grid(True)
    if len(shown) > 1:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2, fontsize=8)
    place = int((sign * best.mean).argmin())
    of = f"{best.name} at " if len(found) > 1 else ""
    several = any(len(seeds) > 1 for each in lines.values() for seeds in each.values())
    bars = " Bars: ± 1 standard deviation over seeds." if several else ""
    add_finding(figure, f"Best: {of}{best.values[place]:g}, {best.mean[place]:.4g}.{bars}")
    add_note(figure, _note(lines, len(found)))
    return figure


def _summarise(name: str, seeds: Mapping[float, Sequence[float]]) -> _Line:
    finite = {value: each[np.isfinite(each)] for value, each in ((v, np.asarray(s)) for v, s in sorted(seeds.items()))}
    known = {value: each for value, each in finite.items() if len(each)}
    std = [each.std(ddof=1) if len(each) > 1 else 0.0 for each in known.values()]
    return _Line(
        wrap_name(name, 44, lines=2),
        np.array(list(known), dtype=np.float64),
        np.array([each.mean() for each in known.values()]),
        np.array(std),
    )


def _set_scale(axes: Axes, values: Array) -> None:
    """Set the scale of the axis, with a tick at each value if they are few."""
    if values[0] > 0 and values[-1] >= WIDE * values[0]:
        axes.set_xscale("log")
    elif values[0] == 0 and len(values) > 2 and values[-1] >= WIDE * values[1]:
        axes.set_xscale("symlog", linthresh=values[1])
    if len(values) <= MAX_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(values.tolist()))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _note(lines: Mapping[str, Mapping[float, Sequence[float]]], count: int) -> str:
    lost = sum(not np.isfinite(value) for each in lines.values() for seeds in each.values() for value in seeds)
    notes = [f"only the best {MAX_LINES} of {count} lines are shown"] if count > MAX_LINES else []
    notes += [f"{lost} run{' is' if lost == 1 else 's are'} left out: no result"] if lost else []
    return printable(" · ".join(notes))
