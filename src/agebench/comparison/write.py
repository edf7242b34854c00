"""Write the files of a comparison, each with an atomic write."""

from collections.abc import Sequence
from pathlib import Path

from agebench.comparison import render
from agebench.comparison.html_page import to_html
from agebench.comparison.pictures import draw_pictures
from agebench.comparison.tables import Comparison
from agebench.errors import UserError
from agebench.files import write_text
from agebench.text import markdown

SUFFIXES = {"latex": "tex"}  # of formats that are not named by their suffix


def write_comparison(comparison: Comparison, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write compare.md, compare.csv, ... and the figures to a folder, which is created if necessary.

    Args:
        comparison: The comparison.
        folder: The output folder.
        formats: Keys of render.RENDERERS.

    Returns:
        The paths of the written files.

    Raises:
        UserError: If a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figures = draw_pictures(comparison, folder)
        written = []
        for name in formats:
            text = to_html(comparison, figures, folder=folder) if name == "html" else render.RENDERERS[name](comparison)
            if name == "md" and comparison.not_comparable:
                text = f"{markdown(comparison.not_comparable)}.\n\n{text}"
            mark = "\ufeff" if name == "csv" else ""  # so that a spreadsheet reads UTF-8
            written.append(write_text(folder / f"compare.{SUFFIXES.get(name, name)}", mark + text))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose another --output") from error
    return [*written, *figures.values()]
