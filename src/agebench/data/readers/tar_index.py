"""List the images of a tar or tar.gz in one pass. No member is trusted."""

import gzip
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import indexed_gzip
import numpy as np

from agebench.data.readers.members import Members
from agebench.data.records import Array
from agebench.errors import UserError
from agebench.progress import Bar

CHUNK = 2**20  # bytes per unpacking step
MAX_HEADER = 16 * 2**10  # bytes of a long name or a pax header; parsing takes quadratic time
MAX_GLOBALS = 64  # global pax keys, because tarfile copies them to every member
SPACING = 4 * 2**20  # unpacked bytes between two seek points
MAX_BLOCK = 16 * 2**20  # bytes inflated at once, if the seek points are further apart


@dataclass(frozen=True)
class Listing:
    """The images of a tar and their positions.

    Args:
        names: Paths of the images, sorted.
        offsets: Start of their data in the unpacked tar in bytes, int64, shape (N,).
        sizes: Length of their data in bytes, int64, shape (N,).
        starts: Seek points, ascending, then the length of the unpacked tar; empty if the tar is not gzipped.
        index: The seek points in the format of indexed_gzip; empty if the tar is not gzipped.
    """

    names: list[str]
    offsets: Array
    sizes: Array
    starts: list[int]
    index: bytes


def list_tar(path: Path) -> Listing:
    """Read a tar or tar.gz once, with a progress bar, and return its listing.

    Raises:
        UserError: If it is truncated or damaged, or has an unsafe member.
    """
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        members: Members[tuple[int, int]] = Members(path)
        stream = _ForwardStream(file, members, gzipped=gzipped)
        with stream.bar:
            _walk(stream, members)
    members.check_found()
    names = sorted(members.images)
    offsets, sizes = np.array([members.images[name] for name in names], dtype=np.int64).T
    starts, index = _seek_index(path, stream.at) if gzipped else ([], b"")
    return Listing(names, offsets, sizes, starts, index)


def _walk(stream: "_ForwardStream", members: Members[tuple[int, int]]) -> None:
    """Add every member; raise UserError for an unsafe member and for a truncated or damaged tar."""
    info = None
    try:
        with tarfile.open(  # type: ignore[call-overload]  # tarfile only needs read, seek and tell
            fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape"
        ) as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # otherwise all 163,446 stay in memory
                if len(tar.pax_headers) > MAX_GLOBALS:
                    raise tarfile.ReadError(f"it sets {len(tar.pax_headers):,} keys for all its members")
                _add_member(info, members)
        if len(stream.block) < tarfile.BLOCKSIZE:
            raise EOFError("it has no end mark")
        if any(stream.block):
            raise tarfile.ReadError(f"there is no header at {stream.at - tarfile.BLOCKSIZE:,}")
        stream.finish()
    except UserError:
        raise
    except Exception as error:  # a damaged header can make tarfile raise any exception
        complete = sum(offset + size <= stream.at for offset, size in members.images.values())
        if info is None and isinstance(error, tarfile.ReadError) and stream.at <= tarfile.BLOCKSIZE:
            raise UserError(
                f"{members.path} contains no tar ({error}): give the archive of the images, or their folder"
            ) from error
        raise UserError(
            f"{members.path} is truncated or damaged after {complete:,} images ({error}): resume its download, or "
            "delete it and download it again"
        ) from error


def _add_member(info: tarfile.TarInfo, members: Members[tuple[int, int]]) -> None:
    decoded = _decode_name(info.name)
    name = members.image_name(decoded)
    if info.issym() or info.islnk():
        members.refuse(decoded, "a link", "pack the files themselves (tar --dereference --hard-dereference)")
    if info.issparse():
        members.refuse(decoded, "a sparse file", "pack it without --sparse")
    if not (info.isreg() or info.isdir()):
        members.refuse(decoded, "which is neither a file nor a folder", "pack only the image files")
    if info.size < 0:
        members.refuse(decoded, f"which claims {info.size:,} bytes", "use the archive as published")
    if name is not None and info.isreg():
        members.add(name, size=info.size, member=(info.offset_data, info.size))


def _decode_name(name: str) -> str:
    """Return a valid Unicode name. A name that is not UTF-8 was probably written on Windows."""
    data = name.encode("utf-8", "surrogateescape")
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


class _ForwardStream:
    """The unpacked tar as a stream that only moves forward and stops at a decompression bomb.

    Args:
        file: The archive.
        members: Checks the number of unpacked bytes.
        gzipped: Whether to inflate it and check the CRC at the end.
    """

    def __init__(self, file: BinaryIO, members: Members[tuple[int, int]], *, gzipped: bool) -> None:
        self._file = file
        self._members = members
        self._inflated = gzip.GzipFile(fileobj=file) if gzipped else None
        self._length = os.fstat(file.fileno()).st_size
        self.at = 0
        self.block = b""  # the last one read; in a complete tar the end mark
        self.bar = Bar(f"listing {members.path.name}", total=self._length, unit="B")

    def tell(self) -> int:
        return self.at

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header claims {size:,} bytes")
        self.block = self._next(size)
        return self.block

    def seek(self, to: int) -> None:
        if to < self.at:
            raise tarfile.ReadError("a header claims a negative size")
        if self._inflated is None:
            self.at = min(to, self._length)
            self._file.seek(self.at)
            self._update_bar()
        while self.at < to and self._next(min(CHUNK, to - self.at)):
            pass

    def finish(self) -> None:
        """Inflate the rest, which checks the CRC and the length."""
        while self._inflated is not None and self._next(CHUNK):
            pass

    def _next(self, size: int) -> bytes:
        data = (self._inflated or self._file).read(size)
        self.at += len(data)
        if self._inflated is not None:
            self._members.check_unpacked(self.at, self._length)
        self._update_bar()
        return data

    def _update_bar(self) -> None:
        self.bar.advance_to(self._file.tell())


def _seek_index(path: Path, length: int) -> tuple[list[int], bytes]:
    """Return the seek points with the unpacked length at the end, and the index of indexed_gzip."""
    with (
        indexed_gzip.IndexedGzipFile(path, spacing=SPACING, drop_handles=False) as file,
        Bar(f"indexing {path.name}", total=length, unit="B") as bar,
    ):
        for to in [*range(0, length, 16 * SPACING), length - 1]:
            file.raw.seek(to)
            bar.advance_to(to)
        points = [point for point, _ in file.seek_points()]
        index = io.BytesIO()
        file.export_index(fileobj=index)
    ends = [*points[1:], length]
    starts = [start for point, end in zip(points, ends, strict=True) for start in range(point, end, MAX_BLOCK)]
    return [*starts, length], index.getvalue()
