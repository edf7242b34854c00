"""CSV files with a byte-order mark, so that Excel reads them as UTF-8."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write one table and return its path."""
    # A file name may not be valid Unicode. Its invalid bytes are escaped, so that writing does not fail.
    with path.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path
