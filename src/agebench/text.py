"""Plain text for a terminal: columns that line up, and durations."""

from collections.abc import Sequence


def align_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], right_aligned: Sequence[bool], *, min_width: int = 0
) -> list[list[str]]:
    """Return a table with every cell padded to the width of its column.

    Args:
        header: The name of each column.
        rows: The cells of each row, as many as there are columns.
        right_aligned: For each column, whether its cells are aligned to the right, as numbers are.
        min_width: Width of the narrowest column, in characters.

    Returns:
        The header and the rows with padded cells. The caller joins the cells with the separator of its format.
    """
    lines = [header, *rows]
    widths = [max(min_width, *map(len, column)) for column in zip(*lines, strict=True)]
    return [
        [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, right_aligned, strict=True)
        ]
        for line in lines
    ]


def format_duration(seconds: float) -> str:
    """Return a duration as h:mm:ss, rounded to whole seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
