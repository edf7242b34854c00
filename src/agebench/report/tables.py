"""CSV files that Excel opens: a byte-order mark tells it that the text is UTF-8."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write one table and return its path."""
    # A file name that is not valid Unicode must not cost the report: its odd bytes are spelled out.
    with path.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path
