"""Parallel coordinates: the swept parameters of each point and its result."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from agebench.report.outcome import Array
from agebench.report.ranking import BETTER, Mode, robust_range, text_width, wrap_name
from agebench.report.style import GREY, add_note, label_ticks, new_figure

MAX_PARAMETERS = 10
LOG_RATIO = 30  # ratio of the largest to the smallest value from which an axis is logarithmic
MAX_EVEN_TICKS = 12  # values; up to this number, each value has its own tick
MAX_TICKS = 40  # ticks per axis
DIVERGED_OFFSET = 1.08  # distance of diverged results from the good end of the metric's axis, which has length 1
NO_RESULT = -0.14  # height of points without a result
MISSING = "not set"


class _Axis(NamedTuple):
    """One axis: its name, the height of each point from 0 to 1, and the ticks as (height, text)."""

    name: str
    heights: Array
    ticks: Sequence[tuple[float, str]]


def draw_parallel(
    points: Sequence[Mapping[str, Any]],
    values: Sequence[float],
    *,
    metric: str,
    mode: Mode,
    title: str,
    note: str = "",
) -> Figure:
    """Return a figure with one axis per parameter, one for the metric, and one line per point; dark lines are better.

    Numbers are on a linear scale, or on a log scale if all are positive and the largest is at least 30 times the
    smallest. Text, booleans and None are evenly spaced. Up to 12 numbers with such a range that are not all positive
    are evenly spaced too. Lines with the same value are spread around it in the order of their results. The line of a
    diverged result ends at the tick `off scale`.

    Args:
        points: N mappings from a parameter's name to its value (number, text, bool or None). Pass only parameters that
            vary. Axes are in order of first occurrence. A missing parameter is drawn as `not set`. Of more than 10
            parameters the first 10 are drawn, with a note.
        values: The metric of each point, shape (N,). NaN means no result; the line is grey and dashed.
        metric: Name of the last axis with its unit, such as `mean absolute error on test (years)`.
        mode: Whether lower (`min`) or higher (`max`) is better.
        title: Title of the figure.
        note: A warning, printed below the figure.

    Raises:
        ValueError: If there are no points or no parameters, or if the number of values is not N.
    """
    names = list(dict.fromkeys(name for point in points for name in point))
    if not names or len(values) != len(points):
        raise ValueError(f"need points with parameters and a value each, got {len(points)} and {len(values)} values")
    if len(names) > MAX_PARAMETERS:
        note = " · ".join(filter(None, [note, f"only the first {MAX_PARAMETERS} of {len(names)} parameters are shown"]))
        names = names[:MAX_PARAMETERS]
    results = np.asarray(values, dtype=np.float64)  # (N,)
    order = _order(results)
    axes_drawn = [_parameter_axis(name, [point.get(name, MISSING) for point in points], order) for name in names]
    axes_drawn.append(_metric_axis(metric, results, mode))
    most = max(len(axis.ticks) for axis in axes_drawn)
    height = min(max(4.6, 2.0 + 0.19 * most), 9.8)
    longest = max(text_width(text) for axis in axes_drawn[:-1] for _, name in axis.ticks for text in name.split("\n"))
    spacing = max(1.35, min(1.0 + 0.055 * longest, 16 / len(axes_drawn)))  # inches between axes
    figure = new_figure(spacing * len(axes_drawn) + 1.6, height, title)
    axes = figure.add_subplot()
    colours = _colours()
    _draw_lines(axes, np.stack([axis.heights for axis in axes_drawn], axis=1), results, mode, colours)
    _draw_axes(axes, axes_drawn, mode, colours if np.isfinite(results).any() else None)
    axes.set_title(_summary(results, mode), loc="left")
    add_note(figure, note)
    return figure


def _order(results: Array) -> Array:
    """Return the rank of each result, ascending, int64, shape (N,); points without a result come first."""
    order = np.empty(len(results), dtype=np.int64)
    order[np.argsort(np.nan_to_num(results, nan=-np.inf, neginf=-np.inf), kind="stable")] = np.arange(len(results))
    return order


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _format_value(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _natural_key(text: str) -> list[tuple[str, int]]:
    """Return a natural sort key, with `fold_9` before `fold_10`."""
    parts = re.split(r"(\d+)", text)  # text, number, text, ...
    return [(words, int(number)) for words, number in zip(parts[::2], [*parts[1::2], "0"], strict=True)]


def _parameter_axis(name: str, values: Sequence[object], order: Array) -> _Axis:
    numbers = sorted({float(value) for value in values if isinstance(value, int | float) and _is_number(value)})
    if numbers and all(map(_is_number, values)):
        own = np.asarray(values, dtype=np.float64)  # (N,)
        positive = [abs(number) for number in numbers if number]
        wide = bool(positive) and max(positive) >= LOG_RATIO * min(positive)
        few = len(numbers) <= MAX_EVEN_TICKS
        if not wide or numbers[0] > 0 or not few:
            wide = wide and numbers[0] > 0
            scale = np.log10 if wide else np.asarray
            low, high = scale(numbers[0]), scale(numbers[-1])
            span = (high - low) or 1.0
            heights = (scale(own) - low) / span if high > low else np.full(len(own), 0.5)
            marks = np.asarray(numbers) if few else _round_numbers(numbers[0], numbers[-1], log=wide)
            at = (scale(marks) - low) / span if high > low else np.full(len(marks), 0.5)
            ticks = _thin_ticks([(float(y), f"{mark:g}") for y, mark in zip(at, marks, strict=True)])
            return _Axis(name, heights + (_spread(at, heights, order) if few else 0), ticks)
    texts = [_format_value(value) for value in values]
    kinds = list(dict.fromkeys(f"{number:g}" for number in numbers))
    kinds += sorted(set(texts) - set(kinds) - {MISSING}, key=_natural_key) + [MISSING] * (MISSING in texts)
    at = np.linspace(0, 1, len(kinds)) if len(kinds) > 1 else np.full(1, 0.5)
    place = {kind: at[i] for i, kind in enumerate(kinds)}
    heights = np.asarray([place[kind] for kind in texts])
    shown = label_ticks(np.arange(float(len(kinds))), ordered=False, most=MAX_TICKS)
    ticks = [(float(at[i]), wrap_name(kinds[i], 18, lines=2 if len(kinds) <= 8 else 1)) for i in shown]
    return _Axis(name, heights + _spread(at, heights, order), ticks)


def _spread(at: Array, heights: Array, order: Array) -> Array:
    """Return offsets, shape (N,), that spread points with the same value so that their lines do not overlap."""
    gap = float(np.diff(np.sort(at)).min()) if len(at) > 1 else 0.5
    within = np.zeros(len(heights))
    for y in at:
        here = np.flatnonzero(np.isclose(heights, y, rtol=0, atol=1e-9))
        if len(here) > 1:
            within[here[np.argsort(order[here])]] = np.linspace(-0.5, 0.5, len(here))
    return within * min(0.25 * gap, 0.05)


def _round_numbers(low: float, high: float, *, log: bool) -> Array:
    if not log:
        marks = _even_marks(low, high)
    else:
        powers = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        marks = np.outer(powers, [1, 2, 5]).ravel() if len(powers) <= 4 else powers[:: max(1, len(powers) // 8)]
    return np.asarray(marks[(marks >= low) & (marks <= high)])


def _even_marks(low: float, high: float) -> Array:
    marks = np.asarray(MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(low, high))
    return np.asarray(marks[(marks >= low) & (marks <= high)])


def _thin_ticks(ticks: Sequence[tuple[float, str]], least: float = 0.06) -> list[tuple[float, str]]:
    """Return the ticks without those that are less than `least` above the previous tick."""
    kept: list[tuple[float, str]] = []
    for height, text in sorted(ticks):
        if not kept or height - kept[-1][0] >= least:
            kept.append((height, text))
    return kept


def _metric_axis(metric: str, results: Array, mode: Mode) -> _Axis:
    low, high = robust_range(results, mode)
    span = (high - low) or 1.0
    at = (results - low) / span if high > low else np.where(np.isfinite(results), 0.5, np.nan)
    worst = DIVERGED_OFFSET if mode == "min" else 1 - DIVERGED_OFFSET
    beyond = np.isfinite(results) & ((results > high) | (results < low))
    heights = np.where(beyond, worst, np.where(np.isfinite(results), at, NO_RESULT))
    marks = _even_marks(low, high) if high > low else np.asarray([low])
    ticks = [(float((mark - low) / span) if high > low else 0.5, f"{mark:.6g}") for mark in marks]
    if not np.isfinite(results).any():
        ticks = []
    if beyond.any():
        ticks.append((worst, f"off scale ({beyond.sum()})"))
    if not np.isfinite(results).all():
        ticks.append((NO_RESULT, f"no result ({(~np.isfinite(results)).sum()})"))
    return _Axis(f"{metric}, {BETTER[mode]}", heights, ticks)


def _colours() -> Colormap:
    """Return viridis without its yellow end, which is hard to see on white."""
    viridis = matplotlib.colormaps["viridis"]
    return LinearSegmentedColormap.from_list("viridis without yellow", viridis(np.linspace(0, 0.9, 256)))


def _draw_lines(axes: Axes, heights: Array, results: Array, mode: Mode, colours: Colormap) -> None:
    """Draw the lines from worst to best: heights, shape (N, A) with the metric last, and results, shape (N,)."""
    places = np.broadcast_to(np.arange(heights.shape[1]), heights.shape)
    lines = np.stack([places, heights], axis=2)  # (N, A, 2)
    finite = np.isfinite(results)
    count = max(len(results), 1)
    line_style = {"alpha": float(np.clip(6 / np.sqrt(count), 0.12, 0.9)), "linewidths": 1.4 if count <= 100 else 0.9}
    if not finite.all():
        axes.add_collection(
            LineCollection(
                list(lines[~finite]), colors=GREY, linestyles="--", label="no result", zorder=1, **line_style
            )
        )
    if not finite.any():
        return
    badness = results if mode == "min" else -results
    backwards = np.flatnonzero(finite)[::-1]  # so that of equal points the first is on top, as in a ranking
    order = backwards[np.argsort(-badness[backwards], kind="stable")]
    at = np.clip(heights[order, -1], 0, 1)
    inks = colours(at if mode == "min" else 1 - at)
    axes.add_collection(LineCollection(list(lines[order]), colors=inks, label="points", zorder=2, **line_style))
    best = lines[order[-1]]
    axes.plot(*best.T, color="white", linewidth=4.5, zorder=3)
    axes.plot(*best.T, color="black", linewidth=2.2, marker="o", markersize=4, label="best", zorder=3.1)


def _draw_axes(axes: Axes, drawn: Sequence[_Axis], mode: Mode, colours: Colormap | None) -> None:
    last = len(drawn) - 1
    axes.vlines(range(last), 0, 1, color="black", linewidth=1, zorder=4)
    if colours is not None:  # the metric's axis is also the colour bar
        ramp = np.linspace(0, 1, 256) if mode == "min" else np.linspace(1, 0, 256)
        axes.imshow(colours(ramp)[:, None], extent=(last, last + 0.06, 0, 1), origin="lower", aspect="auto", zorder=4)
    box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
    for place, axis in enumerate(drawn):
        for height, text in axis.ticks:
            axes.annotate(
                text, (place + 0.06 * (place == last), height), xytext=(4, 0), textcoords="offset points",
                va="center", linespacing=0.9, fontsize=8, bbox=box, zorder=5,
            )  # fmt: skip
    axes.set_xticks(range(len(drawn)), [wrap_name(axis.name, 17, lines=5) for axis in drawn], fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0, pad=8)
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    lowest = min(0.0, *(float(axis.heights.min()) for axis in drawn))
    highest = max(1.0, *(float(axis.heights.max()) for axis in drawn))
    axes.set(xlim=(-0.1, last + 0.75), ylim=(lowest - 0.05, highest + 0.05))


def _summary(results: Array, mode: Mode) -> str:
    finite = results[np.isfinite(results)]
    counted = f"{len(results):,} point{'s' * (len(results) != 1)}"
    if not len(finite):
        return f"{counted}, none with a result"
    return f"{counted}; darker lines are better; best (black): {finite.min() if mode == 'min' else finite.max():.4g}"
