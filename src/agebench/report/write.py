"""Write the report of a run: figures and tables in one folder, figures also to TensorBoard."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from agebench.files import atomic_write
from agebench.report.confusion import count_confusions, draw_confusion, write_confusion, write_most_confused
from agebench.report.curves import draw_curves, write_curves
from agebench.report.error_by_age import draw_errors_by_age, write_errors_by_age
from agebench.report.mistakes import write_mistakes
from agebench.report.outcome import Array, Outcome
from agebench.report.projection import MAX_TSNE_IMAGES, Plane, embed, fit_plane, obstacle, sample_rows, write_projection
from agebench.report.scatter import draw_scatter
from agebench.report.style import plot_style

MAX_MARKERS = 5_000  # markers per figure; more would cover each other

log = logging.getLogger(__name__)


def write_report(
    folder: Path,
    *,
    history: list[dict[str, float]],
    outcome: Outcome,
    features: dict[str, tuple[Array, Array]],
    title: str,
    writer: Any | None = None,
    step: int = 0,
) -> list[Path]:
    """Write all figures and tables that the data allow, and log the reason for each that is skipped.

    Args:
        folder: Output folder, created if it does not exist.
        history: One dict per epoch with `train/loss`, `val/accuracy`, `val/mae`, ... and optionally `epoch`.
        outcome: Predictions and targets of the test images.
        features: Maps a part (train, val, test) to features, float, shape (n, d), and label indices, int64, shape
            (n,). All of them are saved, so the caller limits n.
        title: Title of every figure.
        writer: TensorBoard's SummaryWriter. Every figure is added once under `x_report/`, the last
            group of cards.
        step: Optimizer step of the figures in TensorBoard. If a run is interrupted during its report and resumed,
            TensorBoard shows the figures of the later step.

    Returns:
        Paths of the written files, in the order of writing.

    Raises:
        OSError: If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with plot_style():
        report = _Report(folder, writer, step)
        _report_history(report, history, title=title, unit=outcome.unit)
        _report_outcome(report, outcome, title=title)
        _report_features(report, features, outcome=outcome, title=title)
    return report.files


class _Report:
    """The output of a report: its folder, TensorBoard, and the files written so far."""

    def __init__(self, folder: Path, writer: Any | None, step: int) -> None:
        self.folder, self.writer, self.step = folder, writer, step
        self.files: list[Path] = []

    def add_figure(self, name: str, figure: Figure) -> None:
        path = self.folder / f"{name}.png"
        with atomic_write(path) as part:
            figure.savefig(part, format="png")
        self.files.append(path)
        if self.writer is not None:
            self.writer.add_figure(f"x_report/{name}", figure, self.step)

    def skip(self, name: str, reason: str) -> None:
        log.info("report: skipped %s: %s", name, reason)


def _report_history(report: _Report, history: list[dict[str, float]], *, title: str, unit: str) -> None:
    figure = draw_curves(history, title=title, unit=unit)
    if figure is None:
        report.skip("curves", "no epochs were recorded")
        return
    report.add_figure("curves", figure)
    report.files.append(write_curves(report.folder / "curves.csv", history))


def _report_outcome(report: _Report, outcome: Outcome, *, title: str) -> None:
    if not len(outcome):
        report.skip("confusion", "there are no predictions")
        return
    counts = count_confusions(outcome)
    report.add_figure("confusion", draw_confusion(outcome, counts, title=title))
    report.files += [
        write_confusion(report.folder / "confusion.csv", counts, outcome.label_names),
        write_most_confused(report.folder / "most_confused.csv", counts, outcome.label_names),
        write_mistakes(report.folder / "mistakes.csv", outcome),
    ]
    if outcome.ordered and outcome.unit == "years":
        report.add_figure("error_by_age", draw_errors_by_age(outcome, title=title))
        report.files.append(write_errors_by_age(report.folder / "error_by_age.csv", outcome))


def _report_features(
    report: _Report, features: dict[str, tuple[Array, Array]], *, outcome: Outcome, title: str
) -> None:
    usable: dict[str, tuple[Array, Array]] = {}
    for part, (rows, labels) in features.items():
        path = report.folder / f"features_{part}.npz"
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, features=rows, labels=labels)
        report.files.append(path)
        finite = np.isfinite(rows).all(axis=1)  # (n, d) -> (n,)
        kept = np.asarray(rows[finite], dtype=np.float64)
        reason = obstacle(kept)
        if reason:
            report.skip(f"pca_{part} and tsne_{part}", reason)
        else:
            usable[part] = kept, labels[finite]
    shared = fit_plane(usable["train"][0], "train") if "train" in usable else None
    for part, (rows, labels) in usable.items():
        plane = shared or fit_plane(rows, part)
        _report_projection(report, part, rows, labels, plane=plane, outcome=outcome, title=title)


def _report_projection(
    report: _Report, part: str, rows: Array, labels: Array, *, plane: Plane, outcome: Outcome, title: str
) -> None:
    def draw(name: str, points: Array, shown: Array, axis_names: tuple[str, str]) -> None:
        count = f"{len(shown):,} of {len(rows):,}" if len(shown) < len(rows) else f"{len(rows):,}"
        figure = draw_scatter(
            points[shown],
            labels[shown],
            label_names=outcome.label_names,
            values=outcome.values if outcome.ordered else None,
            axis_names=axis_names,
            titles=(title, f"{name} of the features, {part}: {count} images"),
        )
        report.add_figure(f"{name.lower().replace('-', '')}_{part}", figure)

    pca = plane.project(rows)  # (n, d) -> (n, 2)
    first, second = (
        f"component {i} ({share:.1%} of the variance of {plane.part})"
        for i, share in enumerate(plane.explained, start=1)
    )
    draw("PCA", pca, sample_rows(len(rows), MAX_MARKERS), (first, second))

    shown = sample_rows(len(rows), MAX_TSNE_IMAGES)
    tsne = np.full_like(pca, np.nan)
    reason = obstacle(rows[shown])  # the sample may be constant although the features are not
    if reason:
        report.skip(f"tsne_{part}", reason)
    else:
        tsne[shown] = embed(rows[shown])
        draw("t-SNE", tsne, shown, ("t-SNE 1 (no unit)", "t-SNE 2 (no unit)"))
    names = [outcome.label_names[i] for i in labels]
    report.files.append(write_projection(report.folder / f"projection_{part}.csv", pca=pca, tsne=tsne, labels=names))
