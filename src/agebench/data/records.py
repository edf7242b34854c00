"""What a data set says about its images, without opening one."""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Records:
    """One row an image.

    Args:
        names: Unique image names, str, shape (N,): the path below the data root, or an index such as `train/00042`.
        columns: What is known of each image, every array of shape (N,). Names with a meaning elsewhere are `class`
            (codes into class_names, int64), `age` (years, int64), `identity` (whoever or whatever must not be shared
            between train and test), `rank` (CACD's), and `part` (the publisher's own `train`, `val` or `test`).
        class_names: What the codes in `class` stand for.
        own_parts: Whether `part` is the user's own, as a table's column is, and not the publisher's.
        whole: The records that these were taken from, if they were.
    """

    names: Array
    columns: dict[str, Array] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    own_parts: bool = False
    whole: "Records | None" = None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Array) -> "Records":
        """Return the records of the given rows, int64, shape (n,), in that order."""
        columns = {k: v[rows] for k, v in self.columns.items()}
        return replace(self, names=self.names[rows], columns=columns, whole=self)


class Source(Protocol):
    """Where images come from. A constructor does no work; `prepare` may download, the rest only reads."""

    channels: int  # what its files naturally are: 1 grey, 3 colour
    targets: tuple[str, ...]  # the targets its records can serve, the natural one first
    path_is_identity: bool  # whether another path means other data; False for a published data set

    def prepare(self) -> None:
        """Download or draw what is missing, once; raise UserError if the data cannot be had."""

    def records(self) -> Records:
        """Return every row that the data set lists, in a fixed order, opening no image."""

    def present(self) -> Array:
        """Return which rows have an image to open, bool, shape (N,)."""

    def open(self, row: int) -> Image.Image:
        """Decode the image of one row; safe to call from several threads. Raises BrokenImageError."""

    def stamps(self, rows: Array) -> Array:
        """Return a number for each row that changes whenever its pixels may have changed, uint64, shape (n,)."""

    def reading_order(self, rows: Array) -> Array:
        """Return the same rows in the order in which reading them is fastest."""
