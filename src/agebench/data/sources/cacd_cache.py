"""CACD's metadata as parsed before, in the cache: MATLAB's files take a second to read."""

import contextlib
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from agebench.data.records import Array
from agebench.files import atomic_write

VERSION = 1  # change it if the same file would give other columns
Columns = dict[str, Array]  # of shape (N,) each, int64 or str


def load_columns(metadata: Path, cache: Path | None) -> Columns | None:
    """Return the columns that were stored for a metadata file with the same content, or None."""
    try:
        with _file(metadata, cache).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: _unpack(stored[name]) for name in stored.files}
    except (EOFError, OSError, TypeError, ValueError, zipfile.BadZipFile):  # not there, no cache, damaged
        return None


def store_columns(metadata: Path, cache: Path | None, columns: Columns) -> None:
    """Store the columns of a metadata file. A cache that cannot be written is ignored."""
    with contextlib.suppress(OSError, TypeError):
        file = _file(metadata, cache)
        file.parent.mkdir(parents=True, exist_ok=True)
        packed: dict[str, Any] = {name: _pack(column) for name, column in columns.items()}
        with atomic_write(file) as part, part.open("wb") as target:
            np.savez(target, **packed)


def _file(metadata: Path, cache: Path | None) -> Path:
    """Return the file for a metadata file, named after its content; TypeError without a cache."""
    if cache is None:
        raise TypeError("no cache")
    digest = hashlib.sha256(f"{VERSION}".encode() + metadata.read_bytes()).hexdigest()[:16]
    return cache / f"cacd-metadata-{digest}.npz"


def _pack(column: Array) -> Array:
    """Return texts as the bytes of their lines: a fixed-width column would take ten times the space."""
    if column.dtype.kind != "U":
        return column
    return np.frombuffer("\n".join(column.tolist()).encode(), dtype=np.uint8)


def _unpack(column: Array) -> Array:
    return np.array(column.tobytes().decode().split("\n")) if column.dtype == np.uint8 else column
