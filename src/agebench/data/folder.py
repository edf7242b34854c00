"""Images sorted into one folder a class, as torchvision's ImageFolder and the age lecture have them."""

import logging
import unicodedata
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from agebench.data.files import find_images, open_image, stamp_files
from agebench.data.records import Array, Records
from agebench.errors import UserError

log = logging.getLogger(__name__)

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
        self.root = Path(root).expanduser()

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
        parts = [_part(p) for p in below]
        if "train" not in parts:
            parts = [None] * len(parts)
        classes = [p[1] if part else p[0] for p, part in zip(below, parts, strict=True)]
        # Archives unpacked on macOS spell accents and dakuten apart.
        names, codes = np.unique([unicodedata.normalize("NFC", c) for c in classes], return_inverse=True)
        columns = {"class": codes.astype(np.int64)}
        if any(parts):
            if "test" not in parts:
                parts = ["test" if part == "val" else part for part in parts]
            columns["part"] = np.array(parts)
        listed = np.array([unicodedata.normalize("NFC", "/".join(p)) for p in below])
        return Records(listed, columns, tuple(str(n) for n in names))

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
        found = [path for path in find_images(self.root) if path.parent != self.root]
        parts = [_part(path.relative_to(self.root).parts) for path in found]
        if "train" not in parts:
            return found
        inside = [path for path, part in zip(found, parts, strict=True) if part]
        if len(inside) < len(found):
            log.warning(
                "%s images under %s are in no class folder of train, val or test and are left out",
                f"{len(found) - len(inside):,}",
                self.root,
            )
        return inside


def _part(below: tuple[str, ...]) -> str | None:
    """Return the part that `train/cat/1.jpg`, cut at its slashes, lies in; None for `cat/1.jpg`."""
    return PART_FOLDERS.get(below[0].lower()) if len(below) > 2 else None
