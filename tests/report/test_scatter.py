from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from agebench.report.scatter import draw_scatter, draw_scatter_images
from agebench.report.style import plot_style

HIRAGANA = tuple("あいうえおかきくけこさしすせそ")


def draw(tmp_path: Path, names: tuple[str, ...], *, ordered: bool, count: int = 60) -> tuple[Figure, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % len(names)
    with plot_style():
        figure = draw_scatter(
            rng.normal(size=(count, 2)),
            labels,
            label_names=names,
            values=np.arange(len(names), dtype=float) if ordered else None,
            axis_names=("x", "y"),
            titles=("run title", "plot title"),
        )
        figure.savefig(tmp_path / "scatter.png")
    pixels = np.asarray(Image.open(tmp_path / "scatter.png").convert("HSV"))
    return figure, pixels


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "names", [("a",), ("_a", "$b$"), tuple(f"class {i}" for i in range(90)), HIRAGANA, (" ",) * 12]
)
def test_nominal_labels_are_drawn_in_colour_for_any_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    figure, pixels = draw(tmp_path, names, ordered=False, count=200)

    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("x", "y", "plot title")
    assert (pixels[..., 1] > 128).sum() > 1_000  # saturated pixels are markers, so the markers are inside the axes
    assert np.abs([axes.get_xlim(), axes.get_ylim()]).max() < 6


def test_the_legend_names_only_labels_with_images(tmp_path: Path) -> None:
    figure, _ = draw(tmp_path, ("_cat", "dog", "$eel$", "absent"), ordered=False, count=3)

    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["_cat", "dog", "$eel$"]


@pytest.mark.parametrize("labels", [10, 40, 77])
def test_the_legend_is_next_to_the_axes_and_fits_into_the_figure(tmp_path: Path, labels: int) -> None:
    figure, _ = draw(tmp_path, tuple(f"class number {i}" for i in range(labels)), ordered=False, count=100)

    legend = figure.axes[0].get_legend()
    assert legend is not None
    box = legend.get_window_extent()
    assert box.x0 > figure.axes[0].get_window_extent().x1
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= figure.bbox.y0
    assert figure.axes[0].get_window_extent().width > 400


def test_hiragana_are_drawn_as_markers_without_a_legend(tmp_path: Path) -> None:
    figure, _ = draw(tmp_path, HIRAGANA, ordered=False)

    assert figure.axes[0].get_legend() is None
    marks = figure.axes[0].collections[0].get_paths()
    assert len(marks) == 60
    assert len({mark.vertices.tobytes() for mark in marks}) == len(HIRAGANA)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("labels", [1, 2, 6, 49, 300])
def test_ordered_labels_have_a_colour_bar_with_their_names(tmp_path: Path, labels: int) -> None:
    names = tuple(f"{i}s" for i in range(labels))

    figure, _ = draw(tmp_path, names, ordered=True)

    shown = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert 1 <= len(shown) <= 15
    assert set(shown) <= set(names)
    if labels <= 15:
        assert tuple(shown) == names


def test_ten_classes_have_ten_colours_and_ten_markers(tmp_path: Path) -> None:
    points, labels = np.random.default_rng(0).normal(size=(100, 2)), np.arange(100) % 10

    with plot_style():
        figure = draw_scatter(
            points, labels, label_names=tuple("0123456789"), values=None, axis_names=("x", "y"), titles=("run", "t")
        )

    legend = figure.axes[0].get_legend()
    assert legend is not None
    handles = legend.legend_handles
    assert len({handle.get_color() for handle in handles}) == 10
    assert len({handle.get_marker() for handle in handles}) == 10


def test_thumbnails_do_not_overlap_and_lie_near_their_points() -> None:
    points = np.random.default_rng(0).normal(size=(400, 2)) * [10, 1]
    pixels = np.broadcast_to(np.arange(400)[:, None, None, None] % 251, (400, 1, 2, 2)).astype(np.uint8)

    with plot_style():
        figure = draw_scatter_images(points, pixels, axis_names=("x", "y"), titles=("run", "t"))

    boxes = np.array([image.get_extent() for image in figure.axes[0].images])  # left, right, bottom, top
    for i, a in enumerate(boxes):
        others = boxes[i + 1 :]
        apart = (others[:, 0] >= a[1]) | (others[:, 1] <= a[0]) | (others[:, 2] >= a[3]) | (others[:, 3] <= a[2])
        assert apart.all()
    centres = np.stack([boxes[:, :2].mean(1), boxes[:, 2:].mean(1)], axis=1)
    levels = [int(np.asarray(image.get_array()).flat[0]) for image in figure.axes[0].images]
    for centre, level in zip(centres, levels, strict=True):
        own = points[np.arange(400) % 251 == level]
        assert (np.abs(own - centre) / np.ptp(points, axis=0)).max(axis=1).min() < 1 / 26
