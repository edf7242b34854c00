"""Reliability diagram before and after calibration, and the coverage of the ranges by decade."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from agebench.report.outcome import Array
from agebench.report.style import COLOURS, GREY, new_figure, plot_style

BINS = 15  # of equal width, as in the metric ece


def reliability(posterior: Array, target: Array) -> tuple[Array, Array]:
    """Return mean confidence and accuracy of each bin of confidence with images, float64, shape (b,) each.

    Args:
        posterior: Probability of each label, shape (N, R).
        target: Indices of the true labels, shape (N,).
    """
    confidence = posterior.max(1).astype(np.float64)
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    images = np.bincount(bins, minlength=BINS)
    sums = [np.bincount(bins, weights=each, minlength=BINS) for each in (confidence, posterior.argmax(1) == target)]
    used = images > 0
    return sums[0][used] / images[used], sums[1][used] / images[used]


def write_calibration(
    path: Path,
    posteriors: tuple[Array, Array],
    target: Array,
    *,
    by_decade: Mapping[str, Mapping[str, Any]],
    coverage: float,
    title: str,
) -> Path:
    """Write the figure and return its path.

    Args:
        path: The PNG file.
        posteriors: Posteriors before and after temperature scaling, shape (N, R) each.
        target: Indices of the true labels, shape (N,).
        by_decade: `coverage`, `coverage_low` and `coverage_high` of each decade of the true age; empty for classes.
        coverage: The promised coverage.
        title: Title of the figure.
    """
    with plot_style():
        figure = new_figure(7.2 if by_decade else 3.8, 3.6, title)
        axes = figure.subplots(1, 2 if by_decade else 1, squeeze=False)[0]
        _draw_reliability(axes[0], posteriors, target)
        if by_decade:
            _draw_coverage(axes[1], list(by_decade), list(by_decade.values()), coverage)
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path)
    return path


def _draw_reliability(axes: Axes, posteriors: tuple[Array, Array], target: Array) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for name, posterior, colour, marker in zip(("before", "after"), posteriors, COLOURS[1::-1], "os", strict=True):
        axes.plot(*reliability(posterior, target), color=colour, marker=marker, label=f"{name} calibration")
    axes.set(xlabel="confidence", ylabel="accuracy", title="accuracy of predictions at each confidence")
    axes.legend()
    axes.grid(True)


def _draw_coverage(axes: Axes, names: Sequence[str], rows: Sequence[Mapping[str, Any]], coverage: float) -> None:
    low, middle, high = (
        np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=np.float64)
        for key in ("coverage_low", "coverage", "coverage_high")
    )
    errors = [np.maximum(middle - low, 0), np.maximum(high - middle, 0)]
    axes.errorbar(range(len(names)), middle, yerr=errors, color=COLOURS[0], marker="s", linestyle="", capsize=3)
    axes.axhline(coverage, color=GREY, linewidth=0.8, linestyle="--", label=f"promised: {coverage:g}")
    axes.set_xticks(range(len(names)), names)
    axes.set(
        xlabel="true age", ylabel="coverage", ylim=(-0.02, 1.02), title="coverage of the ranges, with 95% intervals"
    )
    axes.legend()
    axes.grid(True, axis="y")
