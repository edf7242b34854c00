"""A picture of a file that shows itself in a notebook."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    """A PNG file.

    Args:
        path: The file.
    """

    path: Path

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()
