"""The metadata file of CACD, in MATLAB 5 or MATLAB 7.3 format."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from agebench.data.readers.folders import nfc
from agebench.data.records import Array
from agebench.errors import UserError, one_line_message

METADATA = ("celebrity2000_meta.mat", "celebrity2000.mat")
FIELDS = ("age", "identity", "year", "rank", "lfw", "birth")
MAX_AGE = 200  # years
NAME = re.compile(r"(\d{1,3})_(.+)_(\d+)\.jpe?g", re.IGNORECASE)  # age, person, number

STRUCT = "celebrityImageData"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
USER_BLOCK = 512  # bytes before the signature, in which MATLAB writes its own header
CACHE = 2**20  # bytes; the metadata cache of HDF5 would otherwise grow to 600 MB with 163,446 names


class _InvalidError(ValueError):
    """The file can be read, but it is not the metadata of CACD."""


def read_metadata(path: Path) -> dict[str, Array]:
    """Read the metadata of CACD with SciPy (MATLAB 5) or h5py (MATLAB 7.3, without loading the feature array).

    Returns:
        `name`, str, in NFC, unique, each a full match of NAME; and the FIELDS, int64, `age` from 0 to MAX_AGE. Each has
        shape (N,), N > 0.

    Raises:
        UserError: If the file has another format, is cut short, or lacks valid columns.
    """
    try:
        fields = _read_v73(path) if _is_hdf5(path) else _read_v5(path)
        columns = {field: _integers(field, fields[field]) for field in FIELDS}
        columns["name"] = _unique(fields["name"])
        sizes = {len(column) for column in columns.values()}
        if len(sizes) != 1:
            raise _InvalidError(f"its fields differ in length, {sorted(sizes)}")
        invalid = invalid_ages(columns["age"])
        if len(invalid):
            name, age = columns["name"][invalid[0]], columns["age"][invalid[0]]
            raise _InvalidError(f"it gives {name} an age of {age} years, at most {MAX_AGE} are accepted")
    except PermissionError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): check its permissions") from error
    except Exception as error:  # a damaged file can make both parsers raise any exception
        reason = one_line_message(error)
        raise UserError(
            f"cannot read {path} as the metadata of CACD ({reason}): download it again, see docs/data.md"
        ) from error
    return columns


def invalid_ages(ages: Array) -> Array:
    """Return the positions of impossible ages, int64, shape (n,), among ages in years, shape (N,)."""
    return np.flatnonzero((ages < 0) | (ages > MAX_AGE))


def _is_hdf5(path: Path) -> bool:
    """Return whether a file is HDF5; h5py could say so too, but is slow to import."""
    with path.open("rb") as file:
        head = file.read(USER_BLOCK + len(HDF5_SIGNATURE))
    return head.startswith(HDF5_SIGNATURE) or head[USER_BLOCK:] == HDF5_SIGNATURE


def _read_v5(path: Path) -> dict[str, Any]:
    import scipy.io

    data = scipy.io.loadmat(path, variable_names=[STRUCT]).get(STRUCT)
    if data is None or data.dtype.names is None or data.size != 1:
        raise _InvalidError(f"it has no struct {STRUCT}")
    _check_fields(data.dtype.names)
    row = data.ravel()[0]
    cells = row["name"].ravel()
    if cells.dtype != object:
        raise _InvalidError("its field name is not a list of texts")
    return {field: row[field] for field in FIELDS} | {
        "name": [str(cell.item()) if cell.size == 1 else "" for cell in cells]
    }


def _read_v73(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path) as file:
        data = file.get(STRUCT)
        if not isinstance(data, h5py.Group):
            raise _InvalidError(f"it has no struct {STRUCT}")
        _check_fields(data)
        if h5py.check_ref_dtype(data["name"].dtype) is None:
            raise _InvalidError("its field name is not a list of texts")
        config = file.id.get_mdc_config()
        config.set_initial_size = True
        config.initial_size = config.min_size = config.max_size = CACHE
        file.id.set_mdc_config(config)
        return {field: data[field][()] for field in FIELDS} | {"name": _follow(file, data["name"][()].ravel(), path)}


def _follow(file: Any, references: Array, path: Path) -> list[str]:
    """Return the UTF-16 text of each reference.

    `file[reference][()]` creates many Python objects and takes 21 s for 163,446 names; this takes 4 s.
    """
    from h5py import h5d, h5r

    texts = []
    with path.open("rb") as raw:
        for reference in references:
            dataset = h5r.dereference(reference, file.id)
            if not isinstance(dataset, h5d.DatasetID):
                raise _InvalidError("one of its names is not text")
            offset = dataset.get_offset()
            if offset is None:  # in chunks, or inside its header
                data = file[reference][()].tobytes()
            else:
                raw.seek(offset)
                data = raw.read(dataset.get_storage_size())
            texts.append(data.decode("utf-16-le"))
    return texts


def _check_fields(found: Any) -> None:
    missing = [field for field in (*FIELDS, "name") if field not in found]
    if missing:
        raise _InvalidError(f"{STRUCT} has no field {' or '.join(missing)}")


def _integers(field: str, values: Array) -> Array:
    """Return a row or column of any numeric type as integers, int64, shape (N,)."""
    values = np.asarray(values).ravel()
    if values.dtype.kind not in "buif" or len(values) == 0:
        raise _InvalidError(f"its field {field} is not a list of numbers")
    with np.errstate(invalid="ignore"):
        integers = values.astype(np.int64)
    invalid = np.flatnonzero(integers != values)
    if len(invalid):
        raise _InvalidError(f"its field {field} contains {values[invalid[0]]}")
    return integers


def _unique(names: list[str]) -> Array:
    names = [nfc(name) for name in names]
    invalid = next((name for name in names if not NAME.fullmatch(name)), None)
    if invalid is not None:
        raise _InvalidError(f"it lists the name {invalid[:80]!r} instead of one like '53_Robin_Williams_0001.jpg'")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise _InvalidError(f"it lists {twice} more than once")
    return np.array(names)
