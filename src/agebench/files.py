"""Atomic writes of text, JSON and CSV files: a file is written completely or not at all."""

import csv
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


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file; NaN and infinities, which JSON cannot represent, become null."""
    text = json.dumps(replace_nan(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


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
