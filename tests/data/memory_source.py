"""A source of images in memory, and how the tests plan and pack it."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from agebench.data import split as splits
from agebench.data.packed import PackedImages, pack
from agebench.data.plan import Planner
from agebench.data.records import Records
from agebench.data.resize import Resize

COLUMNS = {"path": "path", "label": "label", "identity": "identity", "split": "split"}


class Memory:
    """Sixty images of two classes and of ages 10 to 69; it counts how often an image is opened."""

    channels = 3
    targets = ("class", "age", "decade", "bins")

    def __init__(self, images: np.ndarray | None = None, *, missing: tuple[int, ...] = ()) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (60, 9, 7, 3), dtype=np.uint8) if images is None else images
        self.missing, self.opened = missing, 0

    def prepare(self) -> None: ...

    def records(self) -> Records:
        count = len(self.images)
        columns = {"class": np.arange(count) % 2, "age": np.arange(count) + 10}
        return Records(np.array([f"{i:02d}.png" for i in range(count)]), columns, ("even", "odd"))

    def present(self) -> np.ndarray:
        return ~np.isin(np.arange(len(self.images)), self.missing)

    def open(self, row: int) -> Image.Image:
        self.opened += 1
        return Image.fromarray(self.images[row])

    def stamps(self, rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), 7, dtype=np.uint64)

    def reading_order(self, rows: np.ndarray) -> np.ndarray:
        return rows


def make_planner(source: Any = None, split: Any = splits.random, **options: Any) -> Planner:
    return Planner(source or Memory(), split, **{"name": "mine", "target": "class"} | options)


def pack_images(
    cache: Path, source: Any = None, split: Any = splits.random, *, size: int = 5, channels: int = 3, **options: Any
) -> PackedImages:
    planner = make_planner(source, split, **options)
    resize = Resize(size, channels)
    return pack(planner.source, planner.plan(), resize=resize, cache=cache, require_all=planner.require_all)


def pixels_of(images: PackedImages, part: str) -> np.ndarray:
    """Return the packed pixels of one part, uint8, shape (n, C, S, S)."""
    return images.pixels[images.plan.rows[images.plan.split.part(part)]]
