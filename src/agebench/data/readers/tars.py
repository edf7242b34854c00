"""The images in a tar or tar.gz, read in place with a cached listing."""

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

KEPT_BLOCKS = 4  # inflated blocks in memory, for threads at slightly different positions

_log = logging.getLogger(__name__)


class TarFiles:
    """The images in a tar or tar.gz.

    Args:
        path: The archive.
        cache: Folder for the listing and the seek points; with None they are computed each time.

    Raises:
        UserError: If it is truncated or damaged, or has an unsafe member.
    """

    def __init__(self, path: Path, *, cache: Path | None = None) -> None:
        self.path = path
        try:
            found = path.stat()
            self._archive = np.array([found.st_size, found.st_mtime_ns], dtype=np.int64)
            self._listing = list_tar(path) if cache is None else _cached_listing(path, self._archive, cache)
            self._opened = os.getpid(), self._open()
        except OSError as error:
            raise UserError(f"cannot list {path} ({error}): check the disk, or set paths.cache elsewhere") from error
        self._rows = {name: row for row, name in enumerate(self._listing.names)}

    def names(self) -> list[str]:
        """Return the paths of the images, sorted."""
        return list(self._listing.names)

    def read(self, name: str) -> bytes:
        """Return the content of a member."""
        row = self._rows.get(name)
        if row is None:
            raise BrokenImageError("the file does not exist", lasting=False)
        size = int(self._listing.sizes[row])
        try:
            data = self._reader().read(int(self._listing.offsets[row]), size)
        except (OSError, EOFError) as error:
            raise BrokenImageError(
                f"{self.path.name} can no longer be read at its position ({error})", lasting=False
            ) from error
        if len(data) != size:
            raise BrokenImageError(f"{self.path.name} ends before the file ends", lasting=False)
        return data

    def stamps(self, names: Sequence[str]) -> Array:
        """Return a number for each member, uint64, shape (n,); 1 if it does not exist.

        It depends on the size and time of the archive and on the offset and size of the member, because a tar has no
        checksum of the content.
        """
        rows = np.array([self._rows.get(name, -1) for name in names], dtype=np.int64)
        key = int.from_bytes(hashlib.blake2b(self._archive.tobytes(), digest_size=8).digest())
        # Offsets are multiples of 512 and sizes need 29 bits, so every member has its own number.
        places = (self._listing.offsets // tarfile.BLOCKSIZE << 29 | self._listing.sizes).astype(np.uint64)
        return np.where(rows < 0, np.uint64(1), np.maximum(places ^ np.uint64(key), 1)[rows])

    def sizes(self, names: Sequence[str]) -> Array:
        """Return the size of each member in bytes, int64, shape (n,); -1 if it does not exist."""
        rows = np.array([self._rows.get(name, -1) for name in names], dtype=np.int64)
        return np.where(rows < 0, -1, self._listing.sizes[rows])

    def positions(self, names: Sequence[str]) -> Array:
        """Return the offset of the data of each member in the unpacked tar, int64, shape (n,)."""
        rows = np.array([self._rows.get(name, -1) for name in names], dtype=np.int64)
        return np.where(rows < 0, -1, self._listing.offsets[rows])

    def _reader(self) -> "_Reader":
        # A forked process shares the file position with its parent, and may inherit a lock that is never released.
        if self._opened[0] != os.getpid():
            self._opened = os.getpid(), self._open()
        return self._opened[1]

    def _open(self) -> "_Reader":
        return _GzipReader(self.path, self._listing) if self._listing.starts else _PlainReader(self.path)


class _Reader(Protocol):
    def read(self, offset: int, size: int) -> bytes: ...


class _PlainReader:
    """Reads a tar that is not compressed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


class _GzipReader:
    """Reads a gzipped tar block by block; the last blocks stay in memory, because neighbours are read together."""

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
        block = self._blocks.get(number)  # without the lock, so that reading does not wait for the next block
        if block is None:
            with self._lock:
                block = self._blocks.get(number)
                if block is None:
                    start, end = self._starts[number : number + 2]
                    if os.fstat(self._file.fileno()).st_size != self._length:  # indexed_gzip would never return
                        raise EOFError("its size has changed")
                    # Raw, because its buffer would inflate up to twice as much.
                    block = self._file.raw.pread(end - start, start)
                    if len(block) != end - start:
                        raise EOFError("it ends too early")
                    while len(self._blocks) >= KEPT_BLOCKS:
                        del self._blocks[next(iter(self._blocks))]
                    self._blocks[number] = block
        return block


def _cached_listing(path: Path, archive: Array, cache: Path) -> Listing:
    """Return the listing of a tar from the cache, or compute and cache it; one process at a time."""
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
    except Exception as error:  # a damaged file can make NumPy raise any exception
        _log.warning("%s is damaged (%s); it is computed again", file, error)
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
