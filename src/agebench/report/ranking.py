"""Groups of runs from best to worst: each one's mean, how sure it is, and every seed behind it."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agebench.report.outcome import Array
from agebench.report.style import COLOURS, GREY, add_note, new_figure, printable

Mode = Literal["min", "max"]
BETTER = {"min": "lower is better", "max": "higher is better"}
ROWS_MOST = 60
NAME_WIDTH = 42  # columns a line


class Ranked(NamedTuple):
    """What one group of runs reached.

    Args:
        name: What the group is called; a long one is wrapped, then shortened in its middle.
        values: The metric of each seed; NaN for a run without a result.
        interval: The ends of a 95% interval of the mean, if one is known; drawn with caps.
    """

    name: str
    values: Sequence[float]
    interval: tuple[float, float] | None = None


class _Row(NamedTuple):
    name: str
    seeds: Array
    runs: int
    mean: float
    std: float
    interval: tuple[float, float] | None


def draw_ranking(
    groups: Sequence[Ranked],
    metric: str,
    *,
    mode: Mode,
    title: str,
    reference: tuple[str, float] | None = None,
    note: str = "",
) -> Figure:
    """Draw one line a group, the best on top: its mean, its interval, ± one standard deviation, each seed's value.

    The standard deviation is the sample's (n - 1). A value so bad that the others would be one dot beside it is an
    arrow at the axis's end; its number stands at the right as everybody's.

    Args:
        groups: In any order, for they are sorted by their mean; beyond 60 the best 60 are drawn and a note says so.
        metric: The axis's name with its unit, such as `mean absolute error on test (years)`.
        mode: Whether the lowest mean is best (`min`) or the highest (`max`).
        title: Printed on top.
        reference: Name and value of a dashed line, such as `("always the median", 12.15)`.
        note: What nobody may overlook, printed below in the colour of a warning.

    Raises:
        ValueError: If there are no groups.
    """
    if not groups:
        raise ValueError("a ranking needs a group, got none")
    rows = sorted(map(_summarise, groups), key=lambda row: _badness(row, mode))  # stable: ties stay as they came
    if len(rows) > ROWS_MOST:
        note = " · ".join(filter(None, [note, f"the best {ROWS_MOST} of {len(rows)} groups are drawn"]))
        rows = rows[:ROWS_MOST]
    names = [wrapped(row.name, NAME_WIDTH, lines=2) for row in rows]
    row_height = 0.36 if any("\n" in name for name in names) else 0.24  # inches
    longest = max(columns(line) for name in names for line in name.split("\n"))
    figure = new_figure(5.6 + 0.075 * longest, 1.9 + row_height * len(rows), title)
    axes = figure.add_subplot()
    low, high = _ends(rows, mode)
    if reference is not None:
        low, high = _draw_reference(axes, *reference, low=low, high=high)
    pad = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    _draw_rows(axes, rows, low=low - pad / 2, high=high + pad / 2)
    axes.set_yticks(range(len(rows)), names, linespacing=0.95)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(low - pad, high + pad), ylim=(len(rows) - 0.4, -0.6), xlabel=f"{metric}, {BETTER[mode]}")
    axes.grid(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8, borderaxespad=0.2)
    add_note(figure, note)
    return figure


def columns(text: str) -> int:
    """Return the width of a text in columns; a kanji or kana takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def wrapped(name: str, width: int, *, lines: int) -> str:
    """Break a name into at most `lines` lines of `width` columns; what does not fit loses its middle.

    Breaks come after a space, comma, underscore or slash, and after the full stop of `optim.lr` but not of `0.5`.
    """
    clean = printable(name)
    if columns(clean) > width * lines:
        clean = _without_middle(clean, width * lines)
    parts = re.split(r"(?<=[ ,_/])|(?<=\.)(?=[^\W\d])", clean)
    broken = _fill(parts, width)
    if len(broken) > lines:  # the ends of its lines were wasted
        broken = _fill(list(_without_middle(clean, width * lines - lines)), width)
    return "\n".join(line.strip() for line in broken)


def shown_range(values: Array, mode: Mode) -> tuple[float, float]:
    """Return the ends of an axis for any values: all finite ones, but for those far worse than the better half.

    Far is 25 times as far from the best as the median, and also nine times the best itself: in a sweep in which some
    runs diverge, the errors 4.5, 4.6, 5 and 1e6 are drawn from 4.5 to 5. Without a finite value it is 0 to 1.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    badness = np.sort(finite if mode == "min" else -finite)
    best, median = badness[0], badness[(len(badness) - 1) // 2]
    near = badness[badness <= best + max(25 * (median - best), 9 * abs(best))]
    ends = near if mode == "min" else -near
    return float(ends.min()), float(ends.max())


def _without_middle(text: str, width: int) -> str:
    head = (width - 1) // 2
    tail = width - 1 - head
    while columns(text[:head]) + columns(text[-tail:]) > width - 1:
        head, tail = head - (head > tail), tail - (head <= tail)
    return f"{text[:head]}…{text[-tail:]}"


def _fill(parts: Sequence[str], width: int) -> list[str]:
    lines = [""]
    for part in parts:
        if columns(lines[-1] + part.rstrip()) > width and lines[-1]:
            lines.append("")
        for c in part:
            if columns(lines[-1] + c) > width and not c.isspace():
                lines.append("")
            lines[-1] += c
    return lines


def _summarise(group: Ranked) -> _Row:
    values = np.asarray(group.values, dtype=np.float64)  # (S,)
    seeds = values[np.isfinite(values)]
    mean = float(seeds.mean()) if len(seeds) else np.nan
    std = float(seeds.std(ddof=1)) if len(seeds) > 1 else np.nan
    return _Row(group.name, seeds, len(values), mean, std, group.interval)


def _badness(row: _Row, mode: Mode) -> float:
    if np.isnan(row.mean):
        return np.inf
    return row.mean if mode == "min" else -row.mean


def _ends(rows: Sequence[_Row], mode: Mode) -> tuple[float, float]:
    """Return the least and the greatest value to show: seeds, and the bars of the groups whose mean is shown."""
    seeds = np.concatenate([row.seeds for row in rows])
    low, high = shown_range(seeds, mode)
    ends = [low, high]
    for row in rows:
        if low <= row.mean <= high:
            ends += [row.mean - np.nan_to_num(row.std), row.mean + np.nan_to_num(row.std), *(row.interval or ())]
    return min(ends), max(ends)


def _draw_reference(axes: Axes, name: str, value: float, *, low: float, high: float) -> tuple[float, float]:
    """Draw the dashed line and return an axis that holds it; one far off would squeeze the groups, so it is told."""
    label = f"{printable(name, 60)} {value:.4g}"
    near = low - 2 * (high - low) <= value <= high + 2 * (high - low)
    if near:
        low, high = min(low, value), max(high, value)
    else:
        label += " (far left of here)" if value < low else " (far right of here)"
    axes.plot([value, value], [0, 1], "--", transform=axes.get_xaxis_transform(), color=COLOURS[1], label=label)
    return low, high


def _draw_rows(axes: Axes, rows: Sequence[_Row], *, low: float, high: float) -> None:
    """Draw the marks of every row and its figures at the right; what is beyond `low` or `high` is an arrow there."""
    blue, black = COLOURS[0], COLOURS[6]
    at = np.arange(len(rows))
    means, stds = np.asarray([row.mean for row in rows]), np.asarray([row.std for row in rows])
    shown = (means >= low) & (means <= high)
    many = np.isfinite(stds) & shown
    if many.any():
        ends = (means - stds)[many], (means + stds)[many]
        axes.hlines(at[many], *ends, color=blue, linewidth=5, alpha=0.35, label="± one standard deviation")
    sure = [(place, *row.interval) for place, row in enumerate(rows) if row.interval is not None and shown[place]]
    if sure:
        place, left, right = np.asarray(sure).T
        middle = (left + right) / 2
        axes.errorbar(
            middle,
            place,
            xerr=(right - left) / 2,
            fmt="none",
            ecolor=black,
            capsize=3,
            label="95% interval of the mean",
        )
    seeds = np.concatenate([row.seeds for row in rows])
    below = np.repeat(at, [len(row.seeds) for row in rows]) + 0.26
    if many.any():  # of a single seed the mean says all
        axes.plot(
            seeds, below, "o", color=GREY, markerfacecolor="none", markersize=3, markeredgewidth=0.8, label="one seed"
        )
    if shown[0]:
        axes.plot(means[0], 0, "*", color=black, markersize=10, label="the best")
        shown[0] = False
    if shown.any():
        axes.plot(means[shown], at[shown], "s", color=blue, markersize=5, label="mean" if many.any() else "result")
    every, heights = np.append(means, seeds), np.append(at, below)
    for end, marker, beyond in ((low, "<", every < low), (high, ">", every > high)):
        if beyond.any():
            axes.plot(np.full(beyond.sum(), end), heights[beyond], marker, color=GREY, label="beyond the axis")
    for place, text in enumerate(_figures(rows)):
        axes.annotate(
            text, (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points", va="center"
        )


def _figures(rows: Sequence[_Row]) -> list[str]:
    """Return what is written at the right of each row: mean, standard deviation and number of runs."""
    decimals = 4 if abs(rows[0].mean) < 1.5 else 2
    said = []
    for row in rows:
        counted = f"n = {len(row.seeds)}" + (f" of {row.runs}" if len(row.seeds) < row.runs else "")
        if np.isnan(row.mean):
            said.append(f"no result, {counted}")
            continue
        figures = [row.mean] if np.isnan(row.std) else [row.mean, row.std]
        said.append(
            " ± ".join(f"{x:.3g}" if abs(x) >= 1000 else f"{x:.{decimals}f}" for x in figures) + f"  ({counted})"
        )
    return said
