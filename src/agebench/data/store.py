"""Pixels decoded once: a sparse file in the cache, filled by need and mapped by every later run.

A store has a row for every image that a data set lists, at one size, and behind them, in the same file, the stamp of
each image that is done. A run fills the rows that its split uses. A row that is done never changes; when the image
behind it did, a new file takes the place of the old one, with what is still valid, and whoever has mapped the old one
keeps it.
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
from tqdm import tqdm

from agebench.data.records import Array, Source
from agebench.data.resize import Resize
from agebench.data.threads import ahead, cores
from agebench.errors import BrokenImageError, UserError
from agebench.files import atomic_write

log = logging.getLogger(__name__)
Done = dict[int, BrokenImageError | None]  # rows that were read, and what was wrong with them

VERSION = 2  # raise it when the same files would give other bytes
COMMIT_S = 2.0  # decoding of so many seconds is lost at most when the process is killed
PAGE = 4096  # bytes that a sparse file grows by


class Store:
    """The packed pixels of one source at one size.

    Args:
        cache: Folder of all stores.
        name: The data set's, for people who look into the cache.
        key: What else decides which pixels are in which row: the source, and the names of its rows.
        count: N, the rows that the source lists.
        resize: How an image is brought to size.
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
        """Decode those of the rows that are not there yet, on all cores, and map them.

        Args:
            source: Opens a row, and knows when one has changed.
            rows: Rows that will be read, int64, shape (n,).

        Returns:
            The pixels, uint8, shape (N, C, S, S), of which only rows that were filled hold an image and none may be
            written: their pages are shared with every other process that maps the store. And the rows that cannot be
            decoded, with the reason.

        Raises:
            UserError: If the cache cannot be written, or is too full.
        """
        stamps = np.maximum(source.stamps(rows), 1)  # 0 is what an empty row says
        pixels, done = self._map()
        if pixels is None or len(self._lacking(done, rows, stamps)):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with self._locked():  # another process may have filled them while we waited
                    self._create()
                    self._forget_changed(rows, stamps)
                    self._pack(source, rows, stamps)
                    pixels, done = self._map()
            except OSError as error:  # of writing, for reading raises BrokenImageError
                reason = error.strerror or str(error)
                fix = (
                    "use a smaller data.image_size"
                    if error.errno == errno.EFBIG
                    else "set paths.cache to another folder"
                )
                raise UserError(f"cannot write {self.folder}: {reason}; {fix}") from error
        if pixels is None:
            raise UserError(f"{self._file} went away while it was read: start again")
        broken = self._read_broken()
        failed = rows[(done[rows] != stamps)].tolist()
        return pixels, {row: broken[row][1] for row in failed if row in broken}

    def state(self, rows: Array) -> str:
        """Return a hash that changes whenever the pixels of the rows do."""
        return hashlib.sha256(rows.tobytes() + self._map()[1][rows].tobytes()).hexdigest()[:16]

    def warm(self, rows: Array) -> None:
        """Start to read the rows, ascending int64, into the page cache, in one sweep over the disk."""
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
            log.info("another process is packing %s: waiting for it", self.folder)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _map(self) -> tuple[Array | None, Array]:
        """Return the pixels and every row's stamp, uint64, shape (N,), both of one file whatever takes its place."""
        if not self._is_whole():
            return None, np.zeros(self.shape[0], dtype=np.uint64)
        with self._file.open("rb") as file:
            pixels = np.memmap(file, dtype=np.uint8, mode="r", shape=self.shape)
            file.seek(self._stamps_at)
            done = np.frombuffer(file.read(8 * self.shape[0]), dtype=np.uint64)
        return pixels, done

    def _is_whole(self) -> bool:
        return self._file.exists() and self._file.stat().st_size == self._size

    def _create(self) -> None:
        """Make the file, sparse, unless it is there; and clear away what a killed process left half made."""
        # These two are written under the lock that we hold; other files there, such as statistics, by whoever is at it.
        for left in (self._file.with_suffix(".part"), *self.folder.glob(f"{self._broken.name}.*.part")):
            left.unlink(missing_ok=True)
        if not self._is_whole():
            self._broken.unlink(missing_ok=True)
            with self._file.open("wb") as file:
                file.truncate(self._size)

    def _read_broken(self) -> dict[int, tuple[int, str]]:
        try:
            known = json.loads(self._broken.read_text("utf-8"))
            return {int(row): (int(stamp), str(why)) for row, (stamp, why) in known.items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):  # what is not known is tried again
            return {}

    def _lacking(self, done: Array, rows: Array, stamps: Array) -> Array:
        """Return which of the rows, as positions, are neither packed nor known to be broken."""
        broken = self._read_broken()
        known = np.array([broken.get(row, (0, ""))[0] for row in rows.tolist()], dtype=np.uint64) if broken else 0
        return np.flatnonzero((done[rows] != stamps) & (known != stamps))

    def _forget_changed(self, rows: Array, stamps: Array) -> None:
        """Give up rows whose files have changed: in a new file, for somebody may be reading the old one."""
        done = self._map()[1].copy()
        changed = rows[(done[rows] != 0) & (done[rows] != stamps)]
        if not len(changed):
            return
        done[changed] = 0
        kept = np.flatnonzero(done).tolist()
        self._check_space(len(kept))
        log.info("images that have changed since they were packed: %s; kept: %s", f"{len(changed):,}", f"{len(kept):,}")
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
        lacking = self._lacking(self._map()[1], rows, stamps)
        if not len(lacking):
            return
        self._check_space(len(lacking))
        log.info("packing %s image%s into %s", f"{len(lacking):,}", "s" * (len(lacking) > 1), self.folder)
        start = time.monotonic()
        self._decode(source, rows[lacking], stamps[lacking])
        seconds = time.monotonic() - start
        log.info("packed in %.0f s, %s images/s", seconds, f"{len(lacking) / max(seconds, 1e-3):,.0f}")

    def _check_space(self, count: int) -> None:
        pages = -(-self.row_bytes // PAGE) + (self.row_bytes % PAGE > 0)
        needed = min(count * pages * PAGE, self._stamps_at)
        needed += min(count * PAGE, self._size - self._stamps_at)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"packing the images takes {needed / 2**20:,.1f} MiB in {self.folder.parent}, and {free / 2**20:,.1f} "
                "MiB are free: set paths.cache to another disk, or a smaller data.image_size"
            )

    def _decode(self, source: Source, rows: Array, stamps: Array) -> None:
        """Decode rows and write them on all cores, in the order that suits the disk."""

        def pack(chunk: Sequence[int]) -> Done:
            done: Done = {}
            with self._file.open("r+b") as file:  # each thread its own, for a file has one position
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
        fresh: Done = {}
        progress = tqdm(total=len(rows), desc="packing images", unit="img", disable=None, leave=False)
        workers, committing = ThreadPoolExecutor(cores()), ThreadPoolExecutor(1)
        pending: Future[None] | None = None
        with progress, workers, committing:
            last = time.monotonic()
            try:
                for done in ahead(workers, pack, ordered):
                    fresh |= done
                    progress.update(len(done))
                    if time.monotonic() - last > COMMIT_S and (pending is None or pending.done()):
                        if pending is not None:
                            pending.result()  # raises what went wrong
                        pending = committing.submit(self._commit, fresh, stamp_of)
                        fresh, last = {}, time.monotonic()
            finally:  # also after Ctrl-C: what is decoded is kept
                workers.shutdown(cancel_futures=True)
                if pending is not None:
                    pending.result()
                self._commit(fresh, stamp_of)

    def _commit(self, fresh: Done, stamp_of: dict[int, int]) -> None:
        """Note rows as done, once their pixels are safe on the disk."""
        with self._file.open("r+b") as file:
            _sync(file)
        packed = np.array(sorted(row for row, error in fresh.items() if error is None), dtype=np.int64)
        with self._file.open("r+b") as file:  # not by a map: a full disk would kill the process without a word
            for run in _runs(packed):
                file.seek(self._stamps_at + 8 * int(run[0]))
                file.write(np.array([stamp_of[row] for row in run.tolist()], dtype=np.uint64).tobytes())
        # The stamp 0 fits no file: an image that could not be read, rather than decoded, is tried again next time.
        failed = {row: (stamp_of[row] * error.lasting, str(error)) for row, error in fresh.items() if error is not None}
        known = self._read_broken()
        broken = {row: why for row, why in known.items() if row not in fresh} | failed
        if broken != known:
            with atomic_write(self._broken) as part:
                part.write_text(json.dumps(dict(sorted(broken.items())), indent=0), encoding="utf-8")


def _runs(rows: Array) -> list[Array]:
    """Split ascending rows where one is left out."""
    return np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []


def _sync(file: BinaryIO) -> None:
    file.flush()
    getattr(os, "fdatasync", os.fsync)(file.fileno())
