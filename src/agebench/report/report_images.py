"""The images of report/images.npz: those that the report shows, and a sample batch before and after augmentation."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from agebench.files import atomic_write
from agebench.report.outcome import Array


@dataclass(frozen=True)
class ReportImages:
    """The images that a report shows.

    Args:
        rows: Rows of the outcome whose image is kept, int64, shape (n,), ascending.
        images: Their pixels, uint8, shape (n, C, S, S).
        before: A sample of train images as they are stored, uint8, shape (m, C, S, S).
        after: The same images after augmentation; shape (0, C, S, S) without augmentation.
        sample_target: Label indices of the sample, int64, shape (m,).
    """

    rows: Array
    images: Array
    before: Array
    after: Array
    sample_target: Array

    def save(self, path: Path) -> Path:
        """Write the arrays to an npz file and return its path."""
        with atomic_write(path) as part, part.open("wb") as file:
            np.savez_compressed(file, **{each.name: getattr(self, each.name) for each in fields(self)})
        return path

    @classmethod
    def load(cls, path: Path) -> "ReportImages":
        """Return the images of a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(**{each.name: stored[each.name] for each in fields(cls)})

    def find(self, rows: Array) -> tuple[Array, Array]:
        """Return the rows whose image is kept, and their pixels, for rows of the outcome in any order."""
        kept = rows[np.isin(rows, self.rows)]
        return kept, self.images[np.searchsorted(self.rows, kept)]


def as_picture(pixels: Array) -> Array:
    """Return an image for Matplotlib's imshow, (C, S, S) -> (S, S, 3)."""
    channels = pixels if len(pixels) == 3 else np.repeat(pixels[:1], 3, axis=0)  # (1, S, S) -> (3, S, S)
    return np.moveaxis(channels, 0, 2)
