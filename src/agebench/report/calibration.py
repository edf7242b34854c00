"""Reliability diagram before and after calibration, and the coverage of the ranges by decade."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agebench.files import write_csv
from agebench.report.outcome import Array, Outcome
from agebench.report.style import COLOURS, GREY, add_note, new_figure, plot_style

BINS = 15  # of equal width, as in the metric ece
FEW = 10  # images; the accuracy of fewer says little


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


def reliability_table(outcome: Outcome) -> list[list[float]]:
    """Return a row per bin of confidence with images: its number of images, mean confidence and accuracy."""
    confidence = outcome.posterior.max(1).astype(np.float64)
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    images = np.bincount(bins, minlength=BINS)
    means = zip(*reliability(outcome.posterior, outcome.target), strict=True)
    return [[int(count), *map(float, pair)] for count, pair in zip(images[images > 0], means, strict=True)]


def write_reliability(path: Path, outcome: Outcome) -> Path:
    """Write the bins of the reliability diagram, and return the path."""
    rows = [[count, f"{confidence:.4f}", f"{hits:.4f}"] for count, confidence, hits in reliability_table(outcome)]
    return write_csv(path, ["images", "mean_confidence", "accuracy"], rows)


def draw_reliability(outcome: Outcome, *, title: str) -> Figure | None:
    """Return a reliability diagram with the number of images below it; None if a probability is not finite."""
    if not len(outcome) or not np.isfinite(outcome.posterior).all():
        return None
    images, confidence, accuracy = map(np.array, zip(*reliability_table(outcome), strict=True))
    figure = new_figure(4.8, 4.6, title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="as sure as right")
    few = images < FEW
    upper.plot(confidence, accuracy, color=COLOURS[0], linewidth=1, zorder=2)
    upper.plot(confidence[~few], accuracy[~few], "s", color=COLOURS[0], label="the network")
    if few.any():
        style = {"color": COLOURS[0], "markerfacecolor": "white"}
        upper.plot(confidence[few], accuracy[few], "s", label=f"fewer than {FEW} images", **style)
    error = np.average(np.abs(confidence - accuracy), weights=images)
    mean, hits = np.average(confidence, weights=images), np.average(accuracy, weights=images)
    upper.set_title(
        f"Is it right as often as it claims? It claims {mean:.1%}, and {hits:.1%}\nare right; above the dashed line it "
        f"is too modest, below too sure\n(mean distance to the line, ECE: {error:.3f})"
    )
    upper.set(ylabel="share of images that are right", xlim=(0, 1.01), ylim=(-0.02, 1.02))
    upper.legend(loc="best", fontsize=8)
    upper.grid(True)
    lower.bar((np.ceil(confidence * BINS) - 0.5) / BINS, images, width=0.9 / BINS, color=GREY)
    lower.set(xlabel="claimed probability of the most likely label", ylabel="images")
    lower.grid(True, axis="y")
    add_note(figure, outcome.note)
    return figure


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
