"""Everything the lectures draw at the end of a run, into one folder and into TensorBoard."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from agebench.report.confusion import count_confusions, draw_confusion, write_confusion, write_most_confused
from agebench.report.curves import draw_curves, write_curves
from agebench.report.error_by_age import draw_errors_by_age, write_errors_by_age
from agebench.report.mistakes import write_mistakes
from agebench.report.outcome import Array, Outcome
from agebench.report.projection import TSNE_MOST, Plane, embed, fit_plane, sample_rows, why_not, write_projection
from agebench.report.scatter import draw_scatter
from agebench.report.style import look

DRAWN_MOST = 5_000  # marks in a picture; more hide one another

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
    """Write the pictures and tables that the data allow, and log why the others are left out.

    Args:
        folder: Where to; made if it does not exist.
        history: One dict an epoch, with `train/loss`, `val/accuracy`, `val/mae`, ... and `epoch` if it was recorded.
        outcome: What was predicted for the images of the final test.
        features: For each part (train, val, test) the features, float, shape (n, d), and label indices, int64, shape
            (n,). They are saved whole, so the caller decides how many are worth keeping.
        title: Printed on every picture.
        writer: TensorBoard's SummaryWriter, which gets every figure once under `report/`.
        step: At which optimizer step: a run that is interrupted in its report, and gone on with, shows the later ones.

    Returns:
        The files, in the order they were written.

    Raises:
        OSError: If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with look():
        book = _Book(folder, writer, step)
        _report_history(book, history, title=title, unit=outcome.unit)
        _report_outcome(book, outcome, title=title)
        _report_features(book, features, outcome=outcome, title=title)
    return book.files


class _Book:
    """Where the pages go."""

    def __init__(self, folder: Path, writer: Any | None, step: int) -> None:
        self.folder, self.writer, self.step = folder, writer, step
        self.files: list[Path] = []

    def add_figure(self, name: str, figure: Figure) -> None:
        path = self.folder / f"{name}.png"
        figure.savefig(path)
        self.files.append(path)
        if self.writer is not None:
            self.writer.add_figure(f"report/{name}", figure, self.step)

    def leave_out(self, name: str, reason: str) -> None:
        log.info("report: %s is left out: %s", name, reason)


def _report_history(book: _Book, history: list[dict[str, float]], *, title: str, unit: str) -> None:
    figure = draw_curves(history, title=title, unit=unit)
    if figure is None:
        book.leave_out("curves", "no epoch was recorded")
        return
    book.add_figure("curves", figure)
    book.files.append(write_curves(book.folder / "curves.csv", history))


def _report_outcome(book: _Book, outcome: Outcome, *, title: str) -> None:
    if not len(outcome):
        book.leave_out("confusion", "no image was predicted")
        return
    counts = count_confusions(outcome)
    book.add_figure("confusion", draw_confusion(outcome, counts, title=title))
    book.files += [
        write_confusion(book.folder / "confusion.csv", counts, outcome.label_names),
        write_most_confused(book.folder / "most_confused.csv", counts, outcome.label_names),
        write_mistakes(book.folder / "mistakes.csv", outcome),
    ]
    if outcome.ordered and outcome.unit == "years":
        book.add_figure("error_by_age", draw_errors_by_age(outcome, title=title))
        book.files.append(write_errors_by_age(book.folder / "error_by_age.csv", outcome))


def _report_features(book: _Book, features: dict[str, tuple[Array, Array]], *, outcome: Outcome, title: str) -> None:
    usable: dict[str, tuple[Array, Array]] = {}
    for part, (rows, labels) in features.items():
        path = book.folder / f"features_{part}.npz"
        np.savez(path, features=rows, labels=labels)
        book.files.append(path)
        finite = np.isfinite(rows).all(axis=1)  # (n, d) -> (n,)
        varied = np.asarray(rows[finite], dtype=np.float64)
        reason = why_not(varied)
        if reason:
            book.leave_out(f"pca_{part} and tsne_{part}", reason)
        else:
            usable[part] = varied, labels[finite]
    shared = fit_plane(usable["train"][0], "train") if "train" in usable else None
    for part, (rows, labels) in usable.items():
        plane = shared or fit_plane(rows, part)
        _report_projection(book, part, rows, labels, plane=plane, outcome=outcome, title=title)


def _report_projection(
    book: _Book, part: str, rows: Array, labels: Array, *, plane: Plane, outcome: Outcome, title: str
) -> None:
    def draw(name: str, points: Array, shown: Array, axis_names: tuple[str, str]) -> None:
        of = f"{len(shown):,} of {len(rows):,}" if len(shown) < len(rows) else f"{len(rows):,}"
        figure = draw_scatter(
            points[shown],
            labels[shown],
            label_names=outcome.label_names,
            values=outcome.values if outcome.ordered else None,
            axis_names=axis_names,
            titles=(title, f"{name} of the features, {part}: {of} images"),
        )
        book.add_figure(f"{name.lower().replace('-', '')}_{part}", figure)

    pca = plane.project(rows)  # (n, d) -> (n, 2)
    first, second = (
        f"component {i} ({share:.1%} of {plane.part}'s variance)" for i, share in enumerate(plane.explained, start=1)
    )
    draw("PCA", pca, sample_rows(len(rows), DRAWN_MOST), (first, second))

    shown = sample_rows(len(rows), TSNE_MOST)
    tsne = np.full_like(pca, np.nan)
    reason = why_not(rows[shown])  # a sample of few distinct features may hold a single one
    if reason:
        book.leave_out(f"tsne_{part}", reason)
    else:
        tsne[shown] = embed(rows[shown])
        draw("t-SNE", tsne, shown, ("t-SNE 1 (no unit)", "t-SNE 2 (no unit)"))
    names = [outcome.label_names[i] for i in labels]
    book.files.append(write_projection(book.folder / f"projection_{part}.csv", pca=pca, tsne=tsne, labels=names))
