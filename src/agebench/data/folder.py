"""Images sorted into one folder a class, as torchvision's ImageFolder and the age lecture have them."""

from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from agebench.data.files import find_images, open_image, stamp_files
from agebench.data.records import Array, Records
from agebench.errors import UserError

PART_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Folder:
    """`root/<class>/*.jpg`, or `root/{train,val,test}/<class>/*.jpg` (val may be missing; then it is cut from train).

    With train and val folders but no test, as the age lecture leaves them, val is the test part.

    Args:
        root: The folder.
    """

    channels = 3
    targets = ("class",)

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def prepare(self) -> None:
        """Raise UserError if there is no image in a class folder."""
        if not self._paths:
            raise UserError(
                f"no images under {self.root}: expected {self.root}/<class>/*.jpg or {self.root}/train/<class>/*.jpg; "
                "set data.root=FOLDER"
            )

    def records(self) -> Records:
        """Return a row for each image, with its class and, if the folders tell, its part."""
        below = [path.relative_to(self.root).parts for path in self._paths]
        parts = [PART_FOLDERS.get(p[0].lower()) if len(p) > 2 else None for p in below]
        if "train" not in parts:
            parts = [None] * len(parts)
        classes = [p[1] if part else p[0] for p, part in zip(below, parts, strict=True)]
        names, codes = np.unique(classes, return_inverse=True)
        columns = {"class": codes.astype(np.int64)}
        if any(parts):
            if "test" not in parts:
                parts = ["test" if part == "val" else part for part in parts]
            columns["part"] = np.array([part or "" for part in parts])
        return Records(np.array(["/".join(p) for p in below]), columns, tuple(str(n) for n in names))

    def present(self) -> Array:
        """Return all True: only files that exist are listed."""
        return np.ones(len(self._paths), dtype=bool)

    def open(self, row: int) -> Image.Image:
        """Decode the image of one row."""
        return open_image(self._paths[row])

    def stamp(self) -> str:
        """Return a hash of the files' names, sizes and times."""
        return stamp_files(self._paths)

    @cached_property
    def _paths(self) -> list[Path]:
        return [path for path in find_images(self.root) if path.parent != self.root]
