"""Records: the names and metadata of the images of a data set, known without opening an image."""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Records:
    """One row per image.

    Args:
        names: Unique image names, str, shape (N,): the path below the data root, or an index such as `train/00042`.
        columns: Metadata of each image, arrays of shape (N,). Columns with a fixed meaning are `class` (indices into
            class_names, int64), `age` (years, int64), `identity` (the person or page that train and test must not
            share; an empty string is unknown), `rank` (CACD's), and `part` (`train`, `val` or `test`).
        class_names: Names of the classes.
        groups: Names of the groups that images are compared by, such as `sex`, str arrays of shape (N,). A missing name
            is `unknown`.
        own_parts: Whether `part` is from the user, such as a column of a table, and not from the publisher.
        whole: The complete records from which `take` selected these; None if these are complete.
    """

    names: Array
    columns: dict[str, Array] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    groups: dict[str, Array] = field(default_factory=dict)
    own_parts: bool = False
    whole: "Records | None" = None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Array) -> "Records":
        """Return the records of the given rows, int64, shape (n,), in that order."""
        columns, groups = ({k: v[rows] for k, v in each.items()} for each in (self.columns, self.groups))
        return replace(self, names=self.names[rows], columns=columns, groups=groups, whole=self)


class Source(Protocol):
    """A source of images. The constructor does no work; `prepare` may download, all other methods only read."""

    channels: int  # of the image files: 1 grey, 3 colour
    targets: tuple[str, ...]  # the targets that its records support, the default first
    path_is_identity: bool  # whether another path means other data; False for a published data set

    def prepare(self) -> None:
        """Download or generate missing data, once; raise UserError if the data is unavailable."""

    def records(self) -> Records:
        """Return all rows that the data set lists, in a fixed order, without opening an image."""

    def present(self) -> Array:
        """Return which rows have an image file, bool, shape (N,)."""

    def open(self, row: int) -> Image.Image:
        """Return the decoded image of one row, or raise BrokenImageError; thread-safe."""

    def stamps(self, rows: Array) -> Array:
        """Return the stamp of each row, a number that changes if the file changes, uint64, shape (n,)."""

    def reading_order(self, rows: Array) -> Array:
        """Return the same rows in the order in which reading them is fastest."""
