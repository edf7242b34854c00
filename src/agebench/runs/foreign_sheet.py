"""Read a CSV file of predictions from any program, and match its rows to a test list."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agebench.data.plan import Plan
from agebench.data.readers.folders import nfc
from agebench.data.split_lists import NAME_COLUMNS, delimiter, find_column, match_names
from agebench.errors import UserError
from agebench.files import plain_cell, read_any_text
from agebench.metrics.predictions import Array

POINT_COLUMNS = ("point", "prediction", "predicted", "pred")
PROBABILITY = re.compile(r"p\((.*)\)")


@dataclass(frozen=True)
class Sheet:
    """The cells of a file of predictions, one row per image.

    Args:
        file: The path, for messages.
        names: Names of the images, length N.
        points: Cells of the point estimates, length N; None without such a column.
        labels: Labels of the columns p(LABEL).
        posterior: Cells of these columns, N lists; None without such columns, or if all are empty.
    """

    file: Path
    names: list[str]
    points: list[str] | None
    labels: tuple[str, ...]
    posterior: list[list[str]] | None


@dataclass(frozen=True)
class Matches:
    """The rows of a file that are test images.

    Args:
        lines: Indices of the rows of the file, int64, shape (n,).
        rows: The row of the test part of each, int64, ascending, shape (n,).
        missing: Test images without a row.
        doubled: Test images with several rows. Equal rows count once; images whose rows differ are left out.
        unknown: Names that are not in the data.
        elsewhere: Number of rows that are images of train or val.
    """

    lines: Array
    rows: Array
    missing: list[str]
    doubled: list[str]
    unknown: list[str]
    elsewhere: int


def read_sheet(file: Path) -> Sheet:
    """Return the cells of a CSV file of predictions.

    Args:
        file: UTF-8, UTF-16, Shift-JIS or Windows-1252, with a column named as in NAME_COLUMNS, and a point estimate
            (POINT_COLUMNS) or a probability for each label (`p(LABEL)`). Further columns are ignored.

    Raises:
        UserError: If the file cannot be read, or lacks a column or rows.
    """
    rows = _read_rows(file)
    header = [cell.strip() for cell in rows[0]]
    name, point = find_column(header, NAME_COLUMNS), find_column(header, POINT_COLUMNS)
    at = {i: match[1] for i, cell in enumerate(header) if (match := PROBABILITY.fullmatch(cell))}
    found = ", ".join(cell[:40] for cell in header[:6]) + (", ..." if len(header) > 6 else "")
    if name is None:
        raise UserError(f"{file} has no column name, only {found}: name the images in a column name")
    if point is None and not at:
        raise UserError(f"{file} has no column point and no columns p(LABEL), only {found}: add the predictions")
    labels = tuple(at.values())
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UserError(f"{file} has the column p({twice[0]}) twice: each label must have one column")
    body = rows[1:]
    if not body:
        raise UserError(f"{file} has a header but no rows: it needs one row per image")
    for number, row in enumerate(body, start=1):
        if len(row) < len(header) or any(row[len(header) :]):
            raise UserError(f"{file}: row {number} below the header has {len(row)} cells, the header {len(header)}")
    posterior = [[row[i].strip() for i in at] for row in body] if at else None
    return Sheet(
        file,
        [row[name].strip() for row in body],
        None if point is None else [row[point].strip() for row in body],
        labels,
        posterior if posterior and any(map(any, posterior)) else None,
    )


def _read_rows(file: Path) -> list[list[str]]:
    """Return the rows of a CSV file that are not empty; at least one."""
    if not file.is_file():
        raise UserError(f"no file {file}: predictions=FILE must be a CSV file with a row for each test image")
    try:
        text = read_any_text(file)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(text.splitlines()))
        rows = [list(map(plain_cell, row)) for row in reader if any(row)]
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror or error}): check its permissions") from error
    except (UnicodeError, csv.Error) as error:
        raise UserError(f"cannot read {file} as a CSV file ({error}): save it as CSV UTF-8") from error
    if not rows:
        raise UserError(f"{file} is empty: it needs a header and one row per image")
    return rows


def match_sheet(sheet: Sheet, plan: Plan) -> Matches:
    """Return the rows of a file that are test images, matched by name as in agebench.data.split_lists.

    Raises:
        UserError: If none is.
    """
    names = [nfc(name) for name in sheet.names]
    row_of = match_names(set(names), plan.records.names)
    place = np.full(len(plan.records), -1)
    place[plan.split.test] = np.arange(len(plan.split.test))
    lines_of: dict[int, list[int]] = {}
    elsewhere, unknown = 0, []
    for line, name in enumerate(names):
        row = row_of.get(name)
        if row is None:
            unknown.append(sheet.names[line])
        elif place[row] < 0:
            elsewhere += 1
        else:
            lines_of.setdefault(int(place[row]), []).append(line)
    test = plan.records.names[plan.split.test]
    if not lines_of:
        of = f" ({elsewhere:,} rows are images of train or val)" if elsewhere else ""
        raise UserError(
            f"{sheet.file}: no image that it lists is in the test part of data={plan.name}{of}: "
            f"it lists {sheet.names[0][:80]}, the test part has {test[0]}"
        )
    several = {row: lines for row, lines in lines_of.items() if len(lines) > 1}
    for row, lines in several.items():
        if any(_cells(sheet, line) != _cells(sheet, lines[0]) for line in lines):
            del lines_of[row]
    rows = np.array(sorted(lines_of), dtype=np.int64)
    missing = np.delete(np.arange(len(test)), [*lines_of, *several])
    if not lines_of:
        raise UserError(f"{sheet.file} lists every test image several times with different predictions: keep one row")
    return Matches(
        lines=np.array([lines_of[row][0] for row in rows.tolist()], dtype=np.int64),
        rows=rows,
        missing=test[missing].tolist(),
        doubled=test[sorted(several)].tolist(),
        unknown=unknown,
        elsewhere=elsewhere,
    )


def _cells(sheet: Sheet, line: int) -> tuple[object, ...]:
    return tuple(None if cells is None else cells[line] for cells in (sheet.points, sheet.posterior))
