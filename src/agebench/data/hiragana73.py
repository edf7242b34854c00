"""hiragana73: 80,000 hiragana of 73 kinds, 48x48, cut from pages that the National Diet Library scanned."""

import hashlib
import io
import logging
import os
import re
import struct
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from agebench.data.download import download as fetch
from agebench.data.records import Array, Records
from agebench.errors import UserError

IMAGES, CLASSES = 80_000, 73  # as published
ARCHIVE = "hiragana73.zip"

_FOLDER = re.compile(r"U[0-9A-F]{4}")
_FILE = re.compile(r"[^./][^/]*\.png")  # not the ._name.png that macOS leaves beside it
_ORIGIN = re.compile(r"(?P<year>\d{4})_(?P<page>\d+_\d+)")
_BROKEN = (  # what zipfile and Pillow raise for files that are damaged
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    Image.DecompressionBombError,
    OSError,
    EOFError,
    RuntimeError,
    SyntaxError,
    ValueError,
)

_log = logging.getLogger(__name__)


class _Files(Protocol):
    """What the zip and the unpacked folders both can do; names are `U3042/1901_846066_0055.png`."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def stamp(self) -> str: ...


class Hiragana73:
    """One class a character; every scanned page gives many of the images, of many classes.

    Args:
        root: Folder of `hiragana73.zip` (preferred, and read as it is) or of the unpacked `U3042/*.png`, which may lie
            one folder deeper; or the zip itself.
        download: Whether `prepare` fetches the zip into `root` when neither is there.
        url: Where the zip is published.

    Source:
        National Diet Library of Japan, NDL Lab, "hiragana73" (Public Domain Mark).
    """

    channels = 1
    targets: tuple[str, ...] = ("class",)

    def __init__(
        self, root: str, *, download: bool = True, url: str = "http://lab.ndl.go.jp/dataset/hiragana73.zip"
    ) -> None:
        self.root = Path(root).expanduser()
        self.download = download
        self.url = url
        self._lock = threading.Lock()
        self._loaded: tuple[_Files, Records] | None = None

    def prepare(self) -> None:
        """Download the zip if nothing is there, and check all of it; raise UserError if there is no image then."""
        if self.download and _locate(self.root) is None:
            fetch([self.url], self.root / ARCHIVE, check=check_archive)
        self.records()

    def records(self) -> Records:
        """Return all rows, sorted by name (`U3042/1901_846066_0055.png`).

        Columns: `class` (int64, in code-point order), `identity` (the page, `846066_0055`), `year` (int64, 0 where the
        file name gives none).
        """
        return self._load()[1]

    def present(self) -> Array:
        """Return that every row has its image, bool, shape (N,)."""
        return np.ones(len(self.records()), dtype=bool)

    def open(self, row: int) -> Image.Image:
        """Decode one image as it is: some files are mode L, some RGB; raise UserError naming a broken one."""
        files, records = self._load()
        name = str(records.names[row])
        try:
            image = Image.open(io.BytesIO(files.read(name)))
            image.load()
        except _BROKEN as error:
            raise UserError(
                f"cannot read {name} of hiragana73 in {self.root} ({error}); delete it, or fetch the data set again"
            ) from error
        return image

    def stamp(self) -> str:
        """Return size and time of the zip, or a digest of every file's name, size and time."""
        return self._load()[0].stamp()

    def _load(self) -> tuple[_Files, Records]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._read()
            return self._loaded

    def _read(self) -> tuple[_Files, Records]:
        files = _locate(self.root)
        names = sorted(files.names()) if files else []
        if files is None or not names:
            raise UserError(
                f"no hiragana73 under {self.root}: expected {ARCHIVE} or folders such as U3042 with PNG files; set "
                "data.root= to the folder that has them, or fetch it with `python -m agebench.prepare data=hiragana73`"
            )
        folders = [name[:5] for name in names]
        present, codes = np.unique(folders, return_inverse=True)
        origins = [_ORIGIN.match(name[6:]) for name in names]
        columns = {
            "class": codes.astype(np.int64),
            # A file of one's own under another name counts as its own page.
            "identity": np.array([o["page"] if o else n[6:-4] for o, n in zip(origins, names, strict=True)]),
            "year": np.array([int(o["year"]) if o else 0 for o in origins], dtype=np.int64),
        }
        whole = len(names) >= IMAGES and len(present) >= CLASSES
        _log.log(
            logging.INFO if whole else logging.WARNING,
            "hiragana73 in %s: %s of %s images, %d of %d classes",
            self.root,
            f"{len(names):,}",
            f"{IMAGES:,}",
            len(present),
            CLASSES,
        )
        return files, Records(np.array(names), columns, tuple(chr(int(folder[1:], 16)) for folder in present))


def check_archive(path: Path) -> None:
    """Raise UserError unless the zip is whole: every CRC right, 80,000 PNG files in 73 folders."""
    if not zipfile.is_zipfile(path):
        raise UserError("it is no zip file")
    archive = _Archive(path)
    names = archive.names()
    folders = {name[:5] for name in names}
    broken = archive.first_broken()
    archive.close()  # Windows renames no open file
    if broken is not None:
        raise UserError(f"the zip is damaged at {broken}")
    if (len(names), len(folders)) != (IMAGES, CLASSES):
        raise UserError(
            f"the zip has {len(names):,} images in {len(folders)} folders, expected {IMAGES:,} in {CLASSES}"
        )


class _Archive:
    """The zip as published, read without unpacking it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._zip = self._open()
        self._members = self._images()

    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str) -> bytes:
        with self._lock:
            if self._process != os.getpid():  # a forked child would move the file position under its parent
                self._zip, self._process = self._open(), os.getpid()
            return self._zip.read(self._members[name])

    def stamp(self) -> str:
        stat = self._path.stat()
        return f"{self._path.name}:{stat.st_size}:{stat.st_mtime_ns}"

    def first_broken(self) -> str | None:
        for name in self._members:
            try:
                self.read(name)  # compares the CRC
            except _BROKEN:
                return name
        return None

    def close(self) -> None:
        self._zip.close()

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._path)
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise UserError(f"{self._path} is no readable zip ({error}); delete it and fetch it again") from error

    def _images(self) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            *above, folder, file = ["", *info.filename.replace("\\", "/").split("/")]
            if info.filename[:1] in ("/", "\\") or info.filename[1:2] == ":" or ".." in (*above, folder, file):
                raise UserError(f"{self._path} holds the unsafe name {info.filename!r}; use the zip as published")
            if "__MACOSX" in above or not (_FOLDER.fullmatch(folder) and _FILE.fullmatch(file)):
                continue
            name = f"{folder}/{file}"
            if name in members:
                raise UserError(f"{self._path} holds {name} more than once; keep one copy of the data set in it")
            members[name] = info
        return members


class _Folders:
    """The unpacked folders `U3042` and so on."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def names(self) -> list[str]:
        return [f"{entry.name}/{file.name}" for entry in _class_folders(self._base) for file in _images(entry.path)]

    def read(self, name: str) -> bytes:
        return (self._base / name).read_bytes()

    def stamp(self) -> str:
        lines = []
        for entry in _class_folders(self._base):
            for file in _images(entry.path):
                stat = file.stat()
                lines.append(f"{entry.name}/{file.name}:{stat.st_size}:{stat.st_mtime_ns}")
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _locate(root: Path) -> _Files | None:
    """Return the zip, else the folders nearest to the root; raise UserError where two copies are equally near."""
    if root.is_file():
        return _Archive(root)
    if (root / ARCHIVE).is_file():
        return _Archive(root / ARCHIVE)
    level = [root] if root.is_dir() else []
    for _ in range(2):
        bases = [folder for folder in level if _class_folders(folder)]
        if len(bases) > 1:
            bases = [folder for folder in bases if folder.name == "hiragana73"] or bases
        if len(bases) > 1:
            raise UserError(
                f"hiragana73 was found more than once under {root}: {', '.join(map(str, bases))}; set data.root= to one"
            )
        if bases:
            return _Folders(bases[0])
        level = [path for folder in level for path in sorted(folder.iterdir()) if path.is_dir()]
    return None


def _class_folders(base: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(base) as entries:
            return [entry for entry in entries if _FOLDER.fullmatch(entry.name) and entry.is_dir()]
    except PermissionError:  # lost+found and the like
        return []


def _images(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if _FILE.fullmatch(entry.name) and entry.is_file()]
