"""Training curves: loss, accuracy and mean absolute error per epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from agebench.files import write_csv
from agebench.report.outcome import Array
from agebench.report.style import COLOURS, GREY, add_finding, new_figure

History = Sequence[dict[str, float]]
# Lines also differ in line style and marker, for grey printing and colour blindness.
STYLES = {
    "train": {"color": COLOURS[1], "linestyle": "--", "marker": "o", "markerfacecolor": "white"},
    "val": {"color": COLOURS[0], "linestyle": "-", "marker": "s"},
}
BEST: dict[str, Any] = {"color": "black", "marker": "*", "markersize": 11, "linestyle": "", "zorder": 4}


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


def draw_curves(
    history: History,
    *,
    title: str,
    unit: str,
    best: Mapping[str, Any] | None = None,
    planned_epochs: int | None = None,
) -> Figure | None:
    """Return a figure with one panel per measured metric (loss, accuracy, MAE); None if there is no metric.

    Args:
        history: One dict per epoch.
        title: Title of the run.
        unit: Unit of the target, empty for classes.
        best: `best` of results.json, which marks the tested epoch; None marks none.
        planned_epochs: `trainer.max_epochs`; fewer epochs mean that training stopped early.
    """
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
    figure = new_figure(3.9 * len(panels) + 0.3, 3.7, title)
    figure.set_layout_engine("constrained", w_pad=0.12)  # so that the right axis name is far from the left panel
    marked = _marked_epoch(best, history)
    for axes, metric in zip(figure.subplots(1, len(panels), squeeze=False, sharex=True)[0], panels, strict=True):
        for part, style in STYLES.items():
            series = _series(history, f"{part}/{metric}")
            known = np.isfinite(series)
            if known.any():
                # Validation may run only every few epochs. The line joins the epochs with a value.
                axes.plot(epochs[known], series[known], label=part, markevery=max(1, int(known.sum()) // 25), **style)
        axes.set(xlabel="epoch", ylabel=axis_names[metric], xlim=(epochs.min() - 0.5, epochs.max() + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        axes.grid(True)
        if not axes.lines:
            axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", va="center")
        if marked is not None and best is not None:
            axes.axvline(marked, color=GREY, linewidth=1, linestyle=":", label="tested epoch", zorder=1)
            at = _series(history, best["monitor"])[epochs == marked]
            if best["monitor"].endswith(f"/{metric}") and np.isfinite(at).any():
                axes.plot(marked, at[0], label=f"best {best['monitor']}", **BEST)
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:  # below the panels, where it cannot be taken for a part of a curve
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles))
    add_finding(figure, _summary(best, marked, int(epochs.max()), planned_epochs))
    return figure


def _series(history: History, key: str) -> Array:
    return np.asarray([row.get(key, np.nan) for row in history], dtype=np.float64)  # (E,)


def _marked_epoch(best: Mapping[str, Any] | None, history: History) -> int | None:
    """Return the number of the tested epoch, from 1; None if it is unknown or not in the history."""
    if best is None:
        return None
    epochs = epoch_numbers(history)
    if best.get("tested") == "last":
        return int(epochs[-1])
    number = None if best.get("epoch") is None else int(best["epoch"]) + 1  # results.json counts from 0
    return number if number in epochs else None


def _summary(best: Mapping[str, Any] | None, marked: int | None, last: int, planned: int | None) -> str:
    stopped = f", stopped early (of {planned} planned)" if planned is not None and 0 <= last < planned else ""
    trained = f"trained for {last} epoch{'s' * (last != 1)}{stopped}"
    if best is None or marked is None:
        return trained
    if best.get("tested") == "last":
        return f"{trained}; the last epoch is tested"
    return f"{trained}; {best['monitor']} is best after epoch {marked} ({best['value']:.4g}), which is tested"
