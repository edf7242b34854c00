"""Image files in a folder: find them, read them, and detect changes."""

import io
import os
import re
import stat
import unicodedata
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from agebench.data.records import Array, Records
from agebench.errors import BrokenImageError, UserError, one_line_message
from agebench.files import near_path

EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp")
PHONES = (".heic", ".heif", ".avif")  # photos that are found, so that they are reported, but cannot be read
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")  # without EPS, which would start Ghostscript
TRUNCATED = re.compile(r"truncated", re.IGNORECASE)  # in the messages of Pillow
MAX_PIXELS = 89_478_485  # Pillow warns of decompression bombs above this
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # decode() checks MAX_PIXELS instead
MAX_BYTES = 256 * 2**20  # of one image file


class Files(Protocol):
    """Image files below a folder or inside a packed archive."""

    def names(self) -> list[str]:
        """Return the path of each image file relative to the root, with `/`, sorted and unique."""

    def read(self, name: str) -> bytes:
        """Return the content of a file, or raise BrokenImageError; safe in threads and in forked processes."""

    def stamps(self, names: Sequence[str]) -> Array:
        """Return the stamp of each file, a number that changes if the file changes, uint64, shape (n,)."""

    def sizes(self, names: Sequence[str]) -> Array:
        """Return the size of each file in bytes, int64, shape (n,); -1 if it does not exist."""

    def positions(self, names: Sequence[str]) -> Array:
        """Return the position of each file, int64, shape (n,); reading in ascending order is fastest."""


class FolderFiles:
    """The image files of a folder, at any depth; hidden files are skipped.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Return the path of each image file relative to the root, sorted."""
        return sorted(find_images(self.root))

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        path = self.root / name
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would never end
                raise BrokenImageError("it is not a regular file")
            if status.st_size > MAX_BYTES:
                raise BrokenImageError(f"{status.st_size / 2**20:,.0f} MiB are too large for an image")
            return path.read_bytes()
        except OSError as error:
            dangling = isinstance(error, FileNotFoundError) and path.is_symlink()
            reason = "it is a broken symbolic link" if dangling else error.strerror or str(error)
            raise BrokenImageError(reason, lasting=False) from error

    def stamps(self, names: Sequence[str]) -> Array:
        """Return a hash of the size and modification time of each file, uint64, shape (n,); 1 if it does not exist."""
        stamps, root = np.ones(len(names), dtype=np.uint64), str(self.root)
        for i, name in enumerate(names):
            try:
                status = os.stat(os.path.join(root, name))  # noqa: PTH116,PTH118  # 163,446 Path objects take seconds
            except OSError:
                continue
            stamps[i] = (status.st_mtime_ns * 0x9E3779B97F4A7C15 + status.st_size) % (2**64 - 1) + 1  # never 0
        return stamps

    def sizes(self, names: Sequence[str]) -> Array:
        """Return the size of each file in bytes, int64, shape (n,); -1 if it does not exist."""
        sizes, root = np.full(len(names), -1, dtype=np.int64), str(self.root)
        for i, name in enumerate(names):
            with suppress(OSError):
                sizes[i] = os.stat(os.path.join(root, name)).st_size  # noqa: PTH116,PTH118  # as in stamps
        return sizes

    def positions(self, names: Sequence[str]) -> Array:
        """Return the order of the names, int64, shape (n,); the file system does not give positions on the disk."""
        return np.arange(len(names))


class FileSource(ABC):
    """Base class of sources whose images are files.

    A subclass defines `_files` (the files) and `_file_names` (the file name of each row, or None without a file).
    """

    @property
    @abstractmethod
    def _files(self) -> Files: ...

    @property
    @abstractmethod
    def _file_names(self) -> Sequence[str | None]: ...

    @abstractmethod
    def records(self) -> Records:
        """Return every row that the data set lists."""

    def present(self) -> Array:
        """Return whether each row has a file, bool, shape (N,)."""
        return np.array([name is not None for name in self._file_names], dtype=bool)

    def read(self, row: int) -> bytes:
        """Return the content of the file of one row."""
        name = self._file_names[row]
        if name is None:
            raise BrokenImageError("the file does not exist", lasting=False)
        return self._files.read(name)

    def open(self, row: int) -> Image.Image:
        """Return the decoded image of one row."""
        return decode(self.read(row))

    def stamps(self, rows: Array) -> Array:
        """Return the stamp of each row, a number that changes if its file changes, uint64, shape (n,)."""
        return self._files.stamps(self._names_of(rows))

    def sizes(self, rows: Array) -> Array:
        """Return the size in bytes of the file of each row, int64, shape (n,); -1 if it does not exist."""
        return self._files.sizes(self._names_of(rows))

    def reading_order(self, rows: Array) -> Array:
        """Return the rows in the order of the positions of their files."""
        return rows[np.argsort(self._files.positions(self._names_of(rows)), kind="stable")]

    def _names_of(self, rows: Array) -> list[str]:
        return [self._file_names[row] or "" for row in rows.tolist()]


def decode(data: bytes) -> Image.Image:
    """Return the decoded image of a file. The content determines the format, not the file name.

    Raises:
        BrokenImageError: If it is not an image, is truncated, or has more than MAX_PIXELS pixels.
    """
    if not data:
        raise BrokenImageError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise BrokenImageError(f"{image.width} x {image.height} px are too many: at most {MAX_PIXELS:,}")
        image.load()
    except UnidentifiedImageError as error:
        if data[4:8] == b"ftyp":  # the container of HEIC, HEIF and AVIF
            raise BrokenImageError("it is a HEIC, HEIF or AVIF photo: convert it to JPEG") from error
        raise BrokenImageError(f"it is not an image in a supported format ({', '.join(FORMATS)})") from error
    except BrokenImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BrokenImageError(f"it has too many pixels: at most {MAX_PIXELS:,} are read") from error
    except MemoryError as error:
        raise BrokenImageError("it needs more memory than is available", lasting=False) from error
    except Exception as error:  # a damaged file can make Pillow raise any exception
        why = one_line_message(error)
        reason = "the file is truncated" if TRUNCATED.search(str(error)) else f"the file is damaged ({why})"
        raise BrokenImageError(reason) from error
    return image


def find_images(folder: Path) -> Iterator[str]:
    """Yield the relative path of every image file below a folder, at any depth; hidden files and folders are skipped.

    Symbolic links to folders are followed, except those to a parent folder.

    Raises:
        UserError: If a folder exists and cannot be listed; os.walk alone would skip it silently.
    """
    root = str(folder)
    for here, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        folders[:] = [f for f in folders if not _is_hidden(f) and not _links_to_parent(Path(here, f))]
        # Strings, because 163,446 Path objects take seconds.
        below = here[len(root) :].replace(os.sep, "/").strip("/")
        yield from (f"{below}/{file}" if below else file for file in files if is_image(file))


def check_exists(path: Path) -> None:
    """Raise UserError if a path of unlabelled images is neither a folder nor a file."""
    if not (path.is_dir() or path.is_file()):
        near = near_path(path)
        guess = "" if near is None else f" (did you mean '{near}'?)"
        raise UserError(
            f"{path} does not exist{guess}: give a folder of images, a zip or tar of such a folder, a CSV file with a "
            "column path, or an image"
        )


def is_image(file: str) -> bool:
    """Return whether a file name has an image extension and is not hidden; macOS adds files such as `._1.jpg`."""
    return file.lower().endswith(EXTENSIONS + PHONES) and not file.startswith(".")


def nfc(text: str) -> str:
    """Return a text in the Unicode form NFC, which metadata uses. macOS unpacks archives to NFD.

    A file name that is not valid UTF-8 is decoded as Latin-1, because it could not be written to a table otherwise.
    """
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape").decode("utf-8" if _is_utf8(text) else "latin-1")
    return unicodedata.normalize("NFC", text)


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        reason = error.strerror or str(error)
        raise UserError(f"cannot list the folder {error.filename} ({reason}): check its permissions") from error


def _is_hidden(folder: str) -> bool:
    return folder.startswith(".") or folder == "lost+found"  # every ext4 disk has it, readable by root only


def _links_to_parent(folder: Path) -> bool:
    return folder.is_symlink() and folder.resolve() in {parent.resolve() for parent in folder.absolute().parents}
