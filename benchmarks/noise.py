"""A data set of random images in memory, of any number and size."""

from functools import cached_property

import numpy as np
from PIL import Image

from agebench.data.records import Array, Records


class Noise:
    """Random pixels with labels in turn: the speed depends on neither.

    Args:
        count: Number of images.
        size: Side of the images in px.
        channels: 1 or 3.
        classes: Number of labels.
    """

    targets = ("class",)

    def __init__(self, count: int, size: int, channels: int, classes: int = 10) -> None:
        self.count, self.size, self.channels, self.classes = count, size, channels, classes

    def prepare(self) -> None:
        pass

    def records(self) -> Records:
        names = np.array([f"{i:06d}" for i in range(self.count)])
        return Records(
            names, {"class": np.arange(self.count) % self.classes}, tuple(str(i) for i in range(self.classes))
        )

    def present(self) -> Array:
        return np.ones(self.count, dtype=bool)

    def open(self, row: int) -> Image.Image:
        return Image.fromarray(self._images[row])

    def stamps(self, rows: Array) -> Array:
        return np.ones(len(rows), dtype=np.uint64)

    def reading_order(self, rows: Array) -> Array:
        return rows

    @cached_property
    def _images(self) -> Array:
        shape = (self.count, self.size, self.size, self.channels)
        images: Array = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
        return images[..., 0] if self.channels == 1 else images
