"""Contact sheets: test images with their true and predicted labels, confused pairs, and the augmented sample batch."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from agebench.files import write_csv
from agebench.report.outcome import Array, Outcome
from agebench.report.report_images import ReportImages, as_picture
from agebench.report.selection import SHEETS, ConfusedPair, confused_pairs, doubt, estimated_labels, is_correct
from agebench.report.style import COLOURS, GREY, add_note, new_figure, printable

COLUMNS = 6
GAP = 0.12  # between images, as a share of the side of an image
LINE = 0.145  # height of a line of text, as a share of the side of an image
MAX_NAME = 13  # characters of a label name that fit below an image
WRONG = COLOURS[1]


class _Tile(NamedTuple):
    """An image, the lines of text below it, and whether the prediction is right (None if there is none)."""

    pixels: Array
    lines: Sequence[str]
    correct: bool | None = None


def draw_sheet(sheet: str, outcome: Outcome, images: ReportImages, *, title: str) -> Figure | None:
    """Return a figure with the images of a sheet; None if there are none.

    Args:
        sheet: `worst`, `certain` or `uncertain`, a key of SHEETS.
        outcome: Predictions of the test images.
        images: The images that are kept.
        title: Title of the run.
    """
    rows, pixels = images.find(SHEETS[sheet](outcome))
    if not len(rows):
        return None
    correct = is_correct(outcome)
    tiles = [
        _Tile(each, _describe(outcome, row, sheet), bool(correct[row])) for row, each in zip(rows, pixels, strict=True)
    ]
    return _draw_tiles(tiles, title, _heading(sheet, outcome, len(rows)))


def draw_confused_pairs(outcome: Outcome, images: ReportImages, *, title: str) -> Figure | None:
    """Return a figure with the most confused label pairs and examples of both directions; None if there are none."""
    pairs = confused_pairs(outcome)
    if not pairs:
        return None
    width = max(2.4, *(len(rows) for pair in pairs for rows in pair.rows)) + 0.4  # of a direction, in images
    height = 1 + 3 * LINE + GAP
    heading = "Which labels are confused most often?\nBelow each image: the probability of the wrong label"
    figure, axes = _new_sheet((2 * width - 0.4, height * len(pairs)), title, heading, side=0.75)
    for number, pair in enumerate(pairs):
        for side in (0, 1):
            _draw_direction(axes, outcome, images, pair, side, corner=(side * width, number * height))
    return figure


def draw_augmentation(images: ReportImages, *, label_names: Sequence[str], title: str) -> Figure | None:
    """Return a figure with the sample batch before and, below each image, after augmentation; None without a sample."""
    if not len(images.before):
        return None
    names = [printable(label_names[label], MAX_NAME) for label in images.sample_target]
    tiles: list[_Tile | None]
    if not len(images.after):
        tiles = [_Tile(pixels, [name]) for pixels, name in zip(images.before, names, strict=True)]
        return _draw_tiles(tiles, title, "What the network is trained on: train images with their labels")
    tiles = []
    for first in range(0, len(names), COLUMNS):
        part = slice(first, first + COLUMNS)
        stored = [_Tile(pixels, [name]) for pixels, name in zip(images.before[part], names[part], strict=True)]
        empty = [None] * (COLUMNS - len(stored))  # so that each image is above its copy
        tiles += [*stored, *empty, *(_Tile(pixels, ["augmented"]) for pixels in images.after[part]), *empty]
    return _draw_tiles(tiles, title, "What does augmentation change? Train images as stored, and augmented below them")


def draw_excluded(missing: Sequence[str], broken: Mapping[str, str], *, title: str, most: int = 20) -> Figure | None:
    """Return a figure with a table of the images that could not be used; None if all could.

    Args:
        missing: Names of listed images that do not exist.
        broken: Reason by name of images that cannot be decoded.
        title: Title of the run.
        most: Maximum number of rows.
    """
    rows = [(name, why) for name, why in broken.items()] + [(name, "the file does not exist") for name in missing]
    if not rows:
        return None
    shown = [[_shorten(printable(name), 44), _shorten(printable(why), 60)] for name, why in rows[:most]]
    figure = new_figure(7.2, 1.1 + 0.2 * len(shown), title)
    axes = figure.subplots()
    axes.set_axis_off()
    table = axes.table(
        shown, colLabels=["image", "reason"], colWidths=[0.43, 0.57], cellLoc="left", loc="upper center", edges="B"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for cell in table.get_celld().values():
        cell.set_edgecolor("#dddddd")
    axes.set_title(f"Which images are left out? Cannot be decoded: {len(broken):,}; do not exist: {len(missing):,}")
    if len(rows) > most:
        add_note(figure, f"{len(rows) - most:,} more are in broken.csv and missing.csv")
    return figure


def write_sheets(path: Path, outcome: Outcome) -> Path:
    """Write one row per image of each sheet, in the order of the sheets, and return the path."""
    probability, estimated, uncertain = outcome.posterior.max(1), estimated_labels(outcome), doubt(outcome)
    rows = [
        [
            sheet,
            place,
            outcome.names[row],
            outcome.label_names[outcome.target[row]],
            outcome.label_names[estimated[row]],
            f"{outcome.point[row]:.4f}" if outcome.ordered else "",
            f"{probability[row]:.4f}",
            f"{outcome.posterior[row, outcome.target[row]]:.4f}",
            f"{uncertain[row]:.4f}",
        ]
        for sheet, choose in SHEETS.items()
        for place, row in enumerate(choose(outcome), start=1)
    ]
    header = ["sheet", "place", "name", "target", "estimated_label", "point", "highest_probability"]
    return write_csv(path, [*header, "probability_of_target", "doubt"], rows)


def _heading(sheet: str, outcome: Outcome, shown: int) -> str:
    """Return the question that a sheet answers, and what is written below each image."""
    wrong = int((~is_correct(outcome)).sum())
    of = f"of {len(outcome):,} test images"
    spread = "standard deviation of its probabilities" if outcome.ordered else "probability of the prediction"
    below = f"\nBelow each image: true label, prediction, {spread}"
    if sheet == "worst":
        below = below.replace(spread, "probability of the true label") if outcome.ordered else below
        return f"Which images does it get most wrong? The worst {shown} of {wrong:,} mistakes ({of}){below}"
    if sheet == "certain":
        return f"Which images are easy? Correct predictions with the least doubt, {shown} {of}{below}"
    return f"Which images are hard? Predictions with the most doubt, {shown} {of}{below}"


def _describe(outcome: Outcome, row: int, sheet: str) -> list[str]:
    """Return the lines below an image: the true label, the prediction, and how certain it is."""
    true, taken = outcome.target[row], estimated_labels(outcome)[row]
    names = [_shorten(printable(outcome.label_names[label]), MAX_NAME) for label in (true, taken)]
    if outcome.ordered:
        if outcome.unit == "years":
            error = outcome.point[row] - outcome.values[true]
            lines = [f"true age: {names[0]}", f"estimate: {outcome.point[row]:.0f} ({error:+.0f})"]
        else:
            lines = [f"true: {names[0]}", f"estimate: {names[1]}"]
        spread = f"± {doubt(outcome)[row]:.1f} {outcome.unit}".strip()
        chance = f"P({names[0]}) = {percent(outcome.posterior[row, true])}"
        return [*lines, chance if sheet == "worst" else spread]
    chance = percent(outcome.posterior[row, taken])
    return [f"true: {names[0]}", f"taken for: {names[1]}" if len(names[1]) < 4 else f"as: {names[1]}", chance]


def percent(probability: float) -> str:
    """Return a probability as a percentage that is 0% or 100% only if the probability is 0 or 1."""
    if 0 < probability < 0.005:
        return "<1%"
    if 0.995 <= probability < 1:
        return ">99%"
    return f"{probability:.0%}"


def _shorten(name: str, most: int) -> str:
    head = (most - 1) // 2
    return name if len(name) <= most else f"{name[:head]}…{name[head + 1 - most :]}"


def _draw_tiles(tiles: Sequence[_Tile | None], title: str, heading: str) -> Figure:
    """Return a figure with tiles from left to right and top to bottom. None is an empty place."""
    columns = min(COLUMNS, len(tiles))
    height = 1 + max(len(tile.lines) for tile in tiles if tile) * LINE + GAP
    size = columns * (1 + GAP) - GAP, -(-len(tiles) // columns) * height
    figure, axes = _new_sheet(size, title, heading)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        if tile is not None:
            _draw_tile(axes, tile, column * (1 + GAP), row * height, size=8)
    return figure


def _new_sheet(size: tuple[float, float], title: str, heading: str, *, side: float = 1.05) -> tuple[Figure, Axes]:
    """Return a figure and its axes of a width and height in images, whose side is 1, or `side` inches."""
    width = max(side * size[0] + 0.2, 5.0)
    lines = [line for part in heading.split("\n") for line in textwrap.wrap(part, int(width * 13))]
    figure = new_figure(width, side * size[1] + 0.42 + 0.16 * len(lines), title)
    axes = figure.subplots()
    axes.set(xlim=(-0.05, size[0] + 0.05), ylim=(size[1], -0.05), aspect="equal")
    axes.set_axis_off()
    axes.set_title("\n".join(lines))
    return figure, axes


def _draw_tile(axes: Axes, tile: _Tile, left: float, top: float, *, size: float) -> None:
    extent = (left, left + 1, top + 1, top)
    axes.add_image(AxesImage(axes, data=as_picture(tile.pixels), extent=extent, interpolation="nearest"))
    for number, line in enumerate(tile.lines):
        ink = WRONG if tile.correct is False and number == 1 else "black"
        where = left + 0.5, top + 1 + (number + 0.15) * LINE
        # The axes have room for the text. Measuring each text for the layout takes seconds.
        axes.text(*where, line, ha="center", va="top", fontsize=size, color=ink, in_layout=False)


def _draw_direction(
    axes: Axes, outcome: Outcome, images: ReportImages, pair: ConfusedPair, side: int, *, corner: tuple[float, float]
) -> None:
    """Draw a heading and the examples of one direction of a pair."""
    true, taken = pair.labels if side == 0 else pair.labels[::-1]
    names = [_shorten(printable(outcome.label_names[label]), MAX_NAME) for label in (true, taken)]
    count, total = pair.counts[side], int((outcome.target == true).sum())
    left, top = corner
    text = f"{names[0]} taken for {names[1]}: {count:,} of {total:,}"
    axes.text(left, top + 1.1 * LINE, text, va="bottom", fontsize=8, color="black" if count else GREY, in_layout=False)
    rows, pixels = images.find(pair.rows[side])
    for place, (row, each) in enumerate(zip(rows, pixels, strict=True)):
        tile = _Tile(each, [percent(outcome.posterior[row, taken])])
        _draw_tile(axes, tile, left + place, top + 1.3 * LINE, size=7)
