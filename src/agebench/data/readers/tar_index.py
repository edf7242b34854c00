"""What lies where in a tar, gzipped or not: one pass that trusts no member."""

import gzip
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import indexed_gzip
import numpy as np
from tqdm import tqdm

from agebench.data.readers.members import Members
from agebench.data.records import Array
from agebench.errors import UserError

CHUNK = 2**20  # bytes unpacked at once
MOST_HEADER = 16 * 2**10  # bytes of a long name or of a pax header, whose parsing takes the square of its length
MOST_GLOBALS = 64  # keys that a tar may set for all its members, each of which gets a copy
SPACING = 4 * 2**20  # unpacked bytes from one place where inflating can start to the next
MOST_BLOCK = 16 * 2**20  # bytes inflated at once when read, should those places lie further apart


@dataclass(frozen=True)
class Listing:
    """What one pass over a tar finds.

    Args:
        names: The images' paths, sorted.
        offsets: Where their data start in the unpacked tar, int64, shape (N,).
        sizes: How long they are, int64, shape (N,).
        starts: Where inflating can start, ascending, then the length of the unpacked tar; empty if it is not gzipped.
        index: What indexed_gzip needs for that; empty likewise.
    """

    names: list[str]
    offsets: Array
    sizes: Array
    starts: list[int]  # ends with the length of the unpacked tar; empty for one that is not gzipped
    index: bytes


def list_tar(path: Path) -> Listing:
    """Go through a tar or tar.gz once, with a progress bar.

    Raises:
        UserError: If it is cut short or damaged, or holds what no archive of images does.
    """
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        members: Members[tuple[int, int]] = Members(path)
        stream = _Forward(file, members, gzipped=gzipped)
        with stream.bar:
            _walk(stream, members)
    members.check_found()
    names = sorted(members.images)
    offsets, sizes = np.array([members.images[name] for name in names], dtype=np.int64).T
    starts, index = _seek_index(path, stream.at) if gzipped else ([], b"")
    return Listing(names, offsets, sizes, starts, index)


def _walk(stream: "_Forward", members: Members[tuple[int, int]]) -> None:
    """Take in every member; raise UserError for one that has no place in an archive of images, or if the tar ends."""
    info = None
    try:
        with tarfile.open(  # type: ignore[call-overload]  # to read, tarfile needs read, seek and tell alone
            fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape"
        ) as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # else 163,446 of them stay in memory
                if len(tar.pax_headers) > MOST_GLOBALS:
                    raise tarfile.ReadError(f"it sets {len(tar.pax_headers):,} keys for all its members")
                _take(info, members)
        if len(stream.block) < tarfile.BLOCKSIZE:
            raise EOFError("it has no end mark")
        if any(stream.block):
            raise tarfile.ReadError(f"there is no header at {stream.at - tarfile.BLOCKSIZE:,}")
        stream.finish()
    except UserError:
        raise
    except Exception as error:  # damaged headers make tarfile raise nearly anything
        whole = sum(offset + size <= stream.at for offset, size in members.images.values())
        if info is None and isinstance(error, tarfile.ReadError) and stream.at <= tarfile.BLOCKSIZE:
            raise UserError(
                f"{members.path} holds no tar ({error}): give the archive of the images, or the folder they lie in"
            ) from error
        raise UserError(
            f"{members.path} is cut short or damaged after {whole:,} images ({error}): resume its download, or delete "
            "it and download it again"
        ) from error


def _take(info: tarfile.TarInfo, members: Members[tuple[int, int]]) -> None:
    spelled = _decoded(info.name)
    name = members.image_name(spelled)
    if info.issym() or info.islnk():
        members.refuse(spelled, "a link", "pack the files themselves (tar --dereference --hard-dereference)")
    if info.issparse():
        members.refuse(spelled, "a sparse file", "pack it without --sparse")
    if not (info.isreg() or info.isdir()):
        members.refuse(spelled, "which is neither file nor folder", "pack the image files alone")
    if info.size < 0:
        members.refuse(spelled, f"which claims {info.size:,} bytes", "use the archive as published")
    if name is not None and info.isreg():
        members.add(name, size=info.size, member=(info.offset_data, info.size))


def _decoded(name: str) -> str:
    """Return a name that every encoding can write: one that is not in UTF-8 was most likely written on Windows."""
    data = name.encode("utf-8", "surrogateescape")
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


class _Forward:
    """The unpacked tar as tarfile reads it, never backwards, and never more than a bomb's worth of it.

    Args:
        file: The archive.
        members: Says what is too much.
        gzipped: Whether to inflate it, with the CRC checked at the end.
    """

    def __init__(self, file: BinaryIO, members: Members[tuple[int, int]], *, gzipped: bool) -> None:
        self._file = file
        self._members = members
        self._inflated = gzip.GzipFile(fileobj=file) if gzipped else None
        self._length = os.fstat(file.fileno()).st_size
        self.at = 0
        self.block = b""  # what was read last: the end mark, if the tar is whole
        # disable=None: no bar where stderr is no terminal
        self.bar = tqdm(
            total=self._length, unit="B", unit_scale=True, desc=f"listing {members.path.name}", disable=None
        )

    def tell(self) -> int:
        return self.at

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        self.block = self._next(size)
        return self.block

    def seek(self, to: int) -> None:
        if to < self.at:
            raise tarfile.ReadError("a header claims a negative size")
        if self._inflated is None:
            self.at = min(to, self._length)
            self._file.seek(self.at)
            self._show()
        while self.at < to and self._next(min(CHUNK, to - self.at)):
            pass

    def finish(self) -> None:
        """Inflate the rest, which checks that nothing is missing."""
        while self._inflated is not None and self._next(CHUNK):
            pass

    def _next(self, size: int) -> bytes:
        data = (self._inflated or self._file).read(size)
        self.at += len(data)
        if self._inflated is not None:
            self._members.check_unpacked(self.at, self._length)
        self._show()
        return data

    def _show(self) -> None:
        self.bar.update(self._file.tell() - self.bar.n)


def _seek_index(path: Path, length: int) -> tuple[list[int], bytes]:
    """Return where inflating can start, with the length at the end, and what indexed_gzip needs for it."""
    with (
        indexed_gzip.IndexedGzipFile(path, spacing=SPACING, drop_handles=False) as file,
        tqdm(total=length, unit="B", unit_scale=True, desc=f"indexing {path.name}", disable=None) as bar,
    ):
        for to in [*range(0, length, 16 * SPACING), length - 1]:
            file.raw.seek(to)
            bar.update(to - bar.n)
        places = [place for place, _ in file.seek_points()]
        index = io.BytesIO()
        file.export_index(fileobj=index)
    ends = [*places[1:], length]
    starts = [start for place, end in zip(places, ends, strict=True) for start in range(place, end, MOST_BLOCK)]
    return [*starts, length], index.getvalue()
