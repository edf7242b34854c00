"""What kernels do to an image (convolution): products and their sum step by step; the maps of a digit and a face."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.lib.stride_tricks import sliding_window_view

from agebench.data.sources.drawn_faces.person import sample_face
from agebench.data.sources.drawn_faces.photo import draw_photo
from agebench.files import write_csv
from agebench.lectures.grids import (
    LABEL_SIZE,
    Array,
    cells,
    digit,
    draw_matrix,
    frame,
    number,
    save,
    titled_figure,
    write_operator,
)

# The kernels of the lecture, with their Japanese names.
KERNELS: dict[str, tuple[str, Array]] = {
    "vertical": ("縦エッジ検出", np.array([[1, 0, -1]] * 3) / 1),
    "horizontal": ("横エッジ検出", np.array([[1, 0, -1]] * 3).T / 1),
    "sharpen": ("シャープ化", np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]) / 1),
    "blur": ("ぼかし", np.full((3, 3), 1 / 9)),
}
FINDINGS = {
    "vertical": "is far from 0 where left and right differ",
    "horizontal": "is far from 0 where top and bottom differ",
    "sharpen": "raises a pixel above its neighbours",
    "blur": "replaces a pixel by the mean of its neighbourhood",
}
# The image of the lecture, on which it applies the vertical kernel by hand. Its last sum, -2, is a misprint of -4.
EXAMPLE = np.array([[1, 2, 3, 0], [0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1]])
STEP_COLUMNS = ["kernel", "japanese", "step", "row", "column", "pixel", "weight", "product"]
DIGIT = 0  # the row of a zero, which has edges in all directions
FACE_SIDE = 96  # px


def apply_kernel(image: Array, kernel: Array) -> Array:
    """Return the sum of products of a kernel with each window of an image; the kernel is not mirrored.

    Args:
        image: Grey values, shape (H, W).
        kernel: Weights, shape (k, k).

    Returns:
        The feature map, float, shape (H - k + 1, W - k + 1): stride 1, no padding.
    """
    feature_map: Array = (sliding_window_view(image, kernel.shape) * kernel).sum(axis=(2, 3))
    return feature_map


def drawn_face() -> Array:
    """Return a drawn face of data=demo in grey, uint8, shape (FACE_SIDE, FACE_SIDE)."""
    face = sample_face(0, 1, long_hair=True)
    return np.asarray(draw_photo(face, 25, np.random.default_rng(0), FACE_SIDE).convert("L"))


def draw(folder: Path) -> list[Path]:
    """Write the lecture's example, one picture of steps per kernel, one of all maps, and their numbers."""
    image, face = digit(DIGIT), drawn_face()
    corners = list(np.ndindex(2, 2))
    written = [
        _draw_steps(folder / "kernels_example.png", "vertical", EXAMPLE, corners),
        write_csv(folder / "kernels_example.csv", STEP_COLUMNS, list(_steps("vertical", EXAMPLE, corners))),
    ]
    steps: list[list[object]] = []
    for name, (_, kernel) in KERNELS.items():
        places = interesting_places(apply_kernel(image, kernel))
        written.append(_draw_steps(folder / f"kernels_{name}.png", name, image, places))
        steps += _steps(name, image, places)
    maps = [
        row
        for of, pixels in (("digit", image), ("face", face))
        for name, (_, kernel) in KERNELS.items()
        for row in cells(apply_kernel(pixels, kernel), of, name)
    ]
    return [
        *written,
        _draw_maps(folder / "kernels_maps.png", image, face),
        write_csv(folder / "kernels_steps.csv", STEP_COLUMNS, steps),
        write_csv(folder / "kernels_maps.csv", ["image", "kernel", "row", "column", "value"], maps),
    ]


def _steps(name: str, image: Array, places: Sequence[tuple[int, ...]]) -> Iterator[list[object]]:
    """Yield a row of STEP_COLUMNS for each product of a kernel at these places of an image."""
    japanese, kernel = KERNELS[name]
    for step, (top, left) in enumerate(places, start=1):
        for (row, column), weight in np.ndenumerate(kernel):
            pixel = int(image[top + row, left + column])
            yield [name, japanese, step, top + row, left + column, pixel, weight, pixel * weight]


def interesting_places(feature_map: Array) -> list[tuple[int, int]]:
    """Return the first place, its right neighbour, and the places of the largest and the smallest value, in order."""
    places = [(0, 0), (0, 1)]
    for index in (feature_map.argmax(), feature_map.argmin()):
        row, column = np.unravel_index(index, feature_map.shape)
        places.append((int(row), int(column)))
    return sorted(dict.fromkeys(places))


def _draw_steps(path: Path, name: str, image: Array, places: Sequence[tuple[int, ...]]) -> Path:
    japanese, kernel = KERNELS[name]
    feature_map = apply_kernel(image, kernel)
    most = float(np.abs(feature_map).max())
    title = f"The {name} kernel ({japanese}) {FINDINGS[name]}: 9 products, one sum"
    figure = titled_figure(14, 2.75 * len(places) + 0.9, title)
    grid = figure.subplots(
        len(places), 7, squeeze=False, width_ratios=[2.2, 0.25, 1.25, 0.25, 1.25, 0.75, 1.8]
    )  # image, x, kernel, =, products, sum, map
    for step, (axes, (top, left)) in enumerate(zip(grid, places, strict=True), start=1):
        products = image[top : top + 3, left : left + 3] * kernel
        total = feature_map[top, left]
        draw_matrix(axes[0], image, limits=(0, 1.5 * image.max()), size=LABEL_SIZE - 1)
        frame(axes[0], top, left, side=3)
        axes[0].set_ylabel(f"step {step}", fontsize=LABEL_SIZE + 1)
        write_operator(axes[1], "×")
        draw_matrix(axes[2], kernel, limits=(-8, 8), colours="RdBu_r")
        write_operator(axes[3], "=")
        draw_matrix(axes[4], products, limits=(-2 * most, 2 * most), colours="RdBu_r")
        write_operator(axes[5], f"sum\n{number(total)}")
        shown = np.full(feature_map.shape, np.nan)
        reached = np.arange(feature_map.size).reshape(feature_map.shape) <= top * feature_map.shape[1] + left
        shown[reached] = feature_map[reached]
        draw_matrix(axes[6], shown, limits=(-2 * most, 2 * most), colours="RdBu_r", size=LABEL_SIZE - 1)
        frame(axes[6], top, left)
    names = {
        0: f"image (入力画像): ink, 0 to {number(image.max())}",
        2: "kernel (カーネル)",
        4: "products",
        6: "feature map (特徴マップ) so far",
    }
    for column, text in names.items():
        grid[0, column].set_title(text, fontsize=LABEL_SIZE)
    return save(figure, path)


def _draw_maps(path: Path, image: Array, face: Array) -> Path:
    title = "What does each kernel (カーネル) see? Edge kernels find outlines, sharpen adds contrast, blur removes it"
    figure = titled_figure(14, 6.4, title)
    grid = figure.subplots(2, 1 + len(KERNELS))
    for axes, pixels, white in zip(grid, (image, face), (16, 255), strict=True):
        _show(axes[0], pixels, 0, white, f"{pixels.shape[0]} × {pixels.shape[1]} px")
        for one, (_, kernel) in zip(axes[1:], KERNELS.values(), strict=True):
            feature_map = apply_kernel(pixels, kernel)
            limits = f"{number(round(float(feature_map.min())))} to {number(round(float(feature_map.max())))}"
            most = float(np.abs(feature_map).max())
            is_edge = kernel.sum() == 0
            _show(one, feature_map, -most if is_edge else 0, most if is_edge else white, f"values {limits}")
    grid[0, 0].set_title("image (入力画像)", fontsize=LABEL_SIZE)
    for axes, (name, (japanese, _)) in zip(grid[0, 1:], KERNELS.items(), strict=True):
        axes.set_title(f"{name} ({japanese})", fontsize=LABEL_SIZE)
    figure.supxlabel(
        "vertical, horizontal: grey is 0, white positive, black negative; the others: black is 0, white the brightest",
        fontsize=LABEL_SIZE,
    )
    return save(figure, path)


def _show(axes: Axes, pixels: Array, low: float, high: float, text: str) -> None:
    axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_xlabel(text, fontsize=LABEL_SIZE)
    axes.tick_params(length=0, labelbottom=False, labelleft=False)
