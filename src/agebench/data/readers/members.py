"""What an archive may hold: members are never trusted, and a bad one refuses the whole archive by its name."""

import re
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from agebench.data.readers.folders import MOST_BYTES, is_image
from agebench.errors import UserError

MOST_RATIO = 200  # unpacked to packed; photos hardly shrink at all
HARMLESS_BYTES = 2**30  # unpacked, of a whole archive: below that no ratio is asked for

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_AS_PUBLISHED = "use the archive as published"

T = TypeVar("T")


class Members(Generic[T]):
    """The images that a pass over an archive has found.

    Args:
        path: The archive, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: dict[str, T] = {}  # by the path below the root, with `/`
        self._nested = ""

    def image_name(self, name: str) -> str | None:
        """Return the path below the root if a member is an image, None if it is not asked for.

        Raises:
            UserError: If the name leads out of the root.
        """
        spelled = name.replace("\\", "/")
        parts = [part for part in spelled.split("/") if part not in ("", ".")]
        if spelled.startswith("/") or _DRIVE.match(spelled) or ".." in parts:
            raise UserError(f"{self.path} holds the unsafe name {_shown(name)}; {_AS_PUBLISHED}")
        if not parts or "__MACOSX" in parts or any(part.startswith(".") for part in parts):
            return None
        if parts[-1].lower().endswith(ARCHIVES):
            self._nested = name
        if not is_image(parts[-1]):
            return None
        if _CONTROL.search(name):
            raise UserError(f"{self.path} holds the name {_shown(name)} with control characters; {_AS_PUBLISHED}")
        return "/".join(parts)

    def add(self, name: str, *, size: int, member: T) -> None:
        """Take an image in; raise UserError if it is there already or claims too many bytes."""
        if not 0 <= size <= MOST_BYTES:
            self.refuse(name, f"which claims {size:,} bytes, at most {MOST_BYTES:,} are read", _AS_PUBLISHED)
        if name in self.images:
            self.refuse(name, "more than once", "pack one copy of the data set")
        self.images[name] = member

    def refuse(self, name: str, reason: str, fix: str) -> NoReturn:
        """Raise UserError because of one member."""
        raise UserError(f"{self.path} holds {_shown(name)}, {reason}; {fix}")

    def check_unpacked(self, unpacked: int, packed: int) -> None:
        """Raise UserError if an archive of `packed` bytes swells absurdly."""
        if unpacked > max(HARMLESS_BYTES, MOST_RATIO * packed):
            raise UserError(
                f"{self.path} swells to more than {unpacked:,} bytes from {packed:,}, as a decompression bomb does; "
                f"{_AS_PUBLISHED}"
            )

    def check_found(self) -> None:
        """Raise UserError if the pass is over and there was no image."""
        if self.images:
            return
        if self._nested:
            raise UserError(
                f"{self.path} holds no image, but the archive {_shown(self._nested)}: unpack it, and give that one"
            )
        raise UserError(f"{self.path} holds no image: give the archive of the images, or the folder they lie in")


def _shown(name: str) -> str:
    """Return a name for a message: escaped, and no longer than a line."""
    return ascii(name if len(name) <= 120 else f"{name[:100]}...") if _CONTROL.search(name) else repr(name[:120])
