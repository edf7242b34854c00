"""Scatter plot of projected features, coloured by label."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from matplotlib.transforms import IdentityTransform

from agebench.report.outcome import Array
from agebench.report.report_images import as_picture
from agebench.report.style import COLOURS, MARKERS, japanese_font, label_ticks, new_figure, printable

THUMBNAILS = 26  # along each axis
MAX_EASY_LEGEND = 10  # labels; up to this number a legend is easy to read
MORE_COLOURS = ("#6A3D9A", "#8C510A", "#8A8A8A")  # purple, brown and grey, for ten classes
MAX_LEGEND_LABELS = 110  # labels; the number of pairs of colour and marker


def draw_scatter(
    points: Array,
    labels: Array,
    *,
    label_names: tuple[str, ...],
    values: Array | None,
    axis_names: tuple[str, str],
    titles: tuple[str, str],
) -> Figure:
    """Return a figure with one marker per image.

    Ordered labels have a sequential colour map and a colour bar. Nominal labels differ in colour and marker and have a
    legend. If there are more than 10 and all names are as short as `あ`, the names are the markers.

    Args:
        points: Coordinates, float, shape (n, 2).
        labels: Label indices, int64, shape (n,).
        label_names: Names of the R labels.
        values: Value of each label, shape (R,); None for nominal labels.
        axis_names: Names of the x and y axes.
        titles: Title of the run and title of the plot.
    """
    figure = new_figure(6.4, 5.0, titles[0])
    axes = figure.subplots()
    size = float(np.clip(6_000 / max(len(points), 1), 6, 36))  # square points
    if values is not None:
        _draw_ordered(figure, axes, points, labels, size=size, label_names=label_names, values=values)
    elif len(label_names) > MAX_EASY_LEGEND and all(1 <= len(name.strip()) <= 2 for name in label_names):
        _draw_names(axes, points, labels, size=2.2 * size + 20, label_names=label_names)
    else:
        _draw_nominal(figure, axes, points, labels, size=size, label_names=label_names)
    axes.set(xlabel=axis_names[0], ylabel=axis_names[1])
    axes.set_title(titles[1])
    axes.grid(True)
    return figure


def draw_scatter_images(
    points: Array, pixels: Array, *, axis_names: tuple[str, str], titles: tuple[str, str]
) -> Figure:
    """Return a figure in which each image is a thumbnail at its point. Of images that would overlap the first is drawn.

    Args:
        points: Coordinates, float, shape (n, 2).
        pixels: The images, uint8, shape (n, C, S, S).
        axis_names: Names of the x and y axes.
        titles: Title of the run and title of the plot.
    """
    figure = new_figure(7.2, 6.6, titles[0])
    axes = figure.subplots()
    low, high = points.min(axis=0), points.max(axis=0)
    side = np.where(high > low, high - low, 1) / THUMBNAILS  # of a thumbnail along each axis, in data units
    cells = np.floor((points - low) / side).astype(np.int64)
    drawn = np.sort(np.unique(cells, axis=0, return_index=True)[1])
    for row in drawn:
        (x, y), (width, height) = low + (cells[row] + 0.5) * side, 0.47 * side
        extent = (x - width, x + width, y - height, y + height)
        axes.add_image(AxesImage(axes, data=as_picture(pixels[row]), extent=extent, interpolation="nearest"))
    axes.set(xlim=(low[0] - side[0], high[0] + 2 * side[0]), ylim=(low[1] - side[1], high[1] + 2 * side[1]))
    axes.set(xlabel=axis_names[0], ylabel=axis_names[1])
    axes.set_title(f"{titles[1]};\n{len(drawn):,} of them as thumbnails on a grid: similar images are neighbours")
    return figure


def _draw_ordered(
    figure: Figure,
    axes: Axes,
    points: Array,
    labels: Array,
    *,
    size: float,
    label_names: tuple[str, ...],
    values: Array,
) -> None:
    colours = matplotlib.colormaps["viridis"].resampled(max(256, len(label_names)))
    norm = BoundaryNorm(np.arange(len(label_names) + 1) - 0.5, colours.N)
    order = np.random.default_rng(0).permutation(len(points))  # random order, so that no label covers the others
    cloud = axes.scatter(
        points[order, 0],
        points[order, 1],
        c=labels[order],
        s=size,
        cmap=colours,
        norm=norm,
        linewidths=0.2,
        edgecolors="k",
    )
    ticks = label_ticks(values, ordered=True, most=15)
    bar = figure.colorbar(cloud, ax=axes, label="true label", ticks=ticks)
    bar.ax.set_yticklabels([printable(label_names[i], 20) for i in ticks])
    bar.ax.minorticks_off()


def _draw_nominal(
    figure: Figure, axes: Axes, points: Array, labels: Array, *, size: float, label_names: tuple[str, ...]
) -> None:
    present = np.unique(labels)
    colours = (*COLOURS, *MORE_COLOURS)  # ten; with more labels, pairs of colour and marker differ
    handles = []
    for label in present:
        style: dict[str, Any] = {"color": colours[label % len(colours)], "marker": MARKERS[label % len(MARKERS)]}
        here = points[labels == label]
        axes.scatter(here[:, 0], here[:, 1], s=1.4 * size, edgecolors="white", linewidths=0.3, alpha=0.9, **style)
        handles.append(Line2D([], [], linestyle="", markersize=6, **style))
    if len(present) <= MAX_LEGEND_LABELS:
        names = [printable(label_names[i], 16) for i in present]
        columns = 1 + (len(names) - 1) // 24
        figure.set_figwidth(figure.get_figwidth() + 1.3 * (columns - 1))
        placement: dict[str, Any] = {
            "loc": "upper left",
            "bbox_to_anchor": (1.02, 1),
            "borderaxespad": 0,
            "ncols": columns,
        }
        legend = axes.legend(handles, ["·"] * len(names), fontsize=8, title="true label", **placement)
        # legend() omits labels that start with an underscore, so the texts are set afterwards.
        for text, name in zip(legend.get_texts(), names, strict=True):
            text.set_text(name)


def _draw_names(axes: Axes, points: Array, labels: Array, *, size: float, label_names: tuple[str, ...]) -> None:
    outlines = {label: _name_outline(label_names[label]) for label in np.unique(labels)}
    # Markers in dense regions are unreadable, so the most central marker of each label is drawn large on top.
    central = [_most_central(points, np.flatnonzero(labels == label)) for label in outlines]

    def add(rows: Array | list[int], times: float, **style: Any) -> None:
        marks = [outlines[label] for label in labels[rows]]
        # Marker sizes are in points, so only the offsets are in data coordinates.
        where = {"offsets": points[rows], "offset_transform": axes.transData, "transform": IdentityTransform()}
        axes.add_collection(PathCollection(marks, sizes=[times * size], **where, **style))

    colours = np.asarray(COLOURS)[labels % len(COLOURS)]  # (n,)
    add(np.arange(len(labels)), 1, facecolors=colours, linewidths=0, alpha=0.5)
    add(central, 3, facecolors="white", edgecolors="white", linewidths=2.5, zorder=3)
    add(central, 3, facecolors=colours[central], linewidths=0, zorder=4)
    axes.autoscale_view()


def _most_central(points: Array, rows: Array) -> int:
    here = points[rows]
    return int(rows[np.argmin(np.linalg.norm(here - np.median(here, axis=0), axis=1))])


def _name_outline(name: str) -> Outline:
    path = japanese_font()
    outline = TextPath((0, 0), name.strip(), size=1, prop=FontProperties(fname=path) if path else None)
    if not len(outline.vertices):  # a name of white space
        return Outline.unit_circle()
    low, high = outline.vertices.min(axis=0), outline.vertices.max(axis=0)
    return Outline(outline.vertices - (low + high) / 2, outline.codes)  # 1 em is the width of a marker
