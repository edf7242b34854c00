"""The posteriors of single images, as small bar charts next to the images."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agebench.files import write_csv
from agebench.report.contact_sheets import percent
from agebench.report.outcome import Outcome
from agebench.report.report_images import ReportImages, as_picture
from agebench.report.selection import estimated_labels, single_images
from agebench.report.style import COLOURS, GREY, label_ticks, new_figure, printable

MAX_BARS = 12  # classes; of more, only the most likely ones are drawn
COLUMNS = 2
TRUE, OTHER = COLOURS[2], "#9ab6c8"


def draw_posteriors(outcome: Outcome, images: ReportImages, *, title: str) -> Figure | None:
    """Return a figure with the posterior of up to 8 images; None without images.

    Args:
        outcome: Predictions of the test images.
        images: The images that are kept.
        title: Title of the run.
    """
    rows, pixels = images.find(single_images(outcome))
    if not len(rows):
        return None
    lines = -(-len(rows) // COLUMNS)
    figure = new_figure(7.6, 0.95 + 1.3 * lines, title)
    grid = figure.add_gridspec(
        lines + 1, 2 * COLUMNS, width_ratios=[1, 2.6] * COLUMNS, height_ratios=[0.01, *[1] * lines]
    )
    heading = figure.add_subplot(grid[0, :])
    heading.set_axis_off()
    which = "each label" if outcome.ordered or len(outcome.label_names) <= MAX_BARS else "the most likely labels"
    heading.set_title(
        f"How sure is it about single images? Bars: probability of {which} (own scale);\n"
        "green bar and triangle: the true label" + ("; dashed line: the estimate" if outcome.ordered else "")
    )
    for number, (row, each) in enumerate(zip(rows, pixels, strict=True)):
        place = 1 + number // COLUMNS, 2 * (number % COLUMNS)
        picture, bars = figure.add_subplot(grid[place]), figure.add_subplot(grid[place[0], place[1] + 1])
        picture.imshow(as_picture(each), interpolation="nearest")
        picture.set_axis_off()
        _draw_bars(bars, outcome, int(row))
    return figure


def write_posteriors(path: Path, outcome: Outcome) -> Path:
    """Write the probability of each label for the images of the figure, and return the path."""
    rows = [
        [outcome.names[row], outcome.label_names[outcome.target[row]], name, f"{probability:.6f}"]
        for row in single_images(outcome)
        for name, probability in zip(outcome.label_names, outcome.posterior[row], strict=True)
    ]
    return write_csv(path, ["name", "target", "label", "probability"], rows)


def _draw_bars(axes: Axes, outcome: Outcome, row: int) -> None:
    posterior, true = outcome.posterior[row], int(outcome.target[row])
    labels = np.arange(len(posterior))
    if not outcome.ordered and len(labels) > MAX_BARS:
        likely = np.argsort(-posterior, kind="stable")[: MAX_BARS - 1]
        labels = np.unique(np.append(likely, true))
    places = outcome.values[labels] if outcome.ordered else np.arange(len(labels))
    width = 0.9 * (np.diff(places).min() if len(places) > 1 else 1)
    bars = axes.bar(places, posterior[labels], width=width, color=OTHER)
    here = int(np.flatnonzero(labels == true)[0])
    bars[here].set_color(TRUE)
    axes.plot(places[here], 0, marker="^", color=TRUE, markersize=5, clip_on=False, zorder=3)  # the bar may be too low
    names = [printable(outcome.label_names[label], 8) for label in labels]
    ticks = label_ticks(places, ordered=outcome.ordered, most=7 if outcome.ordered else MAX_BARS + 1)
    upright = max(map(len, names)) <= 2 or outcome.ordered
    axes.set_xticks(places[list(ticks)], [names[i] for i in ticks], fontsize=7, rotation=0 if upright else 45)
    axes.set_yticks([0, posterior.max()], ["0", percent(posterior.max())], fontsize=7)
    axes.set_ylim(0, 1.05 * posterior.max() or 1)
    axes.tick_params(axis="x", length=2)
    axes.set_title(_describe(outcome, row), fontsize=8, color="black", loc="left", pad=2)
    if outcome.ordered:
        axes.axvline(outcome.point[row], color=GREY, linewidth=1, linestyle="--")


def _describe(outcome: Outcome, row: int) -> str:
    true = printable(outcome.label_names[outcome.target[row]], 12)
    if outcome.unit == "years":
        return f"true {true}, estimate {outcome.point[row]:.0f} years"
    taken = int(estimated_labels(outcome)[row])
    name = printable(outcome.label_names[taken], 12)
    return f"true {true}, taken for {name} ({percent(outcome.posterior[row, taken])})"
