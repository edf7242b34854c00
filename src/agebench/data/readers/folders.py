"""Image files that lie together: find them, read them, and tell when one has changed."""

import io
import os
import re
import stat
import unicodedata
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from agebench.data.records import Array, Records
from agebench.errors import BrokenImageError, UserError, one_line_message

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP")  # an EPS, say, would start Ghostscript
CUT_SHORT = re.compile(r"truncated", re.IGNORECASE)  # what Pillow says of it
MOST_PIXELS = 89_478_485  # where Pillow starts to warn of decompression bombs
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # which decode() turns into a reason
MOST_BYTES = 256 * 2**20  # of one image file


class Files(Protocol):
    """Image files below a folder, or in an archive that stays packed."""

    def names(self) -> list[str]:
        """Return each image file once, by its path below the root with `/`, sorted."""

    def read(self, name: str) -> bytes:
        """Return what a file holds; from any thread, and in a forked process. Raises BrokenImageError."""

    def stamps(self, names: Sequence[str]) -> Array:
        """Return a number for each file that changes whenever it does, uint64, shape (n,)."""

    def positions(self, names: Sequence[str]) -> Array:
        """Return where each file lies, int64, shape (n,): reading in ascending order is fastest."""


class FolderFiles:
    """The files of a folder, at any depth; hidden ones are skipped.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Return each image file once, by its path below the root, sorted."""
        return sorted(find_images(self.root))

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        path = self.root / name
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would never end
                raise BrokenImageError("it is no file")
            if status.st_size > MOST_BYTES:
                raise BrokenImageError(f"{status.st_size / 2**20:,.0f} MiB are too much for an image")
            return path.read_bytes()
        except OSError as error:
            leads_nowhere = isinstance(error, FileNotFoundError) and path.is_symlink()
            reason = "a link that leads nowhere" if leads_nowhere else error.strerror or str(error)
            raise BrokenImageError(reason, lasting=False) from error

    def stamps(self, names: Sequence[str]) -> Array:
        """Return a mixture of size and time of each file, uint64, shape (n,); 1 for one that is gone."""
        stamps, root = np.ones(len(names), dtype=np.uint64), str(self.root)
        for i, name in enumerate(names):
            try:
                status = os.stat(os.path.join(root, name))  # noqa: PTH116,PTH118  # a Path for each of 163,446 costs seconds
            except OSError:
                continue
            stamps[i] = (status.st_mtime_ns * 0x9E3779B97F4A7C15 + status.st_size) % (2**64 - 1) + 1  # never 0
        return stamps

    def positions(self, names: Sequence[str]) -> Array:
        """Return the order of the names, int64, shape (n,): the file system does not say more."""
        return np.arange(len(names))


class FileSource(ABC):
    """What every source of image files shares: `_files` and, for each row, the file's name there or None."""

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
        """Return which rows have a file, bool, shape (N,)."""
        return np.array([name is not None for name in self._file_names], dtype=bool)

    def read(self, row: int) -> bytes:
        """Return the file of one row as it is."""
        name = self._file_names[row]
        if name is None:
            raise BrokenImageError("there is no such file", lasting=False)
        return self._files.read(name)

    def open(self, row: int) -> Image.Image:
        """Decode the image of one row."""
        return decode(self.read(row))

    def stamps(self, rows: Array) -> Array:
        """Return a number for each row that changes whenever its file does, uint64, shape (n,)."""
        return self._files.stamps(self._names_of(rows))

    def reading_order(self, rows: Array) -> Array:
        """Return the rows in the order of where their files lie."""
        return rows[np.argsort(self._files.positions(self._names_of(rows)), kind="stable")]

    def _names_of(self, rows: Array) -> list[str]:
        return [self._file_names[row] or "" for row in rows.tolist()]


def decode(data: bytes) -> Image.Image:
    """Decode an image file whole, whatever its name says it is.

    Raises:
        BrokenImageError: If it is no image, cut short, or larger than MOST_PIXELS.
    """
    if not data:
        raise BrokenImageError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise BrokenImageError(f"{image.width} x {image.height} px are too many: at most {MOST_PIXELS:,}")
        image.load()
    except UnidentifiedImageError as error:
        raise BrokenImageError(f"it is no image of a kind that is read ({', '.join(FORMATS)})") from error
    except BrokenImageError:
        raise
    except Image.DecompressionBombError as error:
        raise BrokenImageError(f"it has too many pixels: at most {MOST_PIXELS:,} are read") from error
    except MemoryError as error:
        raise BrokenImageError("it takes more memory than there is", lasting=False) from error
    except Exception as error:  # damaged files make Pillow's plugins raise nearly anything
        reason = (
            "the file is cut short"
            if CUT_SHORT.search(str(error))
            else f"the file is damaged ({one_line_message(error)})"
        )
        raise BrokenImageError(reason) from error
    return image


def find_images(folder: Path) -> Iterator[str]:
    """Yield every image file below a folder, at any depth, by its path below it; hidden files and folders are skipped.

    Links to folders are followed, unless they lead back to a folder that they lie in.

    Raises:
        UserError: If a folder is there and cannot be listed; os.walk by itself would pass it by.
    """
    root = str(folder)
    for here, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        folders[:] = [f for f in folders if not _is_hidden(f) and not _leads_back(Path(here, f))]
        # Text, for a Path for each of 163,446 files costs seconds.
        below = here[len(root) :].replace(os.sep, "/").strip("/")
        yield from (f"{below}/{file}" if below else file for file in files if is_image(file))


def is_image(file: str) -> bool:
    """Return whether a file's bare name is an image's; `._1.jpg` and the like are what macOS leaves beside it."""
    return file.lower().endswith(EXTENSIONS) and not file.startswith(".")


def nfc(text: str) -> str:
    """Return a text in the Unicode form that metadata uses; macOS unpacks archives to the other.

    A file's name in bytes that are not UTF-8 is read as Latin-1, for as it is nobody could write it to a table.
    """
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape").decode("utf-8" if _is_utf8(text) else "latin-1")
    return unicodedata.normalize("NFC", text)


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        reason = error.strerror or str(error)
        raise UserError(f"cannot list the folder {error.filename} ({reason}): see to its permissions") from error


def _is_hidden(folder: str) -> bool:
    return folder.startswith(".") or folder == "lost+found"  # which every ext4 disk has for root alone


def _leads_back(folder: Path) -> bool:
    return folder.is_symlink() and folder.resolve() in {parent.resolve() for parent in folder.absolute().parents}
