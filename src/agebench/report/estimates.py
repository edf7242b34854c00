"""Estimated against true values of ordered labels, such as ages."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from agebench.files import write_csv
from agebench.report.error_by_age import age_cells
from agebench.report.outcome import Array, Outcome
from agebench.report.style import COLOURS, add_note, label_ticks, new_figure, printable

MAX_DOTS = 1_500  # images; more would cover each other, so that a density is drawn
QUANTILES = (0.1, 0.5, 0.9)
FEW = 10  # images; the quantiles of fewer say little


def quantiles_by_label(outcome: Outcome, cell: Array | None = None) -> tuple[Array, Array]:
    """Return the number of images of each cell, int64, shape (C,), and the quantiles of their estimates, (C, 3).

    A cell without images has NaN.

    Args:
        outcome: Predictions of the test images.
        cell: The cell of each label in [0, C), int64, shape (R,); None if each label is a cell.
    """
    cell = np.arange(len(outcome.values)) if cell is None else cell
    images = np.bincount(cell[outcome.target], minlength=cell.max(initial=-1) + 1)
    found = np.full((len(images), len(QUANTILES)), np.nan)
    for number in np.flatnonzero(images):
        here = outcome.point[cell[outcome.target] == number]
        found[number] = np.quantile(np.asarray(here, dtype=np.float64), QUANTILES)
    return images, found


def write_estimates(path: Path, outcome: Outcome) -> Path:
    """Write the quantiles of the estimates of each label with images, and return the path."""
    rows = [
        [outcome.label_names[label], count, *(f"{value:.4f}" for value in found)]
        for label, (count, found) in enumerate(zip(*quantiles_by_label(outcome), strict=True))
        if count
    ]
    return write_csv(path, ["target", "images", *(f"estimate_q{round(100 * q)}" for q in QUANTILES)], rows)


def draw_estimates(outcome: Outcome, *, title: str) -> Figure | None:
    """Return a figure with the estimate of each image over its true value, and the identity line; None for classes.

    More than 1,500 images are drawn as a density. Lines join the median and the 10% and 90% quantiles of the labels
    with at least 10 images.
    """
    finite = np.isfinite(outcome.point)
    if not outcome.ordered or not finite.any():
        return None
    true, estimate = outcome.values[outcome.target][finite], outcome.point[finite]
    figure = new_figure(5.8, 5.2, title)
    axes = figure.subplots()
    low, high = min(true.min(), estimate.min()), max(true.max(), estimate.max())
    pad = 0.03 * (high - low) or 1
    limits = low - pad, high + pad
    if len(true) > MAX_DOTS:
        grey = matplotlib.colormaps["Greys"]
        cells = axes.hexbin(
            true, estimate, gridsize=45, cmap=grey, mincnt=1, bins="log", extent=(*limits, *limits), lw=0
        )
        bar = figure.colorbar(cells, ax=axes, shrink=0.7, aspect=30, label="images in a cell (log scale)")
        bar.set_ticks(LogLocator(subs=(1, 2, 5)))
        bar.formatter = StrMethodFormatter("{x:,.0f}")
        bar.minorticks_off()
    else:
        # Labels are whole numbers. Moving the dots sideways shows how many there are.
        gap = np.diff(outcome.values).min() if len(outcome.values) > 1 else 1
        sideways = np.random.default_rng(0).uniform(-0.3, 0.3, len(true)) * gap
        axes.plot(true + sideways, estimate, "o", color="#555555", markersize=2.5, alpha=0.4, mew=0, label="an image")
    axes.plot(limits, limits, color="black", linewidth=1, linestyle="--", label="exact: estimate = true value")
    _draw_quantiles(outcome, axes)
    _name_ticks(outcome, axes)
    unit = outcome.unit or "label"
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"true value ({unit})", ylabel=f"estimate ({unit})")
    error = estimate - true
    axes.set_title(
        f"How close are the estimates? {len(true):,} images, mean absolute error {np.abs(error).mean():.2f} {unit};\n"
        "above the dashed line the estimate is too high, below it too low"
    )
    axes.grid(True)
    axes.legend(loc="upper left", fontsize=8, frameon=True, framealpha=0.9, edgecolor="none")
    add_note(figure, outcome.note)
    return figure


def _draw_quantiles(outcome: Outcome, axes: Axes) -> None:
    """Draw lines through the quantiles of the labels, or of neighbouring ages together, that have enough images."""
    cell = age_cells(outcome)[0] if outcome.unit == "years" else np.arange(len(outcome.values))
    images, found = quantiles_by_label(outcome, cell)
    enough = np.flatnonzero((images >= FEW) & np.isfinite(found).all(1))
    if len(enough):
        places = [outcome.values[cell == number].mean() for number in enough]
        axes.plot(places, found[enough, 1], color=COLOURS[1], marker="o", markersize=3, label="median")
        for column, label in ((0, "10% and 90% quantile"), (2, None)):
            axes.plot(places, found[enough, column], color=COLOURS[0], linestyle="-.", linewidth=1.2, label=label)


def _name_ticks(outcome: Outcome, axes: Axes) -> None:
    """Name the labels along both axes, unless they are years."""
    if outcome.unit != "years":
        ticks = label_ticks(outcome.values, ordered=True, most=12)
        names = [printable(outcome.label_names[i], 12) for i in ticks]
        axes.set_xticks(outcome.values[list(ticks)], names)
        axes.set_yticks(outcome.values[list(ticks)], names)
