"""Reading and writing files: atomic writes of text, JSON and CSV, log files, and text in several encodings.

No file is written through a symbolic link: an atomic write replaces the link, and a log file removes it.
"""

import csv
import errno
import io
import json
import logging
import math
import os
import re
import threading
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agebench.errors import nearest

log = logging.getLogger(__name__)

# A text that a spreadsheet would take for a formula, or one to which guard_cell has added apostrophes. The last four
# are full-width: a Japanese Excel accepts them.
FORMULA_STARTS = frozenset("'=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-](inf|nan)", re.ASCII | re.IGNORECASE)
# Python decodes bytes that Shift-JIS does not define to these characters.
UNDEFINED = re.compile("[\x80-\x9f\uf8f0-\uf8f3]")
# What text of Western Europe lacks. Nearly all Japanese text in Shift-JIS has it if it is decoded as Windows-1252.
ACCENTED = "\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u00fe"  # the letters of Latin-1, without y with diaeresis
LATIN = rf"A-Za-z{ACCENTED}\u0152\u0153\u0160\u0161\u017d\u017e"
NOT_WESTERN = re.compile(
    rf"""
    [^\0-\x7f{LATIN}\xa0\xab\xbb\u2019]  # another character than letters, guillemets and the apostrophe
    | (?<![{LATIN}]) [{ACCENTED}]{{2,}} (?![{LATIN}]) | [{ACCENTED}]{{3}}  # a word of accents
    | (?<=[{LATIN}]) [\u0152\u0160\u017d] | [\u0152\u0160\u017d] (?![a-z])  # not at the start of a word
    | (?<=[{LATIN}]) \xab | \xbb (?=[{LATIN}]) | (?<![{LATIN}]) \u2019  # a mark on the wrong side of a word
    """,
    re.VERBOSE,
)
# Characters of Shift-JIS that begin with a byte that is a letter in Windows-1252 or Mac Roman, at and in Latin words.
JAPANESE = "[\u4e00-\u9fff\uff61-\uff9f\ue000-\uf8ff\uf900-\ufaff]"
AT_LATIN = re.compile(rf"[A-Za-z]{JAPANESE}|{JAPANESE}[A-Za-z]")
IN_LATIN = re.compile(
    rf"[a-z]{JAPANESE}[a-z]|[a-z][\uff61-\uff9f](?![\uff61-\uff9f])|[a-z][\ue000-\uf8ff]|[\ue000-\uf8ff][a-z]"
)
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, which replaces `path` after the block. It is deleted if the block fails."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    part.unlink(missing_ok=True)  # it may be a link
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # replacing one hard link by another to the same file leaves both


def remove_link(path: Path) -> Path:
    """Remove a symbolic link, but no file, and return its path. Use it where a file is opened for writing."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    return path


def open_log(path: Path) -> int:
    """Open a file for appending, create it if necessary, and return its descriptor. A symbolic link is removed."""
    return os.open(remove_link(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_FOLLOW, 0o666)


class LogFile(logging.FileHandler):
    """Logging handler that appends to a file, but not through a symbolic link. The first message creates the folder."""

    def _open(self) -> io.TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return open(open_log(Path(self.baseFilename)), "a", encoding="utf-8", errors="backslashreplace")


def write_text(path: Path, text: str) -> Path:
    """Write a text file as UTF-8 and return its path; invalid Unicode is written as escapes."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def write_json(path: Path, data: Mapping[str, Any], *, spare: int = 0) -> None:
    """Write a JSON file; NaN and infinities, which JSON cannot represent, become null.

    Args:
        path: The file.
        data: Its content.
        spare: Number of spaces at the end, which `change_json` can replace on a full disk.
    """
    text = json.dumps(replace_nan(data), indent=1, ensure_ascii=False, allow_nan=False) + " " * spare + "\n"
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def change_json(path: Path, changes: Mapping[str, Any]) -> None:
    """Change entries of a JSON file in place and without changing its size, which works on a full disk.

    This is not atomic. Use it only if `write_json` failed.

    Raises:
        OSError: If the file lacks room for the entries.
    """
    data = json.dumps(replace_nan({**read_json(path), **changes}), ensure_ascii=False, allow_nan=False).encode()
    with path.open("r+b") as file:
        room = file.seek(0, os.SEEK_END) - 1
        if len(data) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        file.seek(0)
        file.write(data.ljust(room) + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if the file cannot be read or holds something else."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def replace_nan(value: Any) -> Any:
    """Return nested data with None in place of NaN and infinities."""
    if isinstance(value, Mapping):
        return {key: replace_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a CSV file for spreadsheets and return its path: UTF-8 with a byte-order mark, without formulas.

    read_csv returns the cells unchanged. Invalid Unicode is written as escapes.
    """
    with (
        atomic_write(path) as part,
        part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        file.write("\ufeff")
        writer = csv.writer(file)
        writer.writerow(map(guard_cell, columns))
        writer.writerows(map(guard_cell, row) for row in rows)
    return path


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as CSV text without formulas. None is an empty cell."""
    lines: list[str] = []
    # With lines that end in \r\n, the csv module quotes cells that contain either character.
    writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n")
    writer.writerow(map(guard_cell, columns))
    writer.writerows(map(guard_cell, row) for row in rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file of write_csv or csv_text, with or without a byte-order mark."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        text = file.read()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    if "'" not in text:
        return rows
    return [
        {plain_cell(key): plain_cell(cell) if isinstance(cell, str) else cell for key, cell in row.items() if key}
        for row in rows
    ]


def guard_cell(cell: Any) -> Any:
    """Return a cell with an apostrophe before a text that a spreadsheet would run as a formula.

    A number as text, such as `-1.5`, is unchanged. plain_cell is the inverse.
    """
    # The characters are tested before the regular expressions, which take most of the time of a large table.
    if not isinstance(cell, str) or cell[:1] not in FORMULA_STARTS or not FORMULA.match(cell) or NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


def plain_cell(cell: str) -> str:
    """Return the text of a cell from which guard_cell returned it."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def near_path(path: Path) -> Path | None:
    """Return the path that exists and differs from one that does not in one similar name, or None.

    Case, spaces and full-width forms of the name are ignored.
    """
    missing = path = path.absolute()
    try:
        while not missing.parent.exists():
            missing = missing.parent
        name = nearest(missing.name, sorted(each.name for each in missing.parent.iterdir()), cutoff=0.75)
    except OSError:
        return None
    return None if name is None else missing.with_name(name) / path.relative_to(missing)


def read_any_text(path: Path) -> str:
    """Return the text of a user's file: UTF-8, UTF-16 with a byte-order mark, Shift-JIS or Windows-1252.

    An encoding other than UTF-8 is logged.

    Raises:
        OSError: If the file cannot be read.
        UnicodeError: If it is not text in one of these encodings, or may be in more than one.
    """
    data = path.read_bytes()
    if (text := _decode(data, "utf-8-sig")) is not None:
        return text
    text, name = None, "UTF-16"
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        text = _decode(data, "utf-16")
    if text is None:
        text, name = _decode_old(data)
    _log_encoding(path, name)
    return text


@cache
def _log_encoding(path: Path, name: str) -> None:
    """Log the encoding of a file once, because a command may read it for several things."""
    log.info("%s is read as %s", path, name)


def _decode_old(data: bytes) -> tuple[str, str]:
    """Return a text in Shift-JIS or Windows-1252 and the name of its encoding.

    Most files in one of them can be decoded as the other. Western text has its accents in Latin words. If it is decoded
    as Shift-JIS, Japanese letters stand in these words.

    Raises:
        UnicodeError: If neither encoding fits, or both do.
    """
    japanese, western = _decode(data, "cp932"), _decode(data, "cp1252")
    if western is not None and not NOT_WESTERN.search(western):
        if japanese is None or AT_LATIN.search(japanese):
            return western, "Western European (Windows-1252, cp1252)"
        raise UnicodeError("it may be Shift-JIS or Windows-1252")
    if japanese is None or IN_LATIN.search(japanese):
        raise UnicodeError("it is not text in UTF-8, UTF-16, Shift-JIS or Windows-1252")
    return japanese, "Shift-JIS (cp932)"


def _decode(data: bytes, encoding: str) -> str | None:
    """Return a text, or None if bytes are not text in an encoding."""
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text or (encoding == "cp932" and UNDEFINED.search(text)) else text
