"""Atomic writes of text, JSON and CSV files: a file is written completely or not at all."""

import csv
import errno
import json
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, which replaces `path` after the block. It is deleted if the block fails."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # replacing one hard link by another to the same file leaves both


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


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file as UTF-8."""
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
