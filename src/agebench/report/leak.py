"""The figure of an audit: the label distribution of each part, and the scores of an identity lookup."""

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agebench.report.outcome import Array
from agebench.report.style import COLOURS, GREY, label_ticks, new_figure, printable

MAX_BARS = 15  # labels; more groups of three bars are hard to read
# Widths differ so that all three lines stay visible where they coincide.
PARTS: dict[str, dict[str, Any]] = {
    "train": {"color": COLOURS[1], "linestyle": "-", "linewidth": 5, "alpha": 0.45},
    "val": {"color": COLOURS[0], "linestyle": "-", "linewidth": 1.5},
    "test": {"color": COLOURS[6], "linestyle": ":", "linewidth": 1.8},
}
HATCHES = {"train": "", "val": "///", "test": "..."}
MARKERS = {"train": "o", "val": "v", "test": "^"}


def draw_leak(
    audited: dict[str, Any], counts: dict[str, Array], *, label_names: tuple[str, ...], values: Array, title: str
) -> Figure:
    """Return a figure with the label distribution of each part, and the scores of an identity lookup and a constant.

    Args:
        audited: The results of the audit, with its `verdict`.
        counts: Images per label for train, val and test, int64, shape (R,) each.
        label_names: Names of the R labels.
        values: Value of each label in the target's unit, float, shape (R,).
        title: Title of the figure.
    """
    ordered = bool(audited["unit"])
    names = [printable(name, 20) for name in label_names]
    left = float(np.clip(0.115 * len(names), 4.6, 8.6)) if not ordered else 4.6  # inches; 73 hiragana fit side by side
    panels = _panels(audited)
    unknown = "identities unknown" if counts["train"].sum() else "no train images"
    figure = new_figure(left + 4.6, 4.0, title)
    grid = figure.add_gridspec(len(panels), 2, width_ratios=[left, 4.2])
    _draw_labels(figure.add_subplot(grid[:, 0]), counts, names, ordered=ordered, values=values, width=left)
    for row, (metric, bars) in enumerate(panels):
        _draw_bars(figure.add_subplot(grid[row, 1]), metric, bars, unknown=unknown)
    text = "\n".join(
        textwrap.fill(line, width=int((left + 4.6) * 14)) for line in (*_shares(audited), audited["verdict"])
    )
    figure.supxlabel(text, fontsize=9, x=0.01, ha="left", linespacing=1.4)
    return figure


def _panels(audited: dict[str, Any]) -> list[tuple[str, dict[str, float | None]]]:
    """Return the axis name of each metric and its value for each prediction that uses no images."""
    panels: list[tuple[str, dict[str, float | None]]] = []
    unit = audited["unit"]
    if unit:
        bars = {"always the median": audited["median_mae"], "identity lookup": audited["lookup_mae"]}
        panels.append((f"mean absolute error on test ({unit})", bars))
    if unit != "years":
        bars = {"always the most\ncommon label": audited["majority_accuracy"]}
        panels.append(("accuracy on test (share correct)", {**bars, "identity lookup": audited["lookup_accuracy"]}))
    return panels


def _draw_bars(axes: Axes, metric: str, bars: dict[str, float | None], *, unknown: str) -> None:
    heights = [value or 0.0 for value in bars.values()]
    decimals = 3 if metric.startswith("accuracy") else 2  # as in the verdict
    axes.barh(range(len(bars)), heights, height=0.6, color=[GREY, COLOURS[1]])
    for row, value in enumerate(bars.values()):
        text = f"not available: {unknown}" if value is None else f"{value:.{decimals}f}"
        axes.annotate(text, (value or 0, row), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel=metric, xlim=(0, max(*heights, 0.05) * 1.18))
    axes.grid(True, axis="x")


def _draw_labels(
    axes: Axes, counts: dict[str, Array], names: list[str], *, ordered: bool, values: Array, width: float
) -> None:
    at = np.arange(len(names))
    tallest = 0.0
    for number, (part, style) in enumerate(PARTS.items()):
        total = int(counts[part].sum())
        shares = counts[part] / max(total, 1)
        tallest = max(tallest, float(shares.max()))
        label = f"{part} ({total:,} images)"
        if len(names) <= MAX_BARS:
            where, ink = at + (number - 1) * 0.27, style["color"]
            axes.bar(where, shares, 0.27, label=label, color=ink, hatch=HATCHES[part], edgecolor="white", linewidth=0)
        elif ordered:
            axes.plot(at, shares, label=label, **style)
        else:  # classes have no order, so no line joins them
            axes.plot(at, shares, MARKERS[part], label=label, color=style["color"], alpha=0.8, clip_on=False)
    ticks = label_ticks(values, ordered=ordered, most=20 if ordered else 80)
    shown = [names[i] for i in ticks]
    upright = max(map(len, shown)) <= 1 or sum(len(name) + 1 for name in shown) * 0.09 < width - 0.8
    axes.set_xticks(ticks, shown, rotation=0 if upright else 90, fontsize=7 if len(ticks) > 40 else 9)
    axes.set(ylabel="share of images", ylim=(0, tallest * 1.35), xlim=(-0.7, len(names) - 0.3))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}" if value else "0")
    axes.grid(True, axis="y")
    axes.legend(loc="upper center", ncols=1 if width < 5 else 3, fontsize=8)


def _shares(audited: dict[str, Any]) -> list[str]:
    if audited["test_identity_in_train"] is None:
        return []
    shares = [
        f"{audited[f'{part}_identity_in_train']:.1%} of {part} images "
        f"({audited[f'{part}_identity_and_label_in_train']:.1%} with the same label)"
        for part in ("test", "val")
    ]
    return [f"identity also in train: {', '.join(shares)}"]
