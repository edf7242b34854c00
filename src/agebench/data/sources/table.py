"""A CSV file of images and their labels, for your own data without code."""

import csv
import io
import logging
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from agebench.data.keys import MAX_AGE, DataPath
from agebench.data.readers.folders import FileSource, FolderFiles, nfc
from agebench.data.records import Array, Records
from agebench.data.split_lists import delimiter
from agebench.errors import UserError, did_you_mean
from agebench.files import plain_cell, read_any_text

log = logging.getLogger(__name__)

NO_VALUE = frozenset(("", "na", "n/a", "#n/a", "nan", "nil", "none", "null", "-", "?", "unknown"))
NUMBER = re.compile(r"-?[0-9]{1,4000}")  # Python converts no longer text
# Normalization changes only paths that are not ASCII or contain one of these, if paths are joined by line breaks.
NOT_NORMAL = ("//", "/.", "\n.", "/\n", "\\")
ROWS_AT_ONCE = 256  # few enough to stay in the CPU cache


class Table(FileSource):
    """A CSV file with one row per image.

    Args:
        root: The CSV file (UTF-8, UTF-16, Shift-JIS or Windows-1252, header in the first row). Relative image paths
            start at its folder.
        columns: Names of the columns for `path`, for `label` or `age`, and optionally for `identity` and `split`
            (train, val or test). A table without the optional columns may leave them at their default names; a column
            with another name must exist.
        label: `class` if labels are names, `age` if they are years (then the target may be age, decade or bins), `auto`
            for ages in a table without a column `label` that has a column `age`, else for classes.
    """

    channels = 3

    def __init__(
        self, root: DataPath, columns: Mapping[str, str | None], *, label: Literal["auto", "class", "age"] = "auto"
    ) -> None:
        self.root = Path(root).expanduser()
        self.columns = dict(columns)
        self.label = label

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that the labels support, the default first."""
        return ("class",) if "class" in self._records.columns else ("age", "decade", "bins")

    def prepare(self) -> None:
        """Raise UserError if the table or one of its columns is missing."""
        self.records()

    def records(self) -> Records:
        """Return one row for each row of the table."""
        return self._records

    def groups(self, columns: Sequence[str]) -> dict[str, Array]:
        """Return the cells of further columns of the table."""
        cells = _read_cells(self.root, lambda header: _find_groups(self.root, header, columns))
        return {column: np.array(found) for column, found in cells.items()}

    @cached_property
    def _files(self) -> FolderFiles:
        return FolderFiles(self.root.parent)

    @cached_property
    def _file_names(self) -> Sequence[str | None]:
        return _find_files(self.root, self._records.names.tolist())

    @cached_property
    def _records(self) -> Records:
        cells = _read_columns(self.root, self.columns, self.label)
        _check_paths(self.root, cells["path"])
        _check_filled(self.root, cells)
        columns: dict[str, Array] = {}
        class_names: tuple[str, ...] = ()
        name = "age" if "age" in cells else "label"
        if name == "age" or self.label == "age":
            columns["age"] = _ages(self.root, str(self.columns[name]), cells[name], cells["path"])
        else:
            columns["class"], class_names = _class_codes(cells["label"])
        if "identity" in cells:
            columns["identity"] = np.array(cells["identity"])
        if "split" in cells:
            columns["part"] = np.array(cells["split"])
        return Records(np.array(cells["path"]), columns, class_names, own_parts="part" in columns)


def read_paths(root: Path) -> tuple[list[str], list[str | None]]:
    """Return the column `path` of a CSV file of images, and each path as it is spelled on the disk, None if missing.

    Raises:
        UserError: If the table cannot be read, has no such column or no row, or a path is empty or occurs twice.
    """
    paths = _read_cells(root, lambda header: {"path": _find_path(root, header)})["path"]
    if not paths:
        raise UserError(f"{root} has a header but no rows: it needs one row per image")
    _check_paths(root, paths)
    return paths, _find_files(root, paths)


def _find_path(root: Path, header: list[str]) -> int:
    if "path" not in header:
        raise UserError(
            f"{root} has no column 'path', only {_listed(header)}{did_you_mean('path', header)}: name the "
            "column of image files path"
        )
    return header.index("path")


def _read_columns(root: Path, columns: Mapping[str, str | None], label: str) -> dict[str, list[str]]:
    """Return the cells of `path`, of `label` or `age`, and, if the table has them, of `identity` and `split`."""
    cells = _read_cells(root, lambda header: _find_columns(root, header, columns, label))
    if not cells["path"]:
        raise UserError(f"{root} has a header but no rows: it needs one row per image")
    return cells


def _read_cells(root: Path, find: Callable[[list[str]], dict[str, int]]) -> dict[str, list[str]]:
    """Return the cells of each needed column of a CSV file. Blank lines are skipped, a missing cell is empty.

    It uses the csv module: pyarrow and polars would save 0.3 s of 1.3 s on 1,000,000 rows, but they refuse tables with
    rows of unequal length.

    Args:
        root: The CSV file.
        find: Returns the name and the index of each needed column from the header.
    """
    if not root.is_file():
        raise UserError(f"no table at {root}: data.root must be a CSV file with the columns path and label")
    try:
        text = read_any_text(root)
        file = io.StringIO(text, newline="")
        mark = delimiter(file)
        file.seek(0)
        reader = csv.reader(file, delimiter=mark)
        at = find(next(reader, []))
        cells: dict[str, list[str]] = {column: [] for column in at}
        known: dict[str, str] = {}
        while rows := list(islice(reader, ROWS_AT_ONCE)):
            for column, i in at.items():
                found = [row[i] if i < len(row) else "" for row in rows if row]
                # Equal labels and equal identities share one string, which saves memory and time.
                cells[column] += found if column == "path" else map(known.setdefault, found, found)
    except OSError as error:
        raise UserError(
            f"cannot read {root} ({error.strerror or error}): check its permissions and the disk"
        ) from error
    except (UnicodeError, csv.Error) as error:
        raise UserError(f"cannot read {root} as a CSV file ({error}): save it as CSV UTF-8") from error
    if "'" in text:  # it may be a CSV file of agebench
        cells = {column: [plain_cell(cell) for cell in found] for column, found in cells.items()}
    return cells


def _find_columns(root: Path, header: list[str], columns: Mapping[str, str | None], label: str) -> dict[str, int]:
    """Return the index of `path`, of `label` or `age`, and, if the table has them, of `identity` and `split`."""
    index = {name: i for i, name in enumerate(header)}
    found = {}
    has_ages = label != "class" and columns.get("label") not in index and columns.get("age") in index
    if label != "class":
        _check_age_column(root, header, columns)
    for column in ("path", "age" if has_ages else "label", "identity", "split"):
        name = columns.get(column)
        if name in index:
            found[column] = index[name]
        # An optional column may be missing under its default name. Another name was set by the user.
        elif column in ("path", "label") or name not in (None, column):
            raise _no_column(root, column, name, header)
    return found


def _check_age_column(root: Path, header: list[str], columns: Mapping[str, str | None]) -> None:
    """Raise UserError if a column of ages that the user named, or every usual column of ages or labels is missing."""
    age = columns.get("age")
    if age not in (None, "age", *header):
        raise _no_column(root, "age", age, header)
    if age not in header and columns.get("label") == "label" and "label" not in header:
        raise UserError(
            f"{root} has no column 'age' and no column 'label', only {_listed(header)}{did_you_mean('age', header)}: "
            "rename yours, or set data.columns.age=NAME (ages) or data.columns.label=NAME (classes)"
        )


def _no_column(root: Path, column: str, name: str | None, header: list[str]) -> UserError:
    return UserError(
        f"{root} has no column {name!r}, only {_listed(header)}{did_you_mean(name, header)}: "
        f"set the name of yours with data.columns.{column}=NAME"
    )


def _listed(header: list[str]) -> str:
    """Return the names of columns as text. A name with spaces around it is quoted, which shows them."""
    return ", ".join(name if name == name.strip() else repr(name) for name in header) or "none"


def _find_groups(root: Path, header: list[str], columns: Sequence[str]) -> dict[str, int]:
    """Return the index of each column that images are grouped by."""
    for name in columns:
        if name not in header:
            raise UserError(
                f"{root} has no column {name!r}{did_you_mean(name, header)}: data.groups must be a list of its "
                f"columns, which are {_listed(header)}"
            )
    return {name: header.index(name) for name in columns}


def _check_paths(root: Path, paths: list[str]) -> None:
    """Raise UserError if a path is empty, or if two paths are the same file."""
    if "" in paths:
        row = paths.index("") + 1
        raise UserError(f"{root} has no path in row {row} below its header: fill it in or remove the row")
    normal, text = paths, "\n".join(["", *paths, ""])
    if not text.isascii() or any(mark in text for mark in NOT_NORMAL):
        normal = [nfc(os.path.normpath(path)) for path in paths]  # ./a.jpg is a.jpg
    if len(set(normal)) < len(normal):
        raise UserError(f"{root} lists {Counter(normal).most_common(1)[0][0]} twice: each path must occur once")


def _check_filled(root: Path, cells: Mapping[str, list[str]]) -> None:
    """Raise UserError if a label or an identity is empty, or a part is unknown."""
    paths, labels, identities = cells["path"], cells.get("age", cells.get("label", [])), cells.get("identity", [])
    if "" in labels:
        row, what = labels.index(""), "age" if "age" in cells else "label"
        more = _more_rows(labels.count("") - 1)
        raise UserError(
            f"{root} has no {what} for {paths[row]} in row {row + 1} below its header{more}: "
            "fill it in, or remove the rows without one"
        )
    if "" in identities:
        raise UserError(
            f"{root} has no identity for {paths[identities.index('')]}, but for other rows: fill it in, or ignore the "
            "column with data.columns.identity=null"
        )
    unknown = sorted(set(cells.get("split", [])) - {"train", "val", "test", ""})
    if unknown:
        raise UserError(f"{root}: split must be train, val or test, got {', '.join(unknown[:3])}")


def _class_codes(labels: list[str]) -> tuple[Array, tuple[str, ...]]:
    """Return class indices, int64, shape (N,), and the sorted class names; numbers by value (2 before 10)."""
    found = set(labels)
    numeric = all(NUMBER.fullmatch(text) for text in found)
    names = tuple(sorted(found, key=lambda text: (int(text) if numeric else 0, text)))
    code = {text: i for i, text in enumerate(names)}
    return np.fromiter(map(code.__getitem__, labels), np.int64, len(labels)), names


def _ages(root: Path, column: str, cells: list[str], paths: list[str]) -> Array:
    """Return ages in completed years, int64, shape (N,), and log how many had decimals.

    Raises:
        UserError: If a cell is not a number of years, with the row of the first one.
    """
    years = {cell: _years(cell) for cell in dict.fromkeys(cells)}
    wrong = {cell for cell, each in years.items() if not 0 <= each <= MAX_AGE}  # also if it is NaN
    if wrong:
        rows = [row for row, cell in enumerate(cells) if cell in wrong]
        cell, more = cells[rows[0]], _more_rows(len(rows) - 1)
        raise UserError(
            f"{root} needs ages of 0 to {MAX_AGE} years in the column {column!r}, got {cell!r} in row {rows[0] + 1} "
            f"below its header, {paths[rows[0]]}{more}: {_age_advice(cell, column)}"
        )
    cut = {cell for cell, each in years.items() if each % 1}
    if cut:
        count = sum(cell in cut for cell in cells)
        first = next(cell for cell in cells if cell in cut)
        log.warning(
            "%s: %s cut to completed years, such as %s to %d",
            root,
            "1 age has decimals and was" if count == 1 else f"{count:,} ages have decimals and were",
            first.strip(),
            int(years[first]),
        )
    whole = {cell: int(each) for cell, each in years.items()}
    return np.fromiter(map(whole.__getitem__, cells), np.int64, len(cells))


def _more_rows(count: int) -> str:
    return f" (and {count:,} more row{'s' if count > 1 else ''})" if count else ""


def _years(cell: str) -> float:
    """Return a cell as a number; NaN if it is none."""
    try:
        return math.nan if "_" in cell else float(cell)  # Python reads 1_0 as 10
    except ValueError:
        return math.nan


def _age_advice(cell: str, column: str) -> str:
    """Return what to do about a cell that is no age in years."""
    text = unicodedata.normalize("NFKC", cell).strip()
    if text.casefold() in NO_VALUE:
        return "fill it in, or remove the rows without an age"
    if re.fullmatch(r"\d+,\d+", text):
        return f"write it with a decimal point, {text.replace(',', '.')}"
    if re.fullmatch(r"(\d+)\s*[-~\u2013\u2014\u301c]\s*(\d+)", text):
        return (
            "write one age for each image, or train on the ranges as classes without an order by "
            f"data.columns.label={column} data.source.label=class data.target=class"
        )
    if re.fullmatch(r"(19|20)\d\d", text):
        return "write the age instead of a year of birth"
    return "correct it, or remove the row"


def _find_files(table: Path, paths: Sequence[str]) -> list[str | None]:
    """Return each path as it is spelled on the disk, or None if there is no such file.

    The Unicode form may differ: macOS unpacks accents to another form than tables use. Each folder is listed once,
    which is several times as fast as checking 1,000,000 files one by one.

    Args:
        table: The CSV file; relative paths start at its folder.
        paths: Paths in the table.
    """
    found: list[str | None] = [None] * len(paths)
    rows_of: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        rows_of.setdefault(os.path.dirname(path), []).append(row)  # noqa: PTH120  # a Path per row takes seconds
    # On a disk that ignores case, a listing lacks spellings that the disk accepts.
    ignores_case = table.with_name(table.name.swapcase()).exists()
    for folder, rows in rows_of.items():
        files = None if ignores_case else _list_files(table.parent, folder)
        for row in rows:
            if files is None:
                found[row] = _ask_disk(table.parent, paths[row])
                continue
            name = os.path.basename(paths[row])  # noqa: PTH119
            found[row] = files.get(name) or files.get(nfc(name))
    return found


def _list_files(root: Path, folder: str) -> dict[str, str] | None:
    """Return the path of each file in a folder by its name, unchanged and in NFC; None if the folder is unreadable."""
    files: dict[str, str] = {}
    for spelling in reversed(_spellings(folder)):
        try:
            with os.scandir(root / spelling) as entries:
                for entry in entries:
                    if os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file():  # noqa: PTH113
                        files[entry.name] = os.path.join(spelling, entry.name)  # noqa: PTH118
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null byte in the path
            continue
        except OSError:
            return None
    return {nfc(name): path for name, path in files.items() if not name.isascii()} | files


def _ask_disk(root: Path, path: str) -> str | None:
    found = (each for each in _spellings(path) if os.path.isfile(root / each))  # noqa: PTH113  # False if it is too long
    return next(found, None)


def _spellings(path: str) -> list[str]:
    """Return the different spellings of a path: unchanged, in NFC and in NFD."""
    return list(dict.fromkeys((path, nfc(path), unicodedata.normalize("NFD", path))))
