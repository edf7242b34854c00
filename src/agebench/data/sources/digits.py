"""The 1,797 handwritten digits of scikit-learn, 8x8 px: real images without a download.

Source: Alpaydin and Kaynak, UCI Optical Recognition of Handwritten Digits (the test part).
"""

from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from agebench.data.records import Array, Records


class Digits:
    """The digits in scikit-learn."""

    channels = 1
    targets = ("class",)
    path_is_identity = False

    def prepare(self) -> None:
        """Do nothing; the images are part of scikit-learn."""

    def records(self) -> Records:
        """Return 1,797 rows with the column `class`, 0 to 9."""
        names = np.array([f"{i:04d}" for i in range(len(self._images))])
        return Records(names, {"class": self._classes}, tuple("0123456789"))

    def present(self) -> Array:
        """Return all True."""
        return np.ones(len(self._images), dtype=bool)

    def open(self, row: int) -> Image.Image:
        """Return one image, mode L, 8x8 px."""
        return Image.fromarray(self._images[row])

    def stamps(self, rows: Array) -> Array:
        """Return ones; the images never change."""
        return np.ones(len(rows), dtype=np.uint64)

    def reading_order(self, rows: Array) -> Array:
        """Return the rows unchanged; the images are in memory."""
        return rows

    @cached_property
    def _images(self) -> Array:
        # The values are amounts of ink from 0 to 16.
        images: Array = (self._loaded.images * (255 / 16)).round().astype(np.uint8)
        return images

    @cached_property
    def _classes(self) -> Array:
        classes: Array = np.asarray(self._loaded.target, dtype=np.int64)
        return classes

    @cached_property
    def _loaded(self) -> Any:
        from sklearn.datasets import load_digits

        return load_digits()
