"""Files of a comparison, each written whole or not at all."""

from collections.abc import Sequence
from pathlib import Path

from agebench.comparison import render
from agebench.comparison.pictures import draw_pictures
from agebench.comparison.tables import Comparison
from agebench.errors import UserError
from agebench.files import write_text


def write_comparison(comparison: Comparison, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write compare.md, compare.csv, ... and the pictures into a folder, made if need be.

    Args:
        comparison: What to write.
        folder: Where to.
        formats: Keys of render.RENDERERS.

    Returns:
        The files.

    Raises:
        UserError: If they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures = draw_pictures(comparison, folder)
        written = []
        for name in formats:
            text = render.to_html(comparison, pictures) if name == "html" else render.RENDERERS[name](comparison)
            if name == "md" and comparison.apart:
                text = f"{comparison.apart}.\n\n{text}"
            written.append(write_text(folder / f"compare.{name}", text))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose another --output") from error
    return [*written, *pictures.values()]
