"""Lists of images of one's own, and the rows of a data set that they mean."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from agebench.data.readers.folders import nfc
from agebench.data.records import Array
from agebench.errors import UserError

NAME_COLUMNS = ("name", "file", "path", "filename", "image")
PART_COLUMNS = ("part", "split")


def read_names(file: str) -> list[str]:
    """Return the image names of a list of one part.

    Args:
        file: A text file with one name a line, or a CSV file: its column named as in NAME_COLUMNS, else its first.

    Raises:
        UserError: If there is no such file, or it is not in UTF-8.
    """
    rows, lines = _read(file)
    column = _column(rows[0], NAME_COLUMNS) if rows else None
    if column is not None and (len(rows[0]) > 1 or _is_csv(file)):
        return _cells(rows[1:], column)
    if _is_csv(file):
        return _cells(rows, 0)
    return [line.strip() for line in lines if line.strip()]  # a name may hold a comma


def read_parts(file: str) -> dict[str, list[str]]:
    """Return the image names that a CSV file lists for each part; rows of no part are left out.

    Args:
        file: Has a column named as in NAME_COLUMNS and one as in PART_COLUMNS; the split.csv of a run is such a file.

    Raises:
        UserError: If there is no such file, it is not in UTF-8 or it lacks a column.
    """
    rows, _ = _read(file)
    name, part = (_column(rows[0], known) if rows else None for known in (NAME_COLUMNS, PART_COLUMNS))
    if name is None or part is None:
        raise UserError(
            f"{file} must list images in the columns name and part, and its first line has "
            f"{', '.join(rows[0]) if rows else 'nothing'}: for one list a part use data.split.train, val and test"
        )
    listed: dict[str, list[str]] = {}
    for row in rows[1:]:
        if len(row) > max(name, part) and row[part].strip():
            listed.setdefault(row[part].strip(), []).append(row[name])
    return listed


def find_rows(listed: Mapping[str, Iterable[str]], names: Array) -> tuple[dict[str, Array], list[str]]:
    """Find the images that lists mean: by their whole name, else by its last part where only one image has that.

    Args:
        listed: Names of images, by part.
        names: Names of N images.

    Returns:
        Row numbers of each part, int64, ascending, and the listed names that mean no image, sorted.
    """
    wanted = {part: {nfc(name) for name in each} for part, each in listed.items()}
    rows = {nfc(str(name)): row for row, name in enumerate(names)}
    others = set().union(*wanted.values()) - rows.keys()
    # Where two images, or two listed names, end alike nobody can say which is meant.
    images, asked = Counter(map(_base, rows)), Counter(map(_base, {*others, *set().union(*wanted.values())}))
    by_base = {_base(name): row for name, row in rows.items() if images[_base(name)] == 1 == asked[_base(name)]}
    rows |= {name: by_base[_base(name)] for name in others if _base(name) in by_base}
    found = {
        part: np.array(sorted({rows[name] for name in each if name in rows}), dtype=np.int64)
        for part, each in wanted.items()
    }
    return found, sorted(others - rows.keys())


def _read(file: str) -> tuple[list[list[str]], list[str]]:
    """Return a file as rows of cells and as plain lines, without empty ones."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"data/split=column: there is no file {file}; relative ones are looked for from where you are")
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = text.splitlines()
        rows = [row for row in csv.reader(lines, delimiter=delimiter(lines)) if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {file} as a list in UTF-8 ({error}): save it as CSV UTF-8") from error
    return rows, lines


def delimiter(lines: list[str]) -> str:
    """Return what parts the cells: spreadsheets write a semicolon or a tab where the comma is the decimal sign."""
    first = next((line for line in lines if line.strip()), "")
    return next((mark for mark in ";\t" if first.count(mark) >= max(1, first.count(","))), ",")


def _is_csv(file: str) -> bool:
    return Path(file).suffix.lower() == ".csv"


def _column(header: list[str], known: tuple[str, ...]) -> int | None:
    """Return the place of the column that is named by the first of the known names that the header has."""
    told = [cell.strip().casefold() for cell in header]
    return next((told.index(name) for name in known if name in told), None)


def _cells(rows: list[list[str]], column: int) -> list[str]:
    return [row[column].strip() for row in rows if len(row) > column and row[column].strip()]


def _base(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]
