"""A picture of a file that shows itself in a notebook."""

from dataclasses import dataclass
from pathlib import Path

WIDTH = 640  # px in a notebook; the files have more


@dataclass(frozen=True)
class Picture:
    """A PNG file.

    Args:
        path: The file.
    """

    path: Path

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.path.read_bytes(), {"width": WIDTH}
