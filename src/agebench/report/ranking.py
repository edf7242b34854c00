"""Ranking of groups of runs: mean, confidence interval, standard deviation and single seeds."""

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
MAX_ROWS = 60
NAME_WIDTH = 42  # columns per line


class Ranked(NamedTuple):
    """The results of one group of runs.

    Args:
        name: Name of the group. A long name is wrapped, then shortened in the middle.
        values: The metric of each seed; NaN for a run without a result.
        interval: Bounds of the 95% confidence interval of the mean, or None.
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
    """Return a figure with one row per group, the best on top: mean, confidence interval, ± 1 std and single seeds.

    The standard deviation is that of the sample (n - 1). A diverged value is drawn as an arrow at the end of the axis,
    so that it does not compress the others. The text on the right gives its value.

    Args:
        groups: Groups in any order; they are sorted by mean. Of more than 60 groups the best 60 are drawn, with a note.
        metric: Name of the axis with its unit, such as `mean absolute error on test (years)`.
        mode: Whether lower (`min`) or higher (`max`) is better.
        title: Title of the figure.
        reference: Name and value of a dashed line, such as `("always the median", 12.15)`. One that is farther from
            the groups than their span is an arrow with a text at the edge, so that it does not compress them.
        note: A warning, printed below the figure.

    Raises:
        ValueError: If there are no groups.
    """
    if not groups:
        raise ValueError("a ranking needs at least one group, got none")
    rows = sorted(map(_summarise, groups), key=lambda row: _sort_key(row, mode))  # stable: ties keep their order
    if len(rows) > MAX_ROWS:
        note = " · ".join(filter(None, [note, f"only the best {MAX_ROWS} of {len(rows)} groups are shown"]))
        rows = rows[:MAX_ROWS]
    names = [wrap_name(row.name, NAME_WIDTH, lines=2) for row in rows]
    row_height = 0.36 if any("\n" in name for name in names) else 0.24  # inches
    longest = max(text_width(line) for name in names for line in name.split("\n"))
    figure = new_figure(5.6 + 0.075 * longest, 1.9 + row_height * len(rows), title)
    axes = figure.add_subplot()
    low, high = _limits(rows, mode)
    near = reference is not None and 2 * low - high <= reference[1] <= 2 * high - low
    if reference is not None and near:
        low, high = min(low, reference[1]), max(high, reference[1])
    pad = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    if reference is not None:
        _draw_reference(axes, *reference, edges=None if near else (low - pad, high + pad))
    _draw_rows(axes, rows, low=low - pad / 2, high=high + pad / 2)
    axes.set_yticks(range(len(rows)), names, linespacing=0.95)
    axes.tick_params(axis="y", length=0)
    axes.set(
        xlim=(low - pad, high + pad),
        ylim=(len(rows) - 0.4, -0.6 if near or reference is None else -1.3),
        xlabel=f"{metric}, {BETTER[mode]}",
    )
    axes.grid(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=7.5, borderaxespad=0.2, columnspacing=1.2
        )
    add_note(figure, note)
    return figure


def text_width(text: str) -> int:
    """Return the width of a text in columns; kanji and kana have width two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def wrap_name(name: str, width: int, *, lines: int) -> str:
    """Return a name wrapped into at most `lines` lines of `width` columns; a longer name is shortened in the middle.

    Lines break after a space, comma, underscore or slash, and after the dot in `optim.lr` but not in `0.5`.
    """
    clean = printable(name)
    if text_width(clean) > width * lines:
        clean = _shorten_middle(clean, width * lines)
    parts = re.split(r"(?<=[ ,_/])|(?<=\.)(?=[^\W\d])", clean)
    broken = _fill_lines(parts, width)
    if len(broken) > lines:  # breaking at words needs too many lines
        broken = _fill_lines(list(_shorten_middle(clean, width * lines - lines)), width)
    return "\n".join(line.strip() for line in broken)


def robust_range(values: Array, mode: Mode) -> tuple[float, float]:
    """Return the limits of an axis over the finite values, without outliers at the bad end.

    The distance of an outlier to the best value exceeds both 25 times the median's distance and 9 times the best value:
    the limits for the errors 4.5, 4.6, 5 and 1e6 are 4.5 and 5. Without a finite value the limits are 0 and 1.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    badness = np.sort(finite if mode == "min" else -finite)
    best, median = badness[0], badness[(len(badness) - 1) // 2]
    near = badness[badness <= best + max(25 * (median - best), 9 * abs(best))]
    ends = near if mode == "min" else -near
    return float(ends.min()), float(ends.max())


def _shorten_middle(text: str, width: int) -> str:
    head = (width - 1) // 2
    tail = width - 1 - head
    while text_width(text[:head]) + text_width(text[-tail:]) > width - 1:
        head, tail = head - (head > tail), tail - (head <= tail)
    return f"{text[:head]}…{text[-tail:]}"


def _fill_lines(parts: Sequence[str], width: int) -> list[str]:
    lines = [""]
    for part in parts:
        if text_width(lines[-1] + part.rstrip()) > width and lines[-1]:
            lines.append("")
        for c in part:
            if text_width(lines[-1] + c) > width and not c.isspace():
                lines.append("")
            lines[-1] += c
    return lines


def _summarise(group: Ranked) -> _Row:
    values = np.asarray(group.values, dtype=np.float64)  # (S,)
    seeds = values[np.isfinite(values)]
    mean = float(seeds.mean()) if len(seeds) else np.nan
    std = float(seeds.std(ddof=1)) if len(seeds) > 1 else np.nan
    return _Row(group.name, seeds, len(values), mean, std, group.interval)


def _sort_key(row: _Row, mode: Mode) -> float:
    if np.isnan(row.mean):
        return np.inf
    return row.mean if mode == "min" else -row.mean


def _limits(rows: Sequence[_Row], mode: Mode) -> tuple[float, float]:
    """Return the limits that hold the seeds, and the bars of the groups whose mean is within them."""
    seeds = np.concatenate([row.seeds for row in rows])
    low, high = robust_range(seeds, mode)
    ends = [low, high]
    for row in rows:
        if low <= row.mean <= high:
            ends += [row.mean - np.nan_to_num(row.std), row.mean + np.nan_to_num(row.std), *(row.interval or ())]
    return min(ends), max(ends)


def _draw_reference(axes: Axes, name: str, value: float, *, edges: tuple[float, float] | None) -> None:
    """Draw the dashed line; with the edges of the axis an arrow with a text at the edge beyond which the value lies."""
    label, colour = f"{printable(name, 60)} {value:.4g}", COLOURS[1]
    if edges is None:
        axes.plot([value, value], [0, 1], "--", transform=axes.get_xaxis_transform(), color=colour, label=label)
        return
    left = value < edges[0]
    axes.annotate(
        f"\N{LEFTWARDS ARROW} {label}" if left else f"{label} \N{RIGHTWARDS ARROW}",
        (edges[0] if left else edges[1], -0.85),
        color=colour,
        ha="left" if left else "right",
        va="center",
        fontsize=8,
    )


def _draw_rows(axes: Axes, rows: Sequence[_Row], *, low: float, high: float) -> None:
    """Draw the markers of every row and its numbers on the right; an arrow marks a value outside [low, high]."""
    blue, black = COLOURS[0], COLOURS[6]
    at = np.arange(len(rows))
    means, stds = np.asarray([row.mean for row in rows]), np.asarray([row.std for row in rows])
    shown = (means >= low) & (means <= high)
    many = np.isfinite(stds) & shown
    if many.any():
        ends = (means - stds)[many], (means + stds)[many]
        axes.hlines(at[many], *ends, color=blue, linewidth=5, alpha=0.35, label="± 1 standard deviation")
    intervals = [(place, *row.interval) for place, row in enumerate(rows) if row.interval is not None and shown[place]]
    if intervals:
        place, left, right = np.asarray(intervals).T
        middle = (left + right) / 2
        axes.errorbar(
            middle,
            place,
            xerr=(right - left) / 2,
            fmt="none",
            ecolor=black,
            capsize=3,
            label="95% CI",
        )
    seeds = np.concatenate([row.seeds for row in rows])
    below = np.repeat(at, [len(row.seeds) for row in rows]) + 0.26
    if many.any():  # the mean of a single seed is its value
        axes.plot(
            seeds,
            below,
            "o",
            color=GREY,
            markerfacecolor="none",
            markersize=3,
            markeredgewidth=0.8,
            label="single seed",
        )
    if shown[0]:
        axes.plot(means[0], 0, "*", color=black, markersize=10, label="best")
        shown[0] = False
    if shown.any():
        axes.plot(means[shown], at[shown], "s", color=blue, markersize=5, label="mean" if many.any() else "result")
    every, heights = np.append(means, seeds), np.append(at, below)
    for end, marker, beyond in ((low, "<", every < low), (high, ">", every > high)):
        if beyond.any():
            axes.plot(np.full(beyond.sum(), end), heights[beyond], marker, color=GREY, label="off scale")
    for place, text in enumerate(_result_texts(rows)):
        axes.annotate(
            text, (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points", va="center"
        )


def _result_texts(rows: Sequence[_Row]) -> list[str]:
    """Return the text on the right of each row: mean, standard deviation and number of seeds."""
    decimals = 4 if abs(rows[0].mean) < 1.5 else 2
    texts = []
    for row in rows:
        counted = f"n = {len(row.seeds)}" + (f" of {row.runs}" if len(row.seeds) < row.runs else "")
        if np.isnan(row.mean):
            texts.append(f"no result, {counted}")
            continue
        numbers = [row.mean] if np.isnan(row.std) else [row.mean, row.std]
        texts.append(
            " ± ".join(f"{x:.3g}" if abs(x) >= 1000 else f"{x:.{decimals}f}" for x in numbers) + f"  ({counted})"
        )
    return texts
