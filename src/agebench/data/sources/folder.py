"""Images in one folder per class, the layout of torchvision's ImageFolder and of the age lecture."""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from agebench.data.keys import DataPath
from agebench.data.readers.archives import check_exists, open_archive
from agebench.data.readers.folders import Files, FileSource, FolderFiles, nfc
from agebench.data.records import Records
from agebench.errors import UserError

log = logging.getLogger(__name__)

PART_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


class Folder(FileSource):
    """`root/<class>/*.jpg`, or `root/{train,val,test}/<class>/*.jpg` (without val, it is drawn from train).

    With train and val folders but no test folder, as in the age lecture, val is the test part.

    Args:
        root: The folder, or a zip or tar archive of it, which is read without unpacking.
        cache: Folder for the index of a large archive, so that it is listed only once.
    """

    channels = 3
    targets = ("class",)

    def __init__(self, root: DataPath, *, cache: str | None = None) -> None:
        self.root = Path(root).expanduser()
        self.cache = None if cache is None else Path(cache).expanduser()

    def prepare(self) -> None:
        """Raise UserError if no class folder has an image."""
        if not self.root.exists():
            raise UserError(f"data.root={self.root} does not exist: give a folder of images, or a zip or tar of one")
        if not self._file_names:
            raise UserError(
                f"no images under {self.root}: expected {self.root}/<class>/*.jpg or {self.root}/train/<class>/*.jpg; "
                "set data.root=FOLDER"
            )

    def records(self) -> Records:
        """Return one row for each image, with its class and, if there are folders for parts, its part."""
        below = [name.split("/")[self._wrapped :] for name in self._file_names]
        parts = [_part(p) for p in below]
        if "train" not in parts:
            parts = [None] * len(parts)
        classes = [p[1] if part else p[0] for p, part in zip(below, parts, strict=True)]
        # On macOS, unpacked names have accents and dakuten as separate characters.
        names, codes = np.unique([nfc(c) for c in classes], return_inverse=True)
        columns = {"class": codes.astype(np.int64)}
        if any(parts):
            if "test" not in parts:
                parts = ["test" if part == "val" else part for part in parts]
            columns["part"] = np.array(parts)
        return Records(np.array(["/".join(map(nfc, p)) for p in below]), columns, tuple(str(n) for n in names))

    @cached_property
    def _files(self) -> Files:
        check_exists(self.root)
        return open_archive(self.root, cache=self.cache) if self.root.is_file() else FolderFiles(self.root)

    @cached_property
    def _wrapped(self) -> int:
        """Number of folders around the class folders: 1 if `pets.zip` contains `pets/cat/1.jpg`."""
        names = self._files.names()
        tops = {name.partition("/")[0].lower() for name in names}
        return int(len(tops) == 1 and not tops & PART_FOLDERS.keys() and any(name.count("/") > 1 for name in names))

    @cached_property
    def _file_names(self) -> list[str]:
        # Sorted in one Unicode form, so that the order of the rows does not depend on the system that unpacked them.
        found = sorted((name for name in self._files.names() if name.count("/") > self._wrapped), key=nfc)
        parts = [_part(name.split("/")[self._wrapped :]) for name in found]
        if "train" not in parts:
            return found
        inside = [name for name, part in zip(found, parts, strict=True) if part]
        if len(inside) < len(found):
            outside = len(found) - len(inside)
            images = "image is" if outside == 1 else "images are"
            count = f"{outside:,}"
            log.warning("%s %s in no class folder of train, val or test under %s: ignored", count, images, self.root)
        return inside


def _part(below: Sequence[str]) -> str | None:
    """Return the part of a path that was split at its slashes: `train` for train/cat/1.jpg, None for cat/1.jpg."""
    return PART_FOLDERS.get(below[0].lower()) if len(below) > 2 else None
