"""The pictures of a run: one row per picture, which draws it from the material of the run and explains it.

A new picture is a row of PICTURES and its functions in agebench.report.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from agebench.files import atomic_write
from agebench.metrics.by_group import LEAST
from agebench.pages.material import Material
from agebench.progress import Bar
from agebench.report.calibration import draw_reliability, write_reliability
from agebench.report.confusion import ANNOTATED, count_confusions, draw_confusion, write_confusion, write_most_confused
from agebench.report.contact_sheets import (
    draw_augmentation,
    draw_confused_pairs,
    draw_excluded,
    draw_sheet,
    write_sheets,
)
from agebench.report.cs_curve import draw_cs_curve, write_cs_curve
from agebench.report.curves import draw_curves, write_curves
from agebench.report.decisions import draw_decisions
from agebench.report.error_by_age import draw_errors_by_age, write_errors_by_age
from agebench.report.estimates import draw_estimates, write_estimates
from agebench.report.mistakes import write_mistakes
from agebench.report.network import draw_feature_maps, draw_heat, draw_kernels
from agebench.report.outcome import Outcome
from agebench.report.posteriors import draw_posteriors, write_posteriors
from agebench.report.projection import sample_rows, write_projection
from agebench.report.report_images import ReportImages
from agebench.report.scatter import draw_scatter, draw_scatter_images
from agebench.report.style import plot_style
from agebench.runs.by_group import GroupResults
from agebench.runs.read import mapping

Section = Literal["data", "training", "test", "mistakes", "network"]
Level = Literal["light", "full"]

MAX_MARKERS = 5_000  # markers per figure; more would cover each other

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """A row of the table.

    Args:
        name: The name of the PNG file, and of the figure in TensorBoard.
        section: The section of the page that shows it.
        caption: One sentence for the page that says what it shows.
        draw: Returns the figure, or None if the run has nothing to show. None: the command that has the numbers draws
            the file.
        write: Writes the tables behind the figure into a folder, if the figure is drawn.
        level: The lowest level of a report that has it.
        photos: Whether it shows images, whose colours the dark page must not invert.
        on_page: Whether the page has it. The page shows contact sheets without figures.
        for_ages: A sentence that is added to the caption for ages.
    """

    name: str
    section: Section
    caption: str
    draw: Callable[[Material], Figure | None] | None
    write: Callable[[Material, Path], object] = lambda _run, _folder: None
    level: Level = "light"
    photos: bool = False
    on_page: bool = True
    for_ages: str = ""

    def caption_of(self, run: Material) -> str:
        """Return the caption on the page of a run."""
        return f"{self.caption} {self.for_ages}".rstrip() if run.unit else self.caption


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


def of_few_labels(draw: Callable[[Outcome, str], Figure | None]) -> Callable[[Material], Figure | None]:
    """Return a function that draws a confusion matrix, unless there are many ages: estimates.png shows them."""
    return of_outcome(
        lambda outcome, title: (
            None if outcome.ordered and len(outcome.label_names) > ANNOTATED else draw(outcome, title)
        )
    )


def of_images(draw: Callable[[Outcome, ReportImages, str], Figure | None]) -> Callable[[Material], Figure | None]:
    """Return a function that draws a picture if the run has predictions and images."""
    return lambda run: draw(run.outcome, run.images, run.title) if run.outcome and run.images else None


def _draw_curves(run: Material) -> Figure | None:
    best, planned = run.run.result("best"), run.run.config.get("trainer.max_epochs")
    best = best if isinstance(best, Mapping) and isinstance(best.get("value"), int | float) else None
    planned = planned if isinstance(planned, int) else None
    return draw_curves(run.history, title=run.title, unit=run.unit, best=best, planned_epochs=planned)


def _write_estimates(run: Material, folder: Path) -> None:
    write_estimates(folder / "estimates.csv", _outcome(run))
    _write_confusions(run, folder)


def _draw_sheet(run: Material, sheet: str) -> Figure | None:
    return draw_sheet(sheet, run.outcome, run.images, title=run.title) if run.outcome and run.images else None


def _sheets() -> Iterator[Picture]:
    """Yield the rows of the contact sheets."""
    captions = {
        "worst": "The worst mistakes: what each image shows, and what the network took it for.",
        "certain": "The images that the network got right with the least doubt.",
        "uncertain": "The images about which the network is least certain.",
    }
    for sheet, caption in captions.items():
        yield Picture(
            f"{sheet}_images",
            "mistakes",
            caption,
            partial(_draw_sheet, sheet=sheet),
            lambda run, folder: write_sheets(folder / "contact_sheets.csv", _outcome(run)),
            level="full",
            photos=True,
            on_page=False,
        )


def _write_confusions(run: Material, folder: Path) -> None:
    outcome = _outcome(run)
    counts = count_confusions(outcome)
    write_confusion(folder / "confusion.csv", counts, outcome.label_names)
    write_most_confused(folder / "most_confused.csv", counts, outcome.label_names)
    write_mistakes(folder / "mistakes.csv", outcome)


def _draw_decisions(run: Material) -> Figure | None:
    curves, decision = run.decision_curves, run.run.result("decision")
    return draw_decisions(curves, decision, title=run.title) if curves is not None and decision else None


def _draw_projection(run: Material, part: str, name: str) -> Figure | None:
    """Return the scatter plot of a projection, `PCA` or `t-SNE`; None if the part has none."""
    outcome, found = run.outcome, run.projected.get(part)
    if found is None or outcome is None:
        return None
    points = found.pca if name == "PCA" else found.tsne
    known = np.flatnonzero(np.isfinite(points).all(axis=1))
    if not len(known):
        return None
    shown = known[sample_rows(len(known), MAX_MARKERS)]
    total = max(sum(run.counts.get(part, {}).values()), len(points))
    count = f"{len(shown):,} of {total:,}" if len(shown) < total else f"{total:,}"
    first, second = (
        f"component {i} ({share:.1%} of the variance of {found.plane.part})"
        for i, share in enumerate(found.plane.explained, start=1)
    )
    return draw_scatter(
        points[shown],
        found.labels[shown],
        label_names=outcome.label_names,
        values=outcome.values if outcome.ordered else None,
        axis_names=(first, second) if name == "PCA" else ("t-SNE 1 (no unit)", "t-SNE 2 (no unit)"),
        titles=(run.title, f"Which images have similar features? {name}, {count} {part} images"),
    )


def _draw_thumbnails(run: Material) -> Figure | None:
    """Return the figure of t-SNE with the test images themselves."""
    found, pixels = run.projected.get("test"), run.thumbnails.get("test")
    if found is None or pixels is None or len(pixels) != len(found.tsne):  # images without finite features are left out
        return None
    known = np.flatnonzero(np.isfinite(found.tsne).all(axis=1))
    if not len(known):
        return None
    names = "t-SNE 1 (no unit)", "t-SNE 2 (no unit)"
    titles = (
        run.title,
        f"Which images does the network take for similar? t-SNE of the features, {len(known):,} test images",
    )
    return draw_scatter_images(found.tsne[known], pixels[known], axis_names=names, titles=titles)


def _write_projection(run: Material, folder: Path, part: str) -> None:
    found = run.projected[part]
    names = [_outcome(run).label_names[i] for i in found.labels]
    write_projection(folder / f"projection_{part}.csv", pca=found.pca, tsne=found.tsne, labels=names)


def _projections(part: str) -> Iterator[Picture]:
    """Yield the rows of the projections of a part."""
    captions = {
        "t-SNE": f"The {part} images, placed so that those with similar features are close (t-SNE). Colours are true "
        "labels; distances between groups mean nothing.",
        "PCA": f"The features of the {part} images, seen from the side on which they differ most (PCA).",
    }
    for name, caption in captions.items():
        file = f"{name.lower().replace('-', '')}_{part}"
        draw, write = partial(_draw_projection, part=part, name=name), partial(_write_projection, part=part)
        yield Picture(file, "network", caption, draw, write, level="full")


def _draw_groups(run: Material) -> Figure | None:
    facts, outcome = mapping(run.run.result("groups")), run.outcome
    if not run.groups or not facts or outcome is None:
        return None
    rows: list[list[object]] = [list(row.values()) for row in run.groups]
    overall = {name: value for name, value in run.run.metrics.items() if value is not None}
    table = list(run.groups[0]), rows
    return GroupResults(dict(facts), outcome.names, {}, table, overall, run.unit, run.protocol).figure()


PICTURES: tuple[Picture, ...] = (
    Picture(
        "curves",
        "training",
        "Loss and accuracy (or error) after each epoch of training; dotted: the epoch whose weights are tested.",
        _draw_curves,
        lambda run, folder: write_curves(folder / "curves.csv", run.history),
    ),
    Picture(
        "augmentation",
        "data",
        "Training images as they are stored, and as the network sees them after augmentation.",
        of_images(
            lambda outcome, images, title: draw_augmentation(images, label_names=outcome.label_names, title=title)
        ),
        level="full",
        photos=True,
        on_page=False,
    ),
    Picture(
        "excluded",
        "data",
        "Images that the data set lists and that could not be used.",
        lambda run: draw_excluded(run.missing, run.broken, title=run.title),
    ),
    Picture(
        "confusion",
        "test",
        "Confusion matrix: each column shows what the images of one true label were taken for.",
        of_few_labels(lambda outcome, title: draw_confusion(outcome, count_confusions(outcome), title=title)),
        _write_confusions,
    ),
    Picture(
        "confusion_by_prediction",
        "test",
        "Each row shows what the images with one prediction really are.",
        of_few_labels(
            lambda outcome, title: draw_confusion(outcome, count_confusions(outcome), title=title, by="predicted")
        ),
        level="full",
    ),
    Picture(
        "estimates",
        "test",
        "Estimated over true values, a dot per image; on the dashed line the estimate is exact.",
        of_outcome(lambda outcome, title: draw_estimates(outcome, title=title)),
        _write_estimates,
    ),
    Picture(
        "error_by_age",
        "test",
        "Mean absolute error and bias over the true age, with 95% intervals; hollow markers depend on few images.",
        of_ages(lambda outcome, title: draw_errors_by_age(outcome, title=title)),
        lambda run, folder: write_errors_by_age(folder / "error_by_age.csv", _outcome(run)),
    ),
    Picture(
        "cs_curve",
        "test",
        "The share of images whose error is at most so many years (cumulative score).",
        of_ages(lambda outcome, title: draw_cs_curve(outcome, title=title)),
        lambda run, folder: write_cs_curve(folder / "cs_curve.csv", _outcome(run)),
        level="full",
    ),
    Picture(
        "reliability",
        "test",
        "Is the network right as often as it claims? On the dashed line it is.",
        of_outcome(lambda outcome, title: draw_reliability(outcome, title=title)),
        lambda run, folder: write_reliability(folder / "reliability.csv", _outcome(run)),
        level="full",
    ),
    Picture(
        "posteriors",
        "test",
        "The probability of each label for single test images: easy ones, hard ones and mistakes.",
        of_images(lambda outcome, images, title: draw_posteriors(outcome, images, title=title)),
        lambda run, folder: write_posteriors(folder / "posteriors.csv", _outcome(run)),
        level="full",
        photos=True,
    ),
    *_sheets(),
    Picture(
        "confused_pairs",
        "mistakes",
        "The labels that are confused most often, with examples of both directions.",
        of_images(lambda outcome, images, title: draw_confused_pairs(outcome, images, title=title)),
        level="full",
        photos=True,
    ),
    Picture(
        "decision",
        "test",
        "How many people below the age limit pass, and how many above it are checked, for each challenge age.",
        _draw_decisions,
    ),
    Picture(
        "by_group",
        "test",
        "The metrics in each group of people, with 95% intervals; the dashed line is the value of all images. Groups "
        f"with an empty marker have fewer than {LEAST} people (images, if people are unknown) and are not compared.",
        _draw_groups,
        for_ages="The differences are not adjusted for the ages of the groups, which may explain them.",
    ),
    Picture(
        "calibration",
        "test",
        "Is the network right as often as it claims, before and after calibration?",
        None,
        for_ages="On the right: the share of true ages inside the calibrated ranges.",
    ),
    Picture(
        "heat",
        "network",
        "Where the network looks: orange regions speak for its answer, blue ones against it (HiResCAM, a form of "
        "Grad-CAM; occlusion for networks without feature maps).",
        lambda run: draw_heat(run.explained, _outcome(run), title=run.title) if run.explained else None,
        for_ages="Orange regions raise the estimated age.",
        level="full",
        photos=True,
    ),
    Picture(
        "kernels",
        "network",
        "The weights of the first layer: the patterns to which it responds.",
        lambda run: draw_kernels(run.explained, title=run.title) if run.explained else None,
        level="full",
        photos=True,
    ),
    Picture(
        "feature_maps",
        "network",
        "What each stage of the network computes from one test image.",
        lambda run: draw_feature_maps(run.explained, title=run.title) if run.explained else None,
        level="full",
        photos=True,
    ),
    *_projections("test"),
    Picture(
        "tsne_test_images",
        "network",
        "The test images themselves, placed by t-SNE: images that the network takes for similar are neighbours.",
        _draw_thumbnails,
        level="full",
        photos=True,
    ),
    *_projections("train"),
    *_projections("val"),
)


def draw_pictures(run: Material, *, level: Level) -> Iterator[tuple[Picture, Path]]:
    """Draw the pictures of a run into its report/, write their tables, and yield each picture with its file.

    A picture that cannot be drawn is skipped with a warning. Pictures of an earlier report stay.
    """
    run.report.mkdir(exist_ok=True)
    pictures = pictures_of(level)
    with plot_style(), Bar("drawing", total=len(pictures), unit="pictures") as bar:
        for picture in pictures:
            bar.update()
            path = run.report / f"{picture.name}.png"
            try:
                if picture.draw is None:
                    if _is_png(path):
                        yield picture, path
                    continue
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


def drawn_pictures(run: Material) -> list[tuple[Picture, Path]]:
    """Return the pictures of a run that are in its report/."""
    paths = [(picture, run.report / f"{picture.name}.png") for picture in PICTURES]
    return [(picture, path) for picture, path in paths if _is_png(path)]


def _is_png(path: Path) -> bool:
    """Return whether a path is a PNG file, and no link, which could lead out of a run folder of others."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8) == b"\x89PNG\r\n\x1a\n"


def pictures_of(level: Level) -> Sequence[Picture]:
    """Return the rows of a level; full contains light."""
    return [picture for picture in PICTURES if level == "full" or picture.level == "light"]
