"""Overfitting and early stopping: two runs of `agebench train` on a few digits, without and with early stopping."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from agebench.errors import FailedError
from agebench.files import read_csv, write_csv
from agebench.lectures.grids import LABEL_SIZE, Array, save, titled_figure
from agebench.report.curves import STYLES
from agebench.report.style import COLOURS

EPOCHS, PATIENCE = 100, 10
# 100 images and 300,000 parameters: enough to learn every image by heart.
SETTINGS = (
    "data=digits", "data.per_class=10", "data.batch_size=20", "model=mlp", "model.hidden=[512,512]",
    "model.batch_norm=false", "optim.lr=1e-3", f"trainer.max_epochs={EPOCHS}", "monitor=val/loss", "report=false",
    "logger=csv",
)  # fmt: skip


@dataclass(frozen=True)
class Curves:
    """The epochs of a run, from its metrics.csv and results.json.

    Args:
        epochs: Numbers of the epochs from 1, int64, shape (E,).
        values: `train/loss`, `val/loss`, `train/accuracy`, `val/accuracy`, each float, shape (E,).
        test: The test metrics of the tested checkpoint.
    """

    epochs: Array
    values: dict[str, Array]
    test: dict[str, Any]

    @property
    def best(self) -> int:
        """The epoch with the lowest validation loss, which early stopping keeps."""
        return int(self.epochs[self.values["val/loss"].argmin()])


def draw(folder: Path) -> list[Path]:
    """Train twice, write the picture of both and the numbers of all epochs."""
    train(folder / "run_to_the_end", "test_checkpoint=last")
    train(folder / "run_with_early_stopping", f"callbacks.early_stopping.patience={PATIENCE}")
    full, stopped = (read_curves(folder / name) for name in ("run_to_the_end", "run_with_early_stopping"))
    columns = ["run", "epoch", *full.values]
    rows = [
        [name, int(epoch), *(run.values[key][i] for key in full.values)]
        for name, run in (("to the end", full), ("early stopping", stopped))
        for i, epoch in enumerate(run.epochs)
    ]
    return [
        draw_curves(folder / "overfitting.png", full, stopped),
        write_csv(folder / "overfitting.csv", columns, rows),
    ]


def train(folder: Path, *more: str) -> None:
    """Run `agebench train` with a folder as its run directory; a finished run there is kept.

    Raises:
        FailedError: If the training fails; it has printed why.
    """
    command = [sys.executable, "-m", "agebench.train", *SETTINGS, *more, f"hydra.run.dir={folder}"]
    if subprocess.run(command, check=False).returncode:
        raise FailedError(f"the training in {folder} failed; its last lines above say why")


def read_curves(folder: Path) -> Curves:
    """Return the curves of a run directory."""
    rows = read_csv(folder / "metrics.csv")
    keys = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")
    values = {key: np.array([float(row[key]) for row in rows]) for key in keys}
    epochs = np.array([int(row["epoch"]) + 1 for row in rows])
    return Curves(epochs, values, json.loads((folder / "results.json").read_text("utf-8"))["metrics"])


def draw_curves(path: Path, full: Curves, stopped: Curves) -> Path:
    """Draw the loss and the accuracy of train and validation, with the chosen epoch and the end of early stopping."""
    best, end = full.best, int(stopped.epochs[-1])
    val = full.values["val/loss"]
    losses = [f"{run.test['test/nll']:.2f}" for run in (stopped, full)]
    shares = [f"{run.test['test/accuracy']:.3f}" for run in (stopped, full)]
    title = (
        f"Overfitting (過学習) on 100 digits: after epoch {best} the validation loss rises from {val.min():.2f} to "
        f"{val[-1]:.2f}. Early stopping (早期終了) ends at epoch {end} and keeps epoch {best}: test loss {losses[0]} "
        f"instead of {losses[1]}, test accuracy {shares[0]} instead of {shares[1]} (one seed)"
    )
    figure = titled_figure(14, 6.2, title)
    loss, accuracy = figure.subplots(1, 2)
    for axes, metric, name in ((loss, "loss", "loss (損失)"), (accuracy, "accuracy", "accuracy (正解率)")):
        for part, style in STYLES.items():
            label = {"train": "train (学習データ)", "val": "validation (検証データ)"}[part]
            axes.plot(full.epochs, full.values[f"{part}/{metric}"], label=label, markevery=5, **style)
        _mark(axes, best, end)
        axes.set_xlabel("epoch (エポック)", fontsize=LABEL_SIZE)
        axes.set_ylabel(name, fontsize=LABEL_SIZE)
        axes.tick_params(labelsize=LABEL_SIZE - 1)
        axes.grid(True)
    loss.set_ylim(bottom=0, top=1.6 * val[-1])  # the first epochs are far above
    handles, labels = loss.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=LABEL_SIZE)
    return save(figure, path)


def _mark(axes: Axes, best: int, end: int) -> None:
    axes.axvline(best, color="black", linewidth=2, label="chosen epoch (lowest validation loss)")
    axes.axvline(end, color=COLOURS[2], linewidth=2, linestyle=":", label=f"early stopping, patience {PATIENCE}")
