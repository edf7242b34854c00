"""Max pooling step by step: the largest value of each window, and what a shift of the image changes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

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

EXAMPLE = np.array([[1, 3, 2, 1], [4, 6, 5, 0], [7, 8, 9, 2], [3, 4, 1, 6]])  # of the lecture
DIGIT = 3  # the row of a three
INK = (0, 24)  # white to dark grey for 0 to 16, so that black numbers are readable


def max_pool(image: Array, side: int = 2) -> Array:
    """Return the largest value of each window of side x side px, stride = side; shape (H // side, W // side)."""
    rows, columns = (length // side for length in image.shape)
    windows = image[: rows * side, : columns * side].reshape(rows, side, columns, side)
    pooled: Array = windows.max(axis=(1, 3))
    return pooled


def shift_right(image: Array) -> Array:
    """Return an image moved to the right by 1 px; the first column is 0."""
    moved = np.zeros_like(image)
    moved[:, 1:] = image[:, :-1]
    return moved


def draw(folder: Path) -> list[Path]:
    """Write the lecture's example, the four steps on 4 x 4 px, a digit and a shifted digit, and their numbers."""
    image = digit(DIGIT)
    corner = image[3:7, 3:7]  # whose four windows have different maxima
    stages = {
        f"{name}, {stage}": values
        for name, pixels in (("digit", image), ("shifted digit", shift_right(image)))
        for stage, values in (("image", pixels), ("pooled", max_pool(pixels)), ("pooled twice", max_pool(pixels, 4)))
    }
    columns = ["step", "row", "column", "top_left", "top_right", "bottom_left", "bottom_right", "maximum"]
    return [
        _draw_steps(folder / "pooling_example.png", EXAMPLE),
        write_csv(folder / "pooling_example.csv", columns, list(_steps(EXAMPLE))),
        _draw_steps(folder / "pooling_steps.png", corner),
        _draw_stages(folder / "pooling_digit.png", stages),
        write_csv(folder / "pooling_steps.csv", columns, list(_steps(corner))),
        write_csv(
            folder / "pooling_digit.csv",
            ["stage", "row", "column", "value"],
            [row for name, values in stages.items() for row in cells(values, name)],
        ),
    ]


def _steps(image: Array) -> Iterator[list[object]]:
    """Yield the number of each window of 2 x 2 px, its place, its four values and their maximum."""
    for step, ((row, column), largest) in enumerate(np.ndenumerate(max_pool(image)), start=1):
        top, left = 2 * row, 2 * column
        yield [step, top, left, *image[top : top + 2, left : left + 2].ravel(), largest]


def _draw_steps(path: Path, corner: Array) -> Path:
    pooled = max_pool(corner)
    title = "Max pooling (最大プーリング) keeps the largest of each 2 × 2 window: 16 numbers become 4"
    figure = titled_figure(11.5, 10, title)
    grid = figure.subplots(4, 5, width_ratios=[1.6, 0.3, 0.8, 0.9, 0.8])
    for step, (axes, ((row, column), largest)) in enumerate(zip(grid, np.ndenumerate(pooled), strict=True), start=1):
        top, left = 2 * row, 2 * column
        window = corner[top : top + 2, left : left + 2]
        draw_matrix(axes[0], corner, limits=INK)
        frame(axes[0], top, left, side=2)
        axes[0].set_ylabel(f"step {step}", fontsize=LABEL_SIZE + 1)
        write_operator(axes[1], "→")
        draw_matrix(axes[2], window, limits=INK)
        frame(axes[2], *(int(i) for i in np.unravel_index(window.argmax(), window.shape)))
        write_operator(axes[3], f"max\n{number(largest)}")
        reached = np.arange(4).reshape(2, 2) < step
        draw_matrix(axes[4], np.where(reached, pooled, np.nan), limits=INK)
        frame(axes[4], row, column)
    for place, text in {0: "feature map (特徴マップ)", 2: "window", 4: "pooled so far"}.items():
        grid[0, place].set_title(text, fontsize=LABEL_SIZE)
    return save(figure, path)


def _draw_stages(path: Path, stages: dict[str, Array]) -> Path:
    first, second = list(stages.values())[:3], list(stages.values())[3:]
    changes = [f"{np.abs(a - b).mean():.1f}" for a, b in zip(first, second, strict=True)]
    title = (
        f"Does pooling (プーリング) hide a shift by 1 px? Mean change of a value: {changes[0]} in the image, "
        f"{changes[1]} pooled, {changes[2]} pooled twice"
    )
    figure = titled_figure(14, 9.6, title)
    grid = figure.subplots(2, 3)
    for place, (axes, (name, values)) in enumerate(zip(grid.ravel(), stages.items(), strict=True)):
        draw_matrix(axes, values, limits=INK, size=LABEL_SIZE if values.size > 16 else LABEL_SIZE + 3)
        rows, columns = values.shape
        axes.set_title(f"{name}: {rows} × {columns}", fontsize=LABEL_SIZE)
        if place >= 3:
            for row, column in np.argwhere(values != first[place - 3]):
                frame(axes, int(row), int(column), width=1.6)
    grid[1, 0].set_xlabel("framed: differs from the digit that is not shifted", fontsize=LABEL_SIZE)
    return save(figure, path)
