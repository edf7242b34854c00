"""The store of decoded pixels: a sparse file in the cache, filled on demand and memory-mapped by every run.

A store has a row for every image that a data set lists, at one size. The stamps of the finished images follow in the
same file; a stamp identifies the version of the image file. A run fills the rows that its split uses. A finished row
never changes. If its image has changed, a new file with the rows that are still valid replaces the old one; processes
that have mapped the old file keep it.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from filelock import FileLock, Timeout

from agebench.data.records import Array, Source
from agebench.data.resize import Resize
from agebench.data.threads import cores, map_chunks
from agebench.errors import BrokenImageError, UserError
from agebench.files import atomic_write
from agebench.progress import Bar

log = logging.getLogger(__name__)
Done = dict[int, BrokenImageError | None]  # the error of each row that was read, or None

VERSION = 2  # increase this when the same image files give other pixels
COMMIT_S = 2.0  # seconds between commits; a killed process loses at most this much decoding
PAGE = 4096  # bytes by which a sparse file grows


class Store:
    """The packed pixels of one source at one size.

    Args:
        cache: Folder of all stores.
        name: Name of the data set, which is part of the folder name.
        key: Identifies the source and the names of its rows.
        count: N, the number of rows that the source lists.
        resize: Resizes the images.
    """

    def __init__(self, cache: Path, name: str, *, key: str, count: int, resize: Resize) -> None:
        digest = hashlib.sha256(f"{VERSION}|Pillow {PIL.__version__}|{key}|{count}|{resize}".encode()).hexdigest()[:12]
        side = resize.size
        self.folder = cache / f"{name}-{side}x{side}x{resize.channels}-{digest}"
        self.resize = resize
        self.shape = (count, resize.channels, side, side)
        self.row_bytes = resize.channels * side * side
        self._file, self._broken = self.folder / "pixels.u8", self.folder / "broken.json"
        self._stamps_at = -(-count * self.row_bytes // PAGE) * PAGE
        self._size = self._stamps_at + 8 * count

    def fill(self, source: Source, rows: Array) -> tuple[Array, dict[int, str]]:
        """Decode the missing rows on all cores, and map the store.

        Args:
            source: Opens the images and detects changes.
            rows: Rows to fill, int64, shape (n,).

        Returns:
            The pixels, uint8, shape (N, C, S, S), and the reason for each row that cannot be decoded. Only filled rows
            contain an image. The pixels are read-only, because other processes map the same pages.

        Raises:
            UserError: If the cache cannot be written, or has too little space.
        """
        stamps = np.maximum(source.stamps(rows), 1)  # 0 marks an empty row
        pixels, done = self._map()
        if pixels is None or len(self._find_missing(done, rows, stamps)):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with self._locked():  # another process may have filled the rows meanwhile
                    self._create()
                    self._drop_changed(rows, stamps)
                    self._pack(source, rows, stamps)
                    pixels, done = self._map()
            except OSError as error:  # from writing; reading raises BrokenImageError
                reason = error.strerror or str(error)
                fix = (
                    "use a smaller data.image_size"
                    if error.errno == errno.EFBIG
                    else "set paths.cache to another folder"
                )
                raise UserError(f"cannot write {self.folder}: {reason}; {fix}") from error
        if pixels is None:
            raise UserError(f"{self._file} was removed while it was read: run the command again")
        broken = self._read_broken()
        failed = rows[(done[rows] != stamps)].tolist()
        return pixels, {row: broken[row][1] for row in failed if row in broken}

    def state(self, rows: Array) -> str:
        """Return a hash that changes with the pixels of the rows."""
        return hashlib.sha256(rows.tobytes() + self._map()[1][rows].tobytes()).hexdigest()[:16]

    def warm(self, rows: Array) -> None:
        """Read the rows, ascending int64, into the page cache sequentially, in a background thread."""
        threading.Thread(target=self._read_through, args=(rows,), daemon=True).start()

    def _read_through(self, rows: Array) -> None:
        buffer = memoryview(bytearray(16 * 2**20))
        with self._file.open("rb", buffering=0) as file:
            for run in _runs(rows):
                file.seek(int(run[0]) * self.row_bytes)
                left = len(run) * self.row_bytes
                while left > 0 and (read := file.readinto(buffer[: min(left, len(buffer))])):
                    left -= read

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            log.info("waiting for another process that is packing %s", self.folder)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _map(self) -> tuple[Array | None, Array]:
        """Return the pixels and the stamp of every row, uint64, shape (N,), both from the same version of the file."""
        if not self._is_complete():
            return None, np.zeros(self.shape[0], dtype=np.uint64)
        with self._file.open("rb") as file:
            pixels = np.memmap(file, dtype=np.uint8, mode="r", shape=self.shape)
            file.seek(self._stamps_at)
            done = np.frombuffer(file.read(8 * self.shape[0]), dtype=np.uint64)
        return pixels, done

    def _is_complete(self) -> bool:
        return self._file.exists() and self._file.stat().st_size == self._size

    def _create(self) -> None:
        """Create the sparse file if it is missing, and delete the partial files of a killed process."""
        # Delete only files that are written under this lock. Others, such as statistics, may be in use.
        for left in (self._file.with_suffix(".part"), *self.folder.glob(f"{self._broken.name}.*.part")):
            left.unlink(missing_ok=True)
        if not self._is_complete():
            self._broken.unlink(missing_ok=True)
            with self._file.open("wb") as file:
                file.truncate(self._size)

    def _read_broken(self) -> dict[int, tuple[int, str]]:
        try:
            known = json.loads(self._broken.read_text("utf-8"))
            return {int(row): (int(stamp), str(why)) for row, (stamp, why) in known.items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):  # unknown rows are tried again
            return {}

    def _find_missing(self, done: Array, rows: Array, stamps: Array) -> Array:
        """Return the positions of the rows that are neither packed nor known to be broken."""
        broken = self._read_broken()
        known = np.array([broken.get(row, (0, ""))[0] for row in rows.tolist()], dtype=np.uint64) if broken else 0
        return np.flatnonzero((done[rows] != stamps) & (known != stamps))

    def _drop_changed(self, rows: Array, stamps: Array) -> None:
        """Replace the file by one without the changed rows. Other processes may still map the old file."""
        done = self._map()[1].copy()
        changed = rows[(done[rows] != 0) & (done[rows] != stamps)]
        if not len(changed):
            return
        done[changed] = 0
        kept = np.flatnonzero(done).tolist()
        self._check_space(len(kept))
        log.info("images changed since they were packed: %s; kept: %s", f"{len(changed):,}", f"{len(kept):,}")
        part = self._file.with_suffix(".part")
        with self._file.open("rb") as old, part.open("wb") as new:
            new.truncate(self._size)
            for row in kept:
                old.seek(row * self.row_bytes)
                new.seek(row * self.row_bytes)
                new.write(old.read(self.row_bytes))
            new.seek(self._stamps_at)
            new.write(done.tobytes())
            _sync(new)
        part.replace(self._file)

    def _pack(self, source: Source, rows: Array, stamps: Array) -> None:
        missing = self._find_missing(self._map()[1], rows, stamps)
        if not len(missing):
            return
        self._check_space(len(missing))
        log.info("packing %s image%s into %s", f"{len(missing):,}", "s" * (len(missing) > 1), self.folder)
        start = time.monotonic()
        self._decode(source, rows[missing], stamps[missing])
        seconds = time.monotonic() - start
        log.info("packed in %.0f s, %s images/s", seconds, f"{len(missing) / max(seconds, 1e-3):,.0f}")

    def _check_space(self, count: int) -> None:
        pages = -(-self.row_bytes // PAGE) + (self.row_bytes % PAGE > 0)
        needed = min(count * pages * PAGE, self._stamps_at)
        needed += min(count * PAGE, self._size - self._stamps_at)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"packing the images needs {needed / 2**20:,.1f} MiB in {self.folder.parent}, and {free / 2**20:,.1f} "
                "MiB are free: set paths.cache to another disk, or use a smaller data.image_size"
            )

    def _decode(self, source: Source, rows: Array, stamps: Array) -> None:
        """Decode rows and write them on all cores, in the reading order of the source."""

        def pack(chunk: Sequence[int]) -> Done:
            done: Done = {}
            with self._file.open("r+b") as file:  # one file per thread, because a file has only one position
                for row in chunk:
                    try:
                        pixels = self.resize(source.open(row))
                    except BrokenImageError as error:
                        done[row] = error
                        continue
                    file.seek(row * self.row_bytes)
                    file.write(pixels.data)
                    done[row] = None
            return done

        stamp_of = dict(zip(rows.tolist(), stamps.tolist(), strict=True))
        ordered = source.reading_order(rows).tolist()
        pending: Done = {}
        progress = Bar("packing", total=len(rows))
        workers, committer = ThreadPoolExecutor(cores()), ThreadPoolExecutor(1)
        commit: Future[None] | None = None
        with progress, workers, committer:
            last = time.monotonic()
            try:
                for done in map_chunks(workers, pack, ordered):
                    pending |= done
                    progress.update(len(done))
                    if time.monotonic() - last > COMMIT_S and (commit is None or commit.done()):
                        if commit is not None:
                            commit.result()  # raises the exception of the thread
                        commit = committer.submit(self._commit, pending, stamp_of)
                        pending, last = {}, time.monotonic()
            finally:  # keep the decoded rows, also after Ctrl-C
                workers.shutdown(cancel_futures=True)
                if commit is not None:
                    commit.result()
                self._commit(pending, stamp_of)

    def _commit(self, done: Done, stamp_of: dict[int, int]) -> None:
        """Mark rows as done after their pixels are written to the disk."""
        with self._file.open("r+b") as file:
            _sync(file)
        packed = np.array(sorted(row for row, error in done.items() if error is None), dtype=np.int64)
        with self._file.open("r+b") as file:  # not through a memory map, because a full disk would kill the process
            for run in _runs(packed):
                file.seek(self._stamps_at + 8 * int(run[0]))
                file.write(np.array([stamp_of[row] for row in run.tolist()], dtype=np.uint64).tobytes())
        # The stamp 0 matches no file, so an image that could not be read is tried again by the next call.
        failed = {row: (stamp_of[row] * error.lasting, str(error)) for row, error in done.items() if error is not None}
        known = self._read_broken()
        broken = {row: why for row, why in known.items() if row not in done} | failed
        if broken != known:
            with atomic_write(self._broken) as part:
                part.write_text(json.dumps(dict(sorted(broken.items())), indent=0), encoding="utf-8")


def _runs(rows: Array) -> list[Array]:
    """Return ascending rows as a list of runs of consecutive rows."""
    return np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []


def _sync(file: BinaryIO) -> None:
    file.flush()
    getattr(os, "fdatasync", os.fsync)(file.fileno())
