"""The images in a tar, gzipped or not: the listing is kept, and each is read from where it lies."""

import bisect
import hashlib
import io
import logging
import os
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import indexed_gzip
import numpy as np
from filelock import FileLock

from agebench.data.readers.tar_index import Listing, list_tar
from agebench.data.records import Array
from agebench.errors import BrokenImageError, UserError

KEPT_BLOCKS = 4  # for threads that are not quite in step

_log = logging.getLogger(__name__)


class TarFiles:
    """The images in a tar or tar.gz.

    Args:
        path: The archive.
        cache: Folder that keeps the listing and the places where inflating can start; None makes them anew.

    Raises:
        UserError: If it is cut short or damaged, or holds what no archive of images does.
    """

    def __init__(self, path: Path, *, cache: Path | None = None) -> None:
        self.path = path
        try:
            found = path.stat()
            self._archive = np.array([found.st_size, found.st_mtime_ns], dtype=np.int64)
            self._listing = list_tar(path) if cache is None else _kept(path, self._archive, cache)
            self._opened = os.getpid(), self._open()
        except OSError as error:
            raise UserError(f"cannot list {path} ({error}): see to the disk, or set paths.cache= elsewhere") from error
        self._rows = {name: row for row, name in enumerate(self._listing.names)}

    def names(self) -> list[str]:
        """Return the images' paths, sorted."""
        return list(self._listing.names)

    def read(self, name: str) -> bytes:
        """Return what a member holds."""
        row = self._rows.get(name)
        if row is None:
            raise BrokenImageError("there is no such file", lasting=False)
        size = int(self._listing.sizes[row])
        try:
            data = self._reader().read(int(self._listing.offsets[row]), size)
        except (OSError, EOFError) as error:
            raise BrokenImageError(
                f"{self.path.name} cannot be read there any more ({error})", lasting=False
            ) from error
        if len(data) != size:
            raise BrokenImageError(f"{self.path.name} ends before it does", lasting=False)
        return data

    def stamps(self, names: Sequence[str]) -> Array:
        """Return the archive's size and time with each member's place and size in one number, uint64, shape (n,).

        A tar has no checksum of what a member holds. 1 stands for a member that is not there.
        """
        rows = np.array([self._rows.get(name, -1) for name in names], dtype=np.int64)
        key = int.from_bytes(hashlib.blake2b(self._archive.tobytes(), digest_size=8).digest())
        # Data start at multiples of 512 and sizes need 29 bits: no two members share a number.
        places = (self._listing.offsets // tarfile.BLOCKSIZE << 29 | self._listing.sizes).astype(np.uint64)
        return np.where(rows < 0, np.uint64(1), np.maximum(places ^ np.uint64(key), 1)[rows])

    def positions(self, names: Sequence[str]) -> Array:
        """Return where each member's data start, unpacked, int64, shape (n,)."""
        rows = np.array([self._rows.get(name, -1) for name in names], dtype=np.int64)
        return np.where(rows < 0, -1, self._listing.offsets[rows])

    def _reader(self) -> "_Reader":
        # A forked child would move the file position under its parent, and may inherit a lock that none will release.
        if self._opened[0] != os.getpid():
            self._opened = os.getpid(), self._open()
        return self._opened[1]

    def _open(self) -> "_Reader":
        return _Inflated(self.path, self._listing) if self._listing.starts else _Plain(self.path)


class _Reader(Protocol):
    def read(self, offset: int, size: int) -> bytes: ...


class _Plain:
    """A tar as it is."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


class _Inflated:
    """A gzipped tar, inflated a block at a time; the last blocks are kept, for neighbours are read together."""

    def __init__(self, path: Path, listing: Listing) -> None:
        self._length = path.stat().st_size
        self._file = indexed_gzip.IndexedGzipFile(path, drop_handles=False)
        self._file.import_index(fileobj=io.BytesIO(listing.index))
        self._starts = listing.starts
        self._blocks: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        data = bytearray()
        number = bisect.bisect_right(self._starts, offset) - 1
        while len(data) < size and number + 1 < len(self._starts):
            skipped = max(0, offset - self._starts[number])
            block = self._block(number)
            data += memoryview(block)[skipped : skipped + size - len(data)]
            number += 1
        return bytes(data)

    def _block(self, number: int) -> bytes:
        block = self._blocks.get(number)  # without the lock: the next block may be inflated meanwhile
        if block is None:
            with self._lock:
                block = self._blocks.get(number)
                if block is None:
                    start, end = self._starts[number : number + 2]
                    if os.fstat(self._file.fileno()).st_size != self._length:  # indexed_gzip would never return
                        raise EOFError("its size has changed")
                    # Past its buffer, which would inflate up to twice as much.
                    block = self._file.raw.pread(end - start, start)
                    if len(block) != end - start:
                        raise EOFError("it ends too early")
                    while len(self._blocks) >= KEPT_BLOCKS:
                        del self._blocks[next(iter(self._blocks))]
                    self._blocks[number] = block
        return block


def _kept(path: Path, archive: Array, cache: Path) -> Listing:
    """Return the listing that the cache has, or make it and leave it there; one process at a time."""
    file = (
        cache / f"archive-{hashlib.sha256(str(path.resolve()).encode(errors='surrogateescape')).hexdigest()[:20]}.npz"
    )
    listing = _load(file, archive)
    if listing is None:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            listing = _load(file, archive)
            if listing is None:
                listing = list_tar(path)
                _save(file, archive, listing)
    return listing


def _load(file: Path, archive: Array) -> Listing | None:
    try:
        with np.load(file, allow_pickle=False) as kept:  # checks the CRC of each array
            if not np.array_equal(kept["archive"], archive):
                return None
            return Listing(
                kept["names"].tobytes().decode().split("\0"),
                kept["offsets"],
                kept["sizes"],
                kept["starts"].tolist(),
                kept["index"].tobytes(),
            )
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file makes NumPy raise nearly anything
        _log.warning("%s is damaged (%s) and made anew", file, error)
        return None


def _save(file: Path, archive: Array, listing: Listing) -> None:
    part = file.with_suffix(".part")
    with part.open("wb") as stream:
        np.savez(
            stream,
            archive=archive,
            names=np.frombuffer("\0".join(listing.names).encode(), dtype=np.uint8),
            offsets=listing.offsets,
            sizes=listing.sizes,
            starts=np.array(listing.starts, dtype=np.int64),
            index=np.frombuffer(listing.index, dtype=np.uint8),
        )
    part.replace(file)
