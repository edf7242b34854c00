"""Confusion matrix of the most likely labels: counts, heat map, and the label pairs that are confused most often."""

from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from agebench.files import write_csv
from agebench.report.outcome import Array, Outcome
from agebench.report.style import add_note, label_ticks, new_figure, printable

ANNOTATED = 15  # labels; with more, the numbers in the cells are too small to read
EMPTY = "#d9d9d9"
DARK = 0.72  # share from which white numbers have more contrast than black ones


def count_confusions(outcome: Outcome) -> Array:
    """Return the confusion matrix, int64, shape (R, R); rows are most likely labels, columns are true labels."""
    labels = len(outcome.label_names)
    pairs = outcome.predicted * labels + outcome.target  # (N,)
    return np.bincount(pairs, minlength=labels * labels).reshape(labels, labels)  # (N,) -> (R, R)


def normalise_columns(counts: Array) -> Array:
    """Return each column divided by its sum: shares of each true label, NaN for a label without images."""
    totals = counts.sum(axis=0, dtype=np.float64)  # (R, R) -> (R,)
    return counts / np.where(totals > 0, totals, np.nan)


def normalise_rows(counts: Array) -> Array:
    """Return each row divided by its sum: shares of each most likely label, NaN for a label that is never predicted."""
    return normalise_columns(counts.T).T


def write_confusion(path: Path, counts: Array, label_names: tuple[str, ...]) -> Path:
    """Write the counts, one row per most likely label, one column per true label; return the path."""
    rows = ([name, *row] for name, row in zip(label_names, counts.tolist(), strict=True))
    return write_csv(path, ["most_likely_label \\ target", *label_names], rows)


def write_most_confused(path: Path, counts: Array, label_names: tuple[str, ...], *, most: int = 100) -> Path:
    """Write the confused label pairs, most frequent first, with shares of the true label's images; return the path."""
    wrong = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    shares = normalise_columns(counts)
    rows = []
    for predicted, target in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[predicted, target] > 0:
            share = f"{shares[predicted, target]:.4f}"
            rows.append([label_names[target], label_names[predicted], int(wrong[predicted, target]), share])
    return write_csv(path, ["target", "most_likely_label", "count", "share_of_target"], rows)


def draw_confusion(outcome: Outcome, counts: Array, *, title: str, by: Literal["true", "predicted"] = "true") -> Figure:
    """Return a heat map of shares: most likely labels on y, true labels on x, the first one at the top left.

    Args:
        outcome: Predictions of the test images.
        counts: The result of count_confusions.
        title: Title of the run.
        by: Whether the shares of each true label (each column) or of each prediction (each row) sum to one.
    """
    shares = normalise_columns(counts) if by == "true" else normalise_rows(counts)  # (R, R)
    labels = len(counts)
    side = float(np.clip(2.6 + (0.46 if labels <= ANNOTATED else 0.125) * labels, 4.6, 12))  # inches
    figure = new_figure(side + 0.9, side + 0.3, title)
    axes = figure.subplots()
    colours = matplotlib.colormaps["Blues"].with_extremes(bad=EMPTY)
    bar_label = "share of the images of a true label" if by == "true" else "share of the images with a prediction"
    norm = Normalize(0, 1)
    if labels > ANNOTATED:
        # With many labels most shares are small. A linear scale would draw them all nearly white.
        norm, bar_label = PowerNorm(0.5, 0, np.nanmax(shares)), f"{bar_label} (square-root scale)"
    image = axes.imshow(np.ma.masked_invalid(shares), cmap=colours, norm=norm, interpolation="nearest")
    _label_axes(axes, outcome, side)
    if labels <= ANNOTATED:
        _annotate(axes, counts, shares)
    axes.set_title(_heading(outcome, counts, by))
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, label=bar_label)
    bar.outline.set_visible(False)
    if np.isnan(shares).any():
        reason = "no images with this true label" if by == "true" else "this label is never predicted"
        figure.legend(handles=[Patch(color=EMPTY, label=reason)], loc="outside lower right", fontsize=8)
    add_note(figure, outcome.note)
    return figure


def _heading(outcome: Outcome, counts: Array, by: str) -> str:
    """Return the question of the figure, how it is read, and the accuracy."""
    correct, images = int(np.trace(counts)), len(outcome)
    question = "What is each label taken for?" if by == "true" else "If it predicts a label, what is the image really?"
    each = "column" if by == "true" else "row"
    cell = (
        f"a cell: share of its {each}, and number of images" if len(counts) <= ANNOTATED else f"each {each} sums to 1"
    )
    found = f"{images:,} images, {correct:,} correct (accuracy {correct / max(images, 1):.1%})"
    return f"{question} {found};\nthe diagonal is right; {cell}"


def _label_axes(axes: Axes, outcome: Outcome, side: float) -> None:
    """Name the labels along both axes, all of them if they fit."""
    labels = len(outcome.label_names)
    ticks = label_ticks(outcome.values, ordered=outcome.ordered, most=20 if outcome.ordered else 80)
    names = [printable(outcome.label_names[i], 20) for i in ticks]
    longest = max(map(len, names), default=0)
    upright = longest <= 1 or longest * len(ticks) * 0.11 < side - 2  # the names fit side by side below the columns
    size = 8 if len(ticks) > 40 else 9
    axes.set_xticks(ticks, names, rotation=0 if upright else 90, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.spines[:].set_visible(False)
    if len(ticks) == labels:
        axes.tick_params(length=0)
        between = np.arange(labels + 1) - 0.5
        # Two collections of lines take a third of the time of minor ticks with a grid.
        axes.hlines(between, -0.5, labels - 0.5, colors="#eeeeee", linewidths=0.5)
        axes.vlines(between, -0.5, labels - 0.5, colors="#eeeeee", linewidths=0.5)
    else:
        axes.spines[:].set(visible=True, color=EMPTY)
    unit = f" ({outcome.unit})" if outcome.unit else ""
    axes.set(xlabel=f"true label{unit}", ylabel=f"most likely label{unit}")


def _annotate(axes: Axes, counts: Array, shares: Array) -> None:
    """Write the share and the count into each cell with images."""
    for row, column in np.argwhere(counts > 0):
        share = shares[row, column]
        text = f"{'<0.01' if share < 0.005 else f'{share:.2f}'}\n{counts[row, column]:,}"
        axes.text(
            column, row, text, ha="center", va="center", color="white" if share > DARK else "black",
            fontsize=7.5, linespacing=0.95, in_layout=False,
        )  # fmt: skip
