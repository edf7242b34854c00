"""Check the members of an archive. No member is trusted, and a single unsafe member is an error for the archive."""

import re
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from agebench.data.readers.folders import MAX_BYTES, is_image
from agebench.errors import UserError

MAX_RATIO = 200  # of unpacked to packed bytes; photos compress very little
HARMLESS_BYTES = 2**30  # unpacked bytes of an archive; below this the ratio is not checked

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_AS_PUBLISHED = "use the archive as published"

T = TypeVar("T")


class Members(Generic[T]):
    """The images found in one pass over an archive.

    Args:
        path: The archive, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: dict[str, T] = {}  # by path relative to the root, with `/`
        self._nested = ""

    def image_name(self, name: str) -> str | None:
        """Return the path of a member relative to the root if it is a visible image, else None.

        Raises:
            UserError: If the name points outside the root.
        """
        spelled = name.replace("\\", "/")
        parts = [part for part in spelled.split("/") if part not in ("", ".")]
        if spelled.startswith("/") or _DRIVE.match(spelled) or ".." in parts:
            raise UserError(f"{self.path} contains the unsafe name {_quote(name)}; {_AS_PUBLISHED}")
        if not parts or "__MACOSX" in parts or any(part.startswith(".") for part in parts):
            return None
        if parts[-1].lower().endswith(ARCHIVES):
            self._nested = name
        if not is_image(parts[-1]):
            return None
        if _CONTROL.search(name):
            raise UserError(f"{self.path} contains the name {_quote(name)} with control characters; {_AS_PUBLISHED}")
        return "/".join(parts)

    def add(self, name: str, *, size: int, member: T) -> None:
        """Add an image; raise UserError if it is a duplicate or claims too many bytes."""
        if not 0 <= size <= MAX_BYTES:
            self.refuse(name, f"which claims {size:,} bytes, at most {MAX_BYTES:,} are read", _AS_PUBLISHED)
        if name in self.images:
            self.refuse(name, "more than once", "pack one copy of the data set")
        self.images[name] = member

    def refuse(self, name: str, reason: str, fix: str) -> NoReturn:
        """Raise UserError because of one member."""
        raise UserError(f"{self.path} contains {_quote(name)}, {reason}; {fix}")

    def check_unpacked(self, unpacked: int, packed: int) -> None:
        """Raise UserError if an archive of `packed` bytes unpacks to far too many bytes."""
        if unpacked > max(HARMLESS_BYTES, MAX_RATIO * packed):
            raise UserError(
                f"{self.path} unpacks from {packed:,} bytes to more than {unpacked:,}, like a decompression bomb; "
                f"{_AS_PUBLISHED}"
            )

    def check_found(self) -> None:
        """Raise UserError if the archive contains no image."""
        if self.images:
            return
        if self._nested:
            raise UserError(
                f"{self.path} contains no image, but the archive {_quote(self._nested)}: unpack it, and give that one"
            )
        raise UserError(f"{self.path} contains no image: give the archive of the images, or their folder")


def _quote(name: str) -> str:
    """Return a name for a message: quoted, escaped and shortened."""
    return ascii(name if len(name) <= 120 else f"{name[:100]}...") if _CONTROL.search(name) else repr(name[:120])
