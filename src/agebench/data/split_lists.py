"""Read a user's lists of images, and find their rows in a data set."""

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

import numpy as np

from agebench.data.protocol import LISTS
from agebench.data.readers.folders import nfc
from agebench.data.records import Array
from agebench.errors import UserError
from agebench.files import plain_cell, read_any_text

log = logging.getLogger(__name__)

NAME_COLUMNS = ("name", "file", "path", "filename", "image")
PART_COLUMNS = ("part", "split")


def find_listed_parts(names: Array, file: str | None, lists: Mapping[str, str]) -> tuple[dict[str, Array], bool]:
    """Return the rows that a user's lists name for each part, and whether val and test are the same rows.

    Args:
        names: Names of N images.
        file: CSV file that lists all parts, see read_parts; None if each part has a separate list.
        lists: List of each part, see read_names; empty if there is a file for all parts.

    Returns:
        Rows of train, val and test, int64, ascending (val may be empty), and whether val is test.

    Raises:
        UserError: If a list cannot be read, train or test has no image, or two parts share an image.
    """
    listed = _read_lists(file, lists)
    files = dict(lists) if file is None else dict.fromkeys(LISTS, file)
    found, unmatched = find_rows(listed, names)
    rows = {part: found.get(part, np.array([], dtype=np.int64)) for part in LISTS}
    for part in ("train", "test"):
        if len(rows[part]) == 0:
            raise _no_match(part, files[part], listed, names, by_column=file is not None)
    if unmatched:
        images, are = ("image", "is") if len(unmatched) == 1 else ("images", "are")
        where = ", ".join(dict.fromkeys(files.values()))
        count = f"{len(unmatched):,}"
        log.warning("%s %s that %s lists %s not in this data, such as %s", count, images, where, are, unmatched[0])
    val_is_test = np.array_equal(rows["val"], rows["test"])
    _check_apart(rows, files, names, val_is_test=val_is_test)
    return rows, val_is_test


def read_names(file: str) -> list[str]:
    """Return the image names in a list of one part.

    Args:
        file: A text file with one name per line, or a CSV file with a column named as in NAME_COLUMNS. Without such a
            column, the names are in the first one.

    Raises:
        UserError: If the file does not exist or is not text.
    """
    rows, lines = _read(file)
    column = find_column(rows[0], NAME_COLUMNS) if rows else None
    if column is not None and (len(rows[0]) > 1 or _is_csv(file)):
        return _cells(rows[1:], column)
    if _is_csv(file):
        return _cells(rows, 0)
    return [line.strip() for line in lines if line.strip()]  # a name may contain a comma


def read_parts(file: str) -> dict[str, list[str]]:
    """Return the image names that a CSV file lists for each part. Rows with an empty part are skipped.

    Args:
        file: CSV file with a column named as in NAME_COLUMNS and one as in PART_COLUMNS, such as a run's split.csv.

    Raises:
        UserError: If the file does not exist, is not text or lacks a column.
    """
    rows, _ = _read(file)
    name, part = (find_column(rows[0], known) if rows else None for known in (NAME_COLUMNS, PART_COLUMNS))
    if name is None or part is None:
        raise UserError(
            f"{file} must list images in the columns name and part, and its first line has "
            f"{', '.join(rows[0]) if rows else 'nothing'}: for one list per part use data.split.train, val and test"
        )
    listed: dict[str, list[str]] = {}
    for row in rows[1:]:
        if len(row) > max(name, part) and row[part].strip():
            listed.setdefault(row[part].strip(), []).append(row[name])
    return listed


def find_rows(listed: Mapping[str, Iterable[str]], names: Array) -> tuple[dict[str, Array], list[str]]:
    """Return the rows of listed images, found by the full name, or by the file name alone if it is unique.

    Args:
        listed: Names of images, by part.
        names: Names of N images.

    Returns:
        Row numbers of each part, int64, ascending, and the listed names without a row, sorted.
    """
    wanted = {part: {nfc(name) for name in each} for part, each in listed.items()}
    every = set().union(*wanted.values())
    rows = match_names(every, names)
    found = {
        part: np.array(sorted({rows[name] for name in each if name in rows}), dtype=np.int64)
        for part, each in wanted.items()
    }
    return found, sorted(every - rows.keys())


def match_names(listed: Set[str], names: Array) -> dict[str, int]:
    """Return the row of each listed image that is found: by the full name, or by the file name alone if it is unique.

    Args:
        listed: Names of images, with the Unicode form of nfc.
        names: Names of N images.
    """
    rows = {nfc(str(name)): row for row, name in enumerate(names)}
    # A file name that two images or two listed names share is ambiguous.
    images, asked = Counter(map(_base, rows)), Counter(map(_base, listed))
    by_base = {_base(name): row for name, row in rows.items() if images[_base(name)] == 1 == asked[_base(name)]}
    by_base = {name: by_base[_base(name)] for name in listed - rows.keys() if _base(name) in by_base}
    return {name: rows[name] for name in listed & rows.keys()} | by_base


def _read_lists(file: str | None, lists: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
    """Return the listed names of each part."""
    if file is not None and lists:
        raise UserError("data/split=column takes data.split.file for all parts, or one list per part: not both")
    if file is None:
        if missing := sorted({"train", "test"} - lists.keys()):
            raise UserError(f"data/split=column with one list per part needs data.split.{missing[0]}=FILE too")
        return {part: read_names(path) for part, path in lists.items()}
    listed = read_parts(file)
    if unknown := sorted(listed.keys() - set(LISTS)):
        raise UserError(f"{file}: part must be train, val or test, got {', '.join(unknown[:3])}")
    return listed


def _check_apart(rows: Mapping[str, Array], files: Mapping[str, str], names: Array, *, val_is_test: bool) -> None:
    """Raise UserError if two parts share an image. An exception is a val part that is identical to test."""
    for first, second in (("train", "test"), ("train", "val"), ("val", "test")):
        shared = np.intersect1d(rows[first], rows[second])
        if len(shared) and not (val_is_test and first == "val"):
            where = " and ".join(dict.fromkeys(files[part] for part in (first, second)))
            images = "image is" if len(shared) == 1 else "images are"
            fix = (
                "val must be identical to test or share no image with it" if first == "val" else "remove them from one"
            )
            raise UserError(
                f"{where}: {len(shared):,} {images} in {first} and in {second}, such as {names[shared[0]]}; {fix}"
            )


def _no_match(part: str, file: str, listed: Mapping[str, Sequence[str]], names: Array, *, by_column: bool) -> UserError:
    """Return the error for a list without an image of the data."""
    wanted = listed.get(part, ())
    if wanted:
        return UserError(
            f"{file}: no image that it lists for {part} is in this data ({len(wanted):,} listed): "
            f"it lists {wanted[0]}, the data has {names[0]}"
        )
    if not by_column:
        return UserError(f"{file} lists no image for {part}: give one name per line, or a CSV file with a column name")
    counts = ", ".join(f"{len(each):,} {other}" for other, each in listed.items()) or "none of any part"
    return UserError(f"{file} has no line whose part is {part} (it has {counts}): add them, or use another split")


def _read(file: str) -> tuple[list[list[str]], list[str]]:
    """Return the rows of cells and the lines of a file, without empty ones."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"data/split=column: no file {file}; a relative path starts at the current directory")
    try:
        text = read_any_text(path)
        lines = text.splitlines()
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(lines))
        rows = [list(map(plain_cell, row)) for row in reader if any(row)]
    except (UnicodeError, csv.Error) as error:
        raise UserError(f"cannot read {file} as a list ({error}): save it as CSV UTF-8") from error
    return rows, lines


def delimiter(lines: Iterable[str]) -> str:
    """Return the delimiter of a CSV file from its first line that is not blank.

    Spreadsheets write a semicolon or a tab where the comma is the decimal mark.
    """
    first = next((line for line in lines if line.strip()), "")
    return next((mark for mark in ";\t" if first.count(mark) >= max(1, first.count(","))), ",")


def _is_csv(file: str) -> bool:
    return Path(file).suffix.lower() == ".csv"


def find_column(header: list[str], known: tuple[str, ...]) -> int | None:
    """Return the index of the column with the first of the known names that the header has."""
    names = [cell.strip().casefold() for cell in header]
    return next((names.index(name) for name in known if name in names), None)


def _cells(rows: list[list[str]], column: int) -> list[str]:
    return [row[column].strip() for row in rows if len(row) > column and row[column].strip()]


def _base(name: str) -> str:
    return re.split(r"[/\\]", name)[-1]
