"""The 1,797 handwritten digits of scikit-learn, 8x8 px: real images without a download.

Source: Alpaydin and Kaynak, UCI Optical Recognition of Handwritten Digits (the test part).
"""

import gzip
import importlib.util
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from agebench.data.records import Array, Records
from agebench.errors import UserError


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
        images: Array = (self._table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)  # (N, 64)
        return images

    @cached_property
    def _classes(self) -> Array:
        return self._table[:, -1]

    @cached_property
    def _table(self) -> Array:
        """64 pixels and the class of each image, int64, shape (N, 65), from scikit-learn's own file.

        Importing sklearn.datasets for it would take a second.
        """
        package = importlib.util.find_spec("sklearn")
        if package is None or package.origin is None:
            raise UserError("data=digits needs scikit-learn, which has the images: pip install scikit-learn")
        with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as lines:
            return np.loadtxt(lines, delimiter=",", dtype=np.int64)
