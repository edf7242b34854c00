"""Mean absolute error and bias at each true age."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from agebench.files import write_csv
from agebench.report.outcome import Array, Outcome
from agebench.report.style import COLOURS, GREY, add_note, new_figure


def errors_by_label(outcome: Outcome) -> tuple[Array, Array, Array]:
    """Return the number of images (int64), MAE and bias (float64, in the target's unit) per label, shape (R,) each.

    Bias is the mean of estimate minus true age: above 0 the model overestimates. A label without images has NaN.
    """
    labels = len(outcome.values)
    error = np.asarray(outcome.point - outcome.values[outcome.target], dtype=np.float64)  # (N,)
    images = np.bincount(outcome.target, minlength=labels)  # (N,) -> (R,)
    known = np.where(images > 0, images, np.nan)
    mae = np.bincount(outcome.target, weights=np.abs(error), minlength=labels) / known
    bias = np.bincount(outcome.target, weights=error, minlength=labels) / known
    return images, mae, bias


def write_errors_by_age(path: Path, outcome: Outcome) -> Path:
    """Write one row per age that has images, and return the path."""
    rows = [
        [f"{value:g}", int(images), f"{mae:.4f}", f"{bias:.4f}"]
        for value, images, mae, bias in zip(outcome.values, *errors_by_label(outcome), strict=True)
        if images > 0
    ]
    return write_csv(path, ["age", "images", "mae", "bias"], rows)


def draw_errors_by_age(outcome: Outcome, *, title: str) -> Figure:
    """Return a figure with mean absolute error and bias (upper panel) and the number of images (lower panel)."""
    images, mae, bias = errors_by_label(outcome)
    error = outcome.point - outcome.values[outcome.target]  # (N,)
    figure = new_figure(6.4, 4.6, title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.axhline(0, color=GREY, linewidth=0.8)
    upper.plot(outcome.values, mae, color=COLOURS[0], marker="s", label="mean absolute error")
    upper.plot(
        outcome.values,
        bias,
        color=COLOURS[1],
        marker="o",
        linestyle="--",
        markerfacecolor="white",
        label="bias (estimate - true age)",
    )
    if outcome.lookup_mae is not None:
        label = f"MAE of an identity lookup, without images: {outcome.lookup_mae:.2f}"
        upper.axhline(outcome.lookup_mae, color=COLOURS[2], linestyle=":", label=label)
    upper.set_ylabel(f"error ({outcome.unit})")
    upper.set_title(
        f"{len(outcome):,} images: mean absolute error {np.abs(error).mean():.2f} {outcome.unit}, "
        f"bias {error.mean():+.2f} {outcome.unit}"
    )
    upper.legend()
    upper.grid(True)
    gaps = np.diff(np.sort(outcome.values))
    lower.bar(outcome.values, images, width=0.8 * (gaps.min() if len(gaps) else 1), color=GREY)
    lower.set(xlabel=f"true age ({outcome.unit})", ylabel="images")
    lower.grid(True, axis="y")
    add_note(figure, outcome.note)
    return figure
