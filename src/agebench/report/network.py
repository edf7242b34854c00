"""Figures of what a network sees: first-layer kernels, feature maps of its stages, and where it looks."""

import textwrap

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from agebench.report.contact_sheets import percent
from agebench.report.explained import Explained
from agebench.report.outcome import Array, Outcome
from agebench.report.report_images import as_picture
from agebench.report.selection import estimated_labels, is_correct
from agebench.report.style import COLOURS, new_figure, printable

COLUMNS = 8  # kernels of a row
RAISES, LOWERS = COLOURS[1], COLOURS[0]
STRENGTH = 0.8  # opacity of the strongest colour of a heat map
PALE = 0.35  # grey of black pixels below a heat map, so that its colours are also visible on ink and dark skin
MAX_NAME = 10


def draw_kernels(explained: Explained, *, title: str) -> Figure | None:
    """Return a figure with the weights of the first layer; None if they are no images.

    Kernels of colour images are drawn in colour. Others are orange where a weight is positive and violet where it is
    negative. Each kernel has its own scale.
    """
    kernels = explained.kernels
    if kernels.ndim != 4 or not len(kernels):
        return None
    rows = -(-len(kernels) // COLUMNS)
    figure = new_figure(0.68 * COLUMNS + 0.3, 0.66 * rows + 0.85, title)
    axes = figure.subplots()
    channels, height, width = kernels.shape[1:]
    for number, kernel in enumerate(kernels):
        row, column = divmod(number, COLUMNS)
        left, top = 1.1 * column, 1.1 * row
        axes.imshow(_kernel_picture(kernel), extent=(left, left + 1, top + 1, top), interpolation="nearest")
    axes.set(xlim=(-0.05, 1.1 * COLUMNS - 0.05), ylim=(1.1 * rows - 0.05, -0.05), aspect="equal")
    axes.set_axis_off()
    colours = "in colour" if channels == 3 else "orange: positive weights, violet: negative"
    axes.set_title(
        f"Which patterns does the first layer look for?\n{len(kernels)} kernels of {height} x {width} px, {colours}"
    )
    return figure


def draw_feature_maps(explained: Explained, *, title: str) -> Figure | None:
    """Return a figure with an image and the feature maps of each stage, the first on top; None without maps."""
    if not explained.stages:
        return None
    most = max(len(maps) for maps in explained.stages.values())
    figure = new_figure(0.8 * (most + 2.3), 0.85 * len(explained.stages) + 1.0, title)
    axes = figure.subplots()
    middle = 0.55 * len(explained.stages) - 0.55
    axes.imshow(as_picture(explained.map_image), extent=(-2.6, -1.6, middle + 1, middle), interpolation="nearest")
    axes.text(-2.1, middle - 0.06, "test image", ha="center", va="bottom", fontsize=8)
    for row, (name, maps) in enumerate(explained.stages.items()):
        top = 1.1 * row
        text = f"{textwrap.fill(name, 14)}\n{maps.shape[1]} x {maps.shape[2]}"
        axes.text(-0.12, top + 0.5, text, ha="right", va="center", fontsize=7.5)
        for column, each in enumerate(maps):
            left = 1.1 * column
            axes.imshow(each, extent=(left, left + 1, top + 1, top), cmap="gray", interpolation="nearest")
    axes.set(xlim=(-2.7, 1.1 * most), ylim=(1.1 * len(explained.stages), -0.2), aspect="equal")
    axes.set_axis_off()
    axes.set_title(
        "What does each stage of the network compute? The feature maps that vary most;\n"
        "bright: strong response, on the scale of each map; top: first stage, bottom: last (layer, positions)"
    )
    return figure


def draw_heat(explained: Explained, outcome: Outcome, *, title: str) -> Figure | None:
    """Return a figure with test images, correct ones first, and above which regions the prediction is based on.

    Args:
        explained: The explanations.
        outcome: Predictions of the test images.
        title: Title of the run.
    """
    if not len(explained.rows):
        return None
    correct = is_correct(outcome)[explained.rows]
    groups = [np.flatnonzero(correct), np.flatnonzero(~correct)]
    most = max(map(len, groups))
    names = [name for name, group in zip(("correct", "mistakes"), groups, strict=True) if len(group)]
    figure = new_figure(max(1.25 * most + 0.9, 5.6), 0.95 + 2.95 * len(names), title)
    axes = figure.subplots()
    for line, (name, group) in enumerate(zip(names, filter(len, groups), strict=True)):
        top = 2.62 * line
        axes.text(-0.1, top + 1.02, name, rotation=90, ha="right", va="center", fontsize=9)
        for column, number in enumerate(group.tolist()):
            left = 1.12 * column
            plain, heated = as_picture(explained.images[number]), overlay(explained, number)
            axes.imshow(plain, extent=(left, left + 1, top + 1, top), interpolation="nearest")
            axes.imshow(heated, extent=(left, left + 1, top + 2.04, top + 1.04), interpolation="nearest")
            text = _describe(outcome, int(explained.rows[number]))
            axes.text(left + 0.5, top + 2.08, text, ha="center", va="top", fontsize=8, linespacing=1.1)
    axes.set(xlim=(-0.3, max(1.12 * most, 4.4)), ylim=(2.62 * len(names) - 0.1, -0.05), aspect="equal")
    axes.set_axis_off()
    ordered, nominal = "raise the estimate, blue ones lower it", "speak for the prediction, blue ones against it"
    what = ordered if outcome.ordered else nominal
    method = "HiResCAM, a form of Grad-CAM," if explained.method == "HiResCAM" else explained.method
    how = f"{method} at {explained.layer}" if explained.layer else "occlusion: the answer changes if they are covered"
    axes.set_title(f"Where does the network look? Orange regions {what}\n({how})")
    return figure


def overlay(explained: Explained, number: int) -> Array:
    """Return a pale grey image with its heat in colour, float in [0, 1], shape (S, S, 3).

    The papers draw positive regions only. Negative ones are drawn in another colour here: they show what speaks against
    a mistake, such as the two dots that make じ of し.

    Args:
        explained: The explanations.
        number: The place of the image in [0, k).
    """
    grey = as_picture(explained.images[number]).mean(axis=2, keepdims=True) / 255  # (S, S, 1)
    grey = PALE + (1 - PALE) * grey
    heat = np.asarray(explained.heat[number], dtype=np.float64)
    strength = np.abs(heat) / (np.abs(heat).max() or 1)
    colour = np.where((heat >= 0)[..., None], to_rgb(RAISES), to_rgb(LOWERS))  # (S, S, 3)
    opacity = STRENGTH * strength[..., None]
    return np.asarray((1 - opacity) * grey + opacity * colour)


def _kernel_picture(kernel: Array) -> Array:
    """Return a kernel, shape (C, h, w), as a picture with its own scale, shape (h, w, 3)."""
    if len(kernel) == 3:
        low, high = kernel.min(), kernel.max()
        return np.moveaxis((kernel - low) / (high - low or 1), 0, 2)
    mean = kernel.mean(axis=0)
    largest = np.abs(mean).max() or 1
    return np.asarray(matplotlib.colormaps["PuOr_r"](0.5 + mean / largest / 2)[..., :3])


def _describe(outcome: Outcome, row: int) -> str:
    true, taken = int(outcome.target[row]), int(estimated_labels(outcome)[row])
    names = [printable(outcome.label_names[label], MAX_NAME) for label in (true, taken)]
    if outcome.unit == "years":
        return f"true age {names[0]}\nestimate {outcome.point[row]:.0f}"
    return f"true: {names[0]}\ntaken for {names[1]}\n({percent(outcome.posterior[row, taken])})"
