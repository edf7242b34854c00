"""Training curves: loss, accuracy and mean absolute error per epoch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from agebench.files import write_csv
from agebench.report.outcome import Array
from agebench.report.style import COLOURS, new_figure

History = Sequence[dict[str, float]]
# Lines also differ in line style and marker, for grey printing and colour blindness.
STYLES = {
    "train": {"color": COLOURS[1], "linestyle": "--", "marker": "o", "markerfacecolor": "white"},
    "val": {"color": COLOURS[0], "linestyle": "-", "marker": "s"},
}


def epoch_numbers(history: History) -> Array:
    """Return the epoch numbers, starting from 1, int64, shape (E,).

    If every row has the key `epoch`, its values are used, shifted by one if they start at 0. Otherwise the rows are
    numbered.
    """
    recorded = [row.get("epoch", np.nan) for row in history]
    if not history or not np.all(np.isfinite(recorded)):
        return np.arange(1, len(history) + 1)
    numbers = np.asarray(recorded, dtype=np.int64)
    return numbers + 1 if numbers.min() == 0 else numbers


def write_curves(path: Path, history: History) -> Path:
    """Write one row per epoch and return the path. A missing value is an empty cell, a diverged value is `nan`."""
    keys = [key for key in dict.fromkeys(key for row in history for key in row) if key != "epoch"]
    rows = (
        [int(epoch), *(row.get(key, "") for key in keys)]
        for epoch, row in zip(epoch_numbers(history), history, strict=True)
    )
    return write_csv(path, ["epoch", *keys], rows)


def draw_curves(history: History, *, title: str, unit: str) -> Figure | None:
    """Return a figure with one panel per measured metric (loss, accuracy, MAE); None if there is no metric."""
    axis_names = {
        "loss": "loss",
        "accuracy": "accuracy (share correct)",
        "mae": f"mean absolute error ({unit or 'labels'})",
    }
    measured = {key for row in history for key in row}
    panels = [metric for metric in axis_names if any(f"{part}/{metric}" in measured for part in STYLES)]
    if not panels:
        return None
    epochs = epoch_numbers(history)
    figure = new_figure(3.9 * len(panels) + 0.3, 3.4, title)
    for axes, metric in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for part, style in STYLES.items():
            series = np.asarray([row.get(f"{part}/{metric}", np.nan) for row in history], dtype=np.float64)  # (E,)
            known = np.isfinite(series)
            if known.any():
                # Validation may run only every few epochs. The line joins the epochs with a value.
                axes.plot(epochs[known], series[known], label=part, markevery=max(1, int(known.sum()) // 25), **style)
        axes.set(xlabel="epoch", ylabel=axis_names[metric], xlim=(epochs.min() - 0.5, epochs.max() + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        axes.grid(True)
        if axes.lines:
            axes.legend()
        else:
            axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", va="center")
    return figure
