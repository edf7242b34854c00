"""Archives of images, read without unpacking; the content of a file decides its type, not its name."""

import os
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agebench.data.readers.folders import Files
from agebench.data.readers.members import Members
from agebench.data.records import Array
from agebench.errors import BrokenImageError, UserError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_MEMBER_RATIO, HARMLESS_MEMBER = 200, 16 * 2**20  # a small blank bitmap may compress a thousandfold

_UNSUPPORTED = {
    b"Rar!": "RAR",
    b"7z\xbc\xaf": "7-Zip",
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}


def check_exists(path: Path) -> None:
    """Raise UserError if a path with an archive suffix does not exist."""
    if path.name.lower().endswith(ARCHIVE_SUFFIXES) and not path.exists():
        what = "is a broken symbolic link" if path.is_symlink() else "does not exist"
        raise UserError(f"{path} {what}: give an existing archive, or the folder that contains it")


def open_archive(path: Path, *, cache: Path | None = None) -> Files:
    """Return the images of a zip, a tar or a gzipped tar. Each image is read without unpacking the others.

    Args:
        path: The archive.
        cache: Folder for the listing of a tar, so that only the first process reads the complete archive.

    Raises:
        UserError: If it is another type of file, is damaged, or has an unsafe member.
    """
    try:
        with path.open("rb") as file:
            head = file.read(tarfile.BLOCKSIZE)
    except OSError as error:
        raise UserError(
            f"cannot read the archive {path} ({error.strerror or error}): check its permissions and the disk"
        ) from error
    if not head:
        raise UserError(f"{path} is empty: delete it, and download it again")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ZipFiles(path)
    if head.startswith(b"\x1f\x8b") or _is_tar(head):
        from agebench.data.readers.tars import TarFiles  # here, because indexed_gzip is slow to import

        return TarFiles(path, cache=cache)
    if head.lstrip(b"\xef\xbb\xbf\t\r\n ").lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        raise UserError(
            f"{path} is a web page, because the download was refused or needs a login: delete it, "
            "and download it again in a browser"
        )
    if zipfile.is_zipfile(path):  # a zip may start with other data
        return ZipFiles(path)
    kind = next((f"a {kind} file" for magic, kind in _UNSUPPORTED.items() if head.startswith(magic)), "not an archive")
    raise UserError(
        f"{path} is {kind}; supported are .zip, .tar and .tar.gz: unpack it and give the folder, or repack it"
    )


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return not any(head) and len(head) == tarfile.BLOCKSIZE  # an end mark, so the tar is empty
    return True


class ZipFiles:
    """The images in a zip.

    Args:
        path: The zip.

    Raises:
        UserError: If it is truncated or damaged, or has an unsafe member.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened = os.getpid(), self._open()
        try:
            self._members = self._list()
        except UserError:
            self.close()
            raise

    def names(self) -> list[str]:
        """Return the paths of the images, sorted."""
        return sorted(self._members)

    def read(self, name: str) -> bytes:
        """Return the content of a member after checking its CRC."""
        if name not in self._members:
            raise BrokenImageError("the file does not exist", lasting=False)
        if self._opened[0] != os.getpid():  # a forked process shares the file position with its parent
            self._opened = os.getpid(), self._open()
        info = self._members[name]
        try:
            with self._opened[1].open(info) as file:
                return file.read(info.file_size + 1)  # without a limit, a bomb would fill the memory
        except Exception as error:  # a damaged member can make zipfile raise any exception
            raise BrokenImageError(
                str(error) or type(error).__name__, lasting=not isinstance(error, OSError)
            ) from error

    def stamps(self, names: Sequence[str]) -> Array:
        """Return the CRC and size of each member as one number, uint64, shape (n,); 1 if it does not exist."""
        members = [self._members.get(name) for name in names]
        return np.array([m.CRC << 32 | m.file_size + 2 if m else 1 for m in members], dtype=np.uint64)

    def sizes(self, names: Sequence[str]) -> Array:
        """Return the unpacked size of each member in bytes, int64, shape (n,); -1 if it does not exist."""
        members = [self._members.get(name) for name in names]
        return np.array([m.file_size if m else -1 for m in members], dtype=np.int64)

    def positions(self, names: Sequence[str]) -> Array:
        """Return the offset of each member, int64, shape (n,)."""
        members = [self._members.get(name) for name in names]
        return np.array([m.header_offset if m else -1 for m in members], dtype=np.int64)

    def close(self) -> None:
        """Close the file; Windows cannot rename an open file."""
        self._opened[1].close()

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except Exception as error:  # a damaged directory can make zipfile raise any exception
            raise UserError(
                f"{self.path} is not a readable zip, so it is truncated or damaged ({error}): resume its download, or "
                "delete it and download it again"
            ) from error

    def _list(self) -> dict[str, zipfile.ZipInfo]:
        members: Members[zipfile.ZipInfo] = Members(self.path)
        unpacked = 0
        for info in self._opened[1].infolist():
            # Windows writes no mode.
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                members.refuse(info.filename, "a link or device", "pack the files themselves (zip without -y)")
            name = members.image_name(info.filename)
            if name is None or info.is_dir():
                continue
            if info.volume not in (0, 0xFFFF):
                members.refuse(name, "which is in another part of a split zip", "join the parts, or unpack them")
            if info.flag_bits & 0x1:
                members.refuse(name, "which is encrypted", "unpack it with its password, and give the folder")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                method = zipfile.compressor_names.get(info.compress_type, str(info.compress_type))  # type: ignore[attr-defined]  # typeshed lacks it
                members.refuse(name, f"compressed by {method}", "unpack it and give the folder, or use deflate")
            if info.file_size > max(HARMLESS_MEMBER, MAX_MEMBER_RATIO * info.compress_size):
                members.refuse(
                    name,
                    f"which unpacks from {info.compress_size:,} bytes to {info.file_size:,}, like a bomb",
                    "use the archive as published",
                )
            members.add(name, size=info.file_size, member=info)
            unpacked += info.file_size
        members.check_unpacked(unpacked, self.path.stat().st_size)
        members.check_found()
        return members.images
