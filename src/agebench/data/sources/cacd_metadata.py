"""CACD's metadata file, in either of the two MATLAB formats that it comes in."""

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
MOST_YEARS = 200
NAME = re.compile(r"(\d{1,3})_(.+)_(\d+)\.jpe?g", re.IGNORECASE)  # age, person, number

STRUCT = "celebrityImageData"
CACHE = 2**20  # bytes; HDF5 would let its own grow to 600 MB over the headers of 163,446 names


class _UnfitError(ValueError):
    """The file can be read and is not CACD's metadata."""


def read_metadata(path: Path) -> dict[str, Array]:
    """Read CACD's metadata, MATLAB 5 by scipy or MATLAB 7.3 by h5py, whose feature array is never touched.

    Returns:
        `name`, str, in NFC, unique and each a full match of NAME, and the FIELDS, int64, `age` from 0 to MOST_YEARS;
        each of shape (N,), N > 0.

    Raises:
        UserError: If the file is neither, cut short, or does not hold that.
    """
    import h5py

    try:
        path.open("rb").close()  # what forbids it is told in two words here, and by HDF5 in thirty
        fields = _read_v73(path) if h5py.is_hdf5(path) else _read_v5(path)
        columns = {field: _whole(field, fields[field]) for field in FIELDS}
        columns["name"] = _unique(fields["name"])
        sizes = {len(column) for column in columns.values()}
        if len(sizes) != 1:
            raise _UnfitError(f"its fields differ in length, {sorted(sizes)}")
        unfit = no_age(columns["age"])
        if len(unfit):
            name, age = columns["name"][unfit[0]], columns["age"][unfit[0]]
            raise _UnfitError(f"it says that {name} shows somebody of {age} years, at most {MOST_YEARS} are believed")
    except PermissionError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): see to its permissions") from error
    except Exception as error:  # a damaged file makes the two parsers raise nearly anything
        reason = one_line_message(error)
        raise UserError(
            f"cannot read {path} as CACD's metadata ({reason}): download it again, see docs/data.md"
        ) from error
    return columns


def no_age(years: Array) -> Array:
    """Return the rows that are no age of anybody, int64, shape (n,), of years of shape (N,)."""
    return np.flatnonzero((years < 0) | (years > MOST_YEARS))


def _read_v5(path: Path) -> dict[str, Any]:
    import scipy.io

    data = scipy.io.loadmat(path, variable_names=[STRUCT]).get(STRUCT)
    if data is None or data.dtype.names is None or data.size != 1:
        raise _UnfitError(f"it has no struct {STRUCT}")
    _check_fields(data.dtype.names)
    row = data.ravel()[0]
    cells = row["name"].ravel()
    if cells.dtype != object:
        raise _UnfitError("its field name is no list of texts")
    return {field: row[field] for field in FIELDS} | {
        "name": [str(cell.item()) if cell.size == 1 else "" for cell in cells]
    }


def _read_v73(path: Path) -> dict[str, Any]:
    import h5py

    with h5py.File(path) as file:
        data = file.get(STRUCT)
        if not isinstance(data, h5py.Group):
            raise _UnfitError(f"it has no struct {STRUCT}")
        _check_fields(data)
        if h5py.check_ref_dtype(data["name"].dtype) is None:
            raise _UnfitError("its field name is no list of texts")
        config = file.id.get_mdc_config()
        config.set_initial_size = True
        config.initial_size = config.min_size = config.max_size = CACHE
        file.id.set_mdc_config(config)
        return {field: data[field][()] for field in FIELDS} | {"name": _follow(file, data["name"][()].ravel(), path)}


def _follow(file: Any, references: Array, path: Path) -> list[str]:
    """Return the UTF-16 text behind each reference.

    `file[reference][()]` makes Python objects of everything on the way: 21 s for 163,446 names, and this 4 s.
    """
    from h5py import h5d, h5r

    texts = []
    with path.open("rb") as raw:
        for reference in references:
            dataset = h5r.dereference(reference, file.id)
            if not isinstance(dataset, h5d.DatasetID):
                raise _UnfitError("one of its names is no text")
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
        raise _UnfitError(f"{STRUCT} has no field {' or '.join(missing)}")


def _whole(field: str, values: Array) -> Array:
    """Return whole numbers, int64, shape (N,), of a row or column of any type of number."""
    values = np.asarray(values).ravel()
    if values.dtype.kind not in "buif" or len(values) == 0:
        raise _UnfitError(f"its field {field} is no list of numbers")
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    unfit = np.flatnonzero(whole != values)
    if len(unfit):
        raise _UnfitError(f"its field {field} holds {values[unfit[0]]}")
    return whole


def _unique(names: list[str]) -> Array:
    names = [nfc(name) for name in names]
    unfit = next((name for name in names if not NAME.fullmatch(name)), None)
    if unfit is not None:
        raise _UnfitError(f"it names an image {unfit[:80]!r}, which should look like '53_Robin_Williams_0001.jpg'")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise _UnfitError(f"it lists {twice} more than once")
    return np.array(names)
