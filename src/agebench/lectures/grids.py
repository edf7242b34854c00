"""Shared parts of the drawings: a matrix with its numbers, a frame around cells, and saving a figure."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from agebench.files import atomic_write
from agebench.report.style import COLOURS

Array = npt.NDArray[Any]
TITLE_SIZE = 14
LABEL_SIZE = 12
FRAME = COLOURS[1]


def titled_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure of a size in inches whose title is large enough for half size."""
    figure = Figure(figsize=(width, height))
    figure.suptitle(textwrap.fill(title, int(width * 8.3)), fontsize=TITLE_SIZE)
    return figure


def draw_matrix(
    axes: Axes, values: Array, *, limits: tuple[float, float], colours: str = "Greys", size: float = LABEL_SIZE
) -> None:
    """Draw a matrix as grey or coloured cells with their numbers; NaN is an empty cell.

    Args:
        axes: The axes.
        values: The matrix, float, shape (rows, columns).
        limits: The values of the first and the last colour.
        colours: A colour map.
        size: Font size of the numbers; 0 draws none.
    """
    image = axes.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=limits[0], vmax=limits[1])
    rows, columns = values.shape
    # two collections of lines; a grid of minor ticks takes much longer to draw
    axes.hlines(np.arange(1, rows) - 0.5, -0.5, columns - 0.5, color="#bbbbbb", linewidth=0.5)
    axes.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, color="#bbbbbb", linewidth=0.5)
    axes.set(xticks=(), yticks=(), xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axes.spines[:].set(visible=True, color="#bbbbbb")
    if not size:
        return
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            # in_layout=False: measuring thousands of numbers would take most of the time
            axes.text(column, row, number(value), ha="center", va="center", color=ink, fontsize=size, in_layout=False)


def frame(axes: Axes, row: int, column: int, *, side: int = 1, width: float = 3.0) -> None:
    """Draw a frame around a square of cells whose first cell is given."""
    axes.add_patch(
        Rectangle(
            (column - 0.5, row - 0.5), side, side, fill=False, edgecolor=FRAME, linewidth=width, clip_on=False, zorder=3
        )
    )


def number(value: float) -> str:
    """Return a number with at most two decimals and a true minus sign."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("-", "\u2212")


def write_operator(axes: Axes, text: str) -> None:
    """Write an operator such as × between two matrices, in axes of its own."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=18, transform=axes.transAxes)


def save(figure: Figure, path: Path) -> Path:
    """Save a figure as PNG and return its path."""
    with atomic_write(path) as part:
        figure.savefig(part, format="png")
    return path


def digit(row: int) -> Array:
    """Return one of scikit-learn's digits as amounts of ink, 0 to 16, int64, shape (8, 8)."""
    from agebench.data.sources.digits import Digits

    return np.rint(np.asarray(Digits().open(row), dtype=np.float64) * (16 / 255)).astype(np.int64)


def cells(values: Array, *names: Any) -> Sequence[list[Any]]:
    """Return a row per cell for a CSV file: the given names, the row and the column from 0, and the value."""
    return [[*names, row, column, value] for (row, column), value in np.ndenumerate(values)]
