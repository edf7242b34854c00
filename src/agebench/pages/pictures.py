"""The pictures of a run: one row per picture, which draws it from the material of the run and explains it.

A new picture is a row of PICTURES and its functions in agebench.report.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure

from agebench.files import atomic_write
from agebench.pages.material import Material
from agebench.report.confusion import count_confusions, draw_confusion, write_confusion, write_most_confused
from agebench.report.curves import draw_curves, write_curves
from agebench.report.decisions import draw_decisions
from agebench.report.error_by_age import draw_errors_by_age, write_errors_by_age
from agebench.report.mistakes import write_mistakes
from agebench.report.outcome import Outcome
from agebench.report.style import plot_style

Section = Literal["data", "training", "test", "mistakes", "network"]
Level = Literal["light", "full"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """A row of the table.

    Args:
        name: The name of the PNG file, and of the figure in TensorBoard.
        section: The section of the page that shows it.
        caption: One sentence for the page that says what it shows.
        draw: Returns the figure; None if the run has nothing to show.
        write: Writes the tables behind the figure into a folder, if the figure is drawn.
        level: The lowest level of a report that has it.
        photos: Whether it shows images, whose colours the dark page must not invert.
    """

    name: str
    section: Section
    caption: str
    draw: Callable[[Material], Figure | None]
    write: Callable[[Material, Path], object] = lambda _run, _folder: None
    level: Level = "light"
    photos: bool = False


def _outcome(run: Material) -> Outcome:
    if run.outcome is None:
        raise ValueError("no predictions")
    return run.outcome


def of_outcome(draw: Callable[[Outcome, str], Figure | None]) -> Callable[[Material], Figure | None]:
    """Return a function that draws a picture if the run has predictions."""
    return lambda run: draw(run.outcome, run.title) if run.outcome is not None else None


def of_ages(draw: Callable[[Outcome, str], Figure | None]) -> Callable[[Material], Figure | None]:
    """Return a function that draws a picture if the run has predictions of ages in years."""
    return lambda run: draw(run.outcome, run.title) if run.outcome is not None and run.unit == "years" else None


def _write_confusions(run: Material, folder: Path) -> None:
    outcome = _outcome(run)
    counts = count_confusions(outcome)
    write_confusion(folder / "confusion.csv", counts, outcome.label_names)
    write_most_confused(folder / "most_confused.csv", counts, outcome.label_names)
    write_mistakes(folder / "mistakes.csv", outcome)


def _draw_decisions(run: Material) -> Figure | None:
    curves, decision = run.decision_curves, run.run.result("decision")
    return draw_decisions(curves, decision, title=run.title) if curves is not None and decision else None


PICTURES: tuple[Picture, ...] = (
    Picture(
        "curves",
        "training",
        "Loss and accuracy (or error) after each epoch of training.",
        lambda run: draw_curves(run.history, title=run.title, unit=run.unit),
        lambda run, folder: write_curves(folder / "curves.csv", run.history),
    ),
    Picture(
        "confusion",
        "test",
        "Confusion matrix: each column shows what the images of one true label were taken for.",
        of_outcome(lambda outcome, title: draw_confusion(outcome, count_confusions(outcome), title=title)),
        _write_confusions,
    ),
    Picture(
        "error_by_age",
        "test",
        "Mean absolute error and bias at each true age, and the number of test images of that age.",
        of_ages(lambda outcome, title: draw_errors_by_age(outcome, title=title)),
        lambda run, folder: write_errors_by_age(folder / "error_by_age.csv", _outcome(run)),
    ),
    Picture(
        "decision",
        "test",
        "How many people below the age limit pass, and how many above it are checked, for each challenge age.",
        _draw_decisions,
    ),
)


def draw_pictures(run: Material, *, level: Level) -> Iterator[tuple[Picture, Path]]:
    """Draw the pictures of a run into its report/, write their tables, and yield each picture with its file.

    A picture that cannot be drawn is skipped with a warning. A file of a picture that is no longer drawn is removed.
    """
    run.report.mkdir(exist_ok=True)
    with plot_style():
        for picture in pictures_of(level):
            path = run.report / f"{picture.name}.png"
            try:
                figure = picture.draw(run)
                if figure is not None:
                    with atomic_write(path) as part:
                        figure.savefig(part, format="png")
                    picture.write(run, run.report)
                    yield picture, path
            except OSError:
                raise
            except Exception as error:  # the page is complete without one picture
                log.warning("report: %s is left out: %s: %s", path.name, type(error).__name__, error)


def pictures_of(level: Level) -> Sequence[Picture]:
    """Return the rows of a level; full contains light."""
    return [picture for picture in PICTURES if level == "full" or picture.level == "light"]
