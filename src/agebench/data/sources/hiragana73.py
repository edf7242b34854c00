"""hiragana73: 80,000 images of 73 hiragana, 48x48 px, cut from pages scanned by the National Diet Library of Japan."""

import logging
import os
import re
import zipfile
from collections.abc import Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path

import numpy as np

from agebench.data.keys import DataPath
from agebench.data.readers.archives import ZipFiles, open_archive
from agebench.data.readers.download import download as fetch
from agebench.data.readers.folders import Files, FileSource, FolderFiles
from agebench.data.records import Records
from agebench.errors import BrokenImageError, UserError

IMAGES, CLASSES = 80_000, 73  # as published
ARCHIVE = "hiragana73.zip"

_FOLDER = re.compile(r"U[0-9A-F]{4}")
_IMAGE = re.compile(r"(?:.*/)?(U[0-9A-F]{4}/[^./][^/]*\.png)")
_ORIGIN = re.compile(r"(?P<year>\d{4})_(?P<page>\d+_\d+)")

_log = logging.getLogger(__name__)


class Hiragana73(FileSource):
    """One class for each character; a scanned page provides many images of many classes.

    Args:
        root: Folder of `hiragana73.zip` (preferred; it stays packed) or of the unpacked `U3042/*.png`, at most one
            folder deeper; or the zip itself.
        download: Whether `prepare` downloads the zip into `root` if there is neither.
        url: URL of the published zip.

    Source:
        National Diet Library of Japan, NDL Lab, "hiragana73" (Public Domain Mark).
    """

    channels = 1
    targets: tuple[str, ...] = ("class",)
    path_is_identity = False

    def __init__(
        self, root: DataPath, *, download: bool = True, url: str = "http://lab.ndl.go.jp/dataset/hiragana73.zip"
    ) -> None:
        self.root = Path(root).expanduser()
        self.download = download
        self.url = url

    def prepare(self) -> None:
        """Download and check the zip if there are no images; raise UserError if there are still none."""
        if self.download and _locate(self.root) is None:
            fetch([self.url], self.root / ARCHIVE, check=check_archive)
        self.records()

    def records(self) -> Records:
        """Return all rows, sorted by name (`U3042/1901_846066_0055.png`).

        Columns: `class` (int64, in code-point order), `identity` (the page, `846066_0055`), `year` (int64, 0 if the
        file name has none).
        """
        return self._loaded[2]

    @property
    def _files(self) -> Files:
        return self._loaded[0]

    @property
    def _file_names(self) -> Sequence[str | None]:
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[Files, list[str], Records]:
        files = _locate(self.root)
        images = _images(files, self.root) if files else {}
        names = sorted(images)
        if files is None or not names:
            raise UserError(
                f"no hiragana73 under {self.root}: expected {ARCHIVE} or folders such as U3042 with PNG files; set "
                "data.root to the folder of the files, or download it with `python -m agebench.prepare data=hiragana73`"
            )
        folders = [name[:5] for name in names]
        present, codes = np.unique(folders, return_inverse=True)
        origins = [_ORIGIN.match(name[6:]) for name in names]
        columns = {
            "class": codes.astype(np.int64),
            # A file with another name counts as a separate page.
            "identity": np.array([o["page"] if o else n[6:-4] for o, n in zip(origins, names, strict=True)]),
            "year": np.array([int(o["year"]) if o else 0 for o in origins], dtype=np.int64),
        }
        complete = len(names) >= IMAGES and len(present) >= CLASSES
        _log.log(
            logging.INFO if complete else logging.WARNING,
            "hiragana73 in %s: %s of %s images, %d of %d classes",
            self.root,
            f"{len(names):,}",
            f"{IMAGES:,}",
            len(present),
            CLASSES,
        )
        class_names = tuple(chr(int(folder[1:], 16)) for folder in present)
        return files, [images[name] for name in names], Records(np.array(names), columns, class_names)


def check_archive(path: Path) -> None:
    """Raise UserError unless the zip has 80,000 PNG files in 73 folders, all with the right CRC."""
    if not zipfile.is_zipfile(path):
        raise UserError("it is not a zip file")
    with closing(ZipFiles(path)) as archive:  # Windows cannot rename an open file
        images = _images(archive, path)
        broken = next((name for name, member in images.items() if not _is_intact(archive, member)), None)
    if broken is not None:
        raise UserError(f"the zip is damaged at {broken}")
    folders = {name[:5] for name in images}
    if (len(images), len(folders)) != (IMAGES, CLASSES):
        raise UserError(
            f"the zip has {len(images):,} images in {len(folders)} folders, expected {IMAGES:,} in {CLASSES}"
        )


def _is_intact(archive: ZipFiles, member: str) -> bool:
    try:
        archive.read(member)  # checks the CRC
    except BrokenImageError:
        return False
    return True


def _images(files: Files, where: Path) -> dict[str, str]:
    """Return the path of each file by its published name, such as `U3042/1901_846066_0055.png`."""
    images: dict[str, str] = {}
    for file in files.names():
        match = _IMAGE.fullmatch(file)
        if match is None or (isinstance(files, FolderFiles) and match[1] != file):
            continue
        if match[1] in images:
            raise UserError(f"{where} contains {match[1]} more than once; keep one copy of the data set in it")
        images[match[1]] = file
    return images


def _locate(root: Path) -> Files | None:
    """Return the zip, or the class folders closest to the root; raise UserError if two copies are equally close."""
    if root.is_file():
        return open_archive(root)
    if (root / ARCHIVE).is_file():
        return open_archive(root / ARCHIVE)
    level = [root] if root.is_dir() else []
    for _ in range(2):
        bases = [folder for folder in level if _class_folders(folder)]
        if len(bases) > 1:
            bases = [folder for folder in bases if folder.name == "hiragana73"] or bases
        if len(bases) > 1:
            raise UserError(
                f"hiragana73 was found more than once under {root}: {', '.join(map(str, bases))}; set data.root to one"
            )
        if bases:
            return FolderFiles(bases[0])
        level = [path for folder in level for path in sorted(folder.iterdir()) if path.is_dir()]
    return None


def _class_folders(base: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(base) as entries:
            return [entry for entry in entries if _FOLDER.fullmatch(entry.name) and entry.is_dir()]
    except PermissionError:  # such as lost+found
        return []
