"""The contract of sources."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from agebench.contract import require
from agebench.data.records import Array, Records
from agebench.data.resize import Resize
from agebench.data.target import TARGETS, make_target
from agebench.testing.contract import Target, build, working

METHODS = ("prepare", "records", "present", "open", "stamps", "reading_order")
OPENED = 8  # images that are decoded


def check_source(target: Target, **options: Any) -> None:
    """Check that a source keeps the contract of agebench.data.records.Source. It opens a few images.

    Args:
        target: The class, or its dotted name: `mydata.MyData`.
        options: The keys of `source` in the YAML.

    Raises:
        ContractError: If the source breaks the contract.

    Examples:
        >>> check_source("agebench.data.sources.Digits")
    """
    source = build("source", target, signature="the keys of `source` in its YAML", options=options)
    _check_attributes(source)
    with working("a source must list and open its images"):
        _check_content(source)


def _check_content(source: Any) -> None:
    source.prepare()
    records = source.records()
    _check_records(source, records)
    present = np.asarray(source.present())
    contract = f"present() must return one bool per record, shape (N,) = ({len(records)},)"
    require(present.shape == (len(records),) and present.dtype == bool, contract, f"{present.dtype} {present.shape}")
    rows = np.flatnonzero(present)
    require(len(rows) > 0, "a source must have an image", "present() is false for all records")
    _check_images(source, rows[:: max(1, len(rows) // OPENED)][:OPENED])
    _check_rows(source, rows)


def _check_attributes(source: Any) -> None:
    missing = [name for name in METHODS if not callable(getattr(source, name, None))]
    require(not missing, f"a source must have the methods {', '.join(METHODS)}", f"no {', '.join(missing)}")
    channels, targets = (getattr(source, name, None) for name in ("channels", "targets"))
    require(channels in (1, 3), "`channels` of a source must be 1 (grey) or 3 (colour)", channels)
    known = isinstance(targets, tuple) and len(targets) > 0 and set(targets) <= set(TARGETS)
    require(known, f"`targets` of a source must be a tuple of some of {', '.join(TARGETS)}, the default first", targets)
    flag = getattr(source, "path_is_identity", True)
    contract = "`path_is_identity` of a source must be true (another path means other data) or false"
    require(isinstance(flag, bool), contract, flag)


def _check_records(source: Any, records: Any) -> None:
    require(isinstance(records, Records), "records() must return agebench.data.records.Records", type(records).__name__)
    count, names = len(records), [str(name) for name in records.names]
    require(count > 0, "records() must list an image", "no record")
    repeated = next((name for i, name in enumerate(sorted(names)[1:]) if name == sorted(names)[i]), None)
    require(repeated is None, "names of records must be unique", f"{repeated} twice")
    for name, column in {**records.columns, **records.groups}.items():
        require(np.shape(column) == (count,), f"the column {name} must have the shape (N,) = ({count},)", column.shape)
    if "class" in records.columns:
        classes, known = np.asarray(records.columns["class"]), len(records.class_names)
        contract = f"the column class must be integers from 0 to {known - 1}, indices into the {known} class_names"
        require(np.issubdtype(classes.dtype, np.integer), contract, classes.dtype)
        require(classes.min() >= 0 and classes.max() < known, contract, f"{classes.min()} to {classes.max()}")
    for each in source.targets:
        needed = "class" if each == "class" else "age"
        found = ", ".join(records.columns) or "no column"
        require(needed in records.columns, f"the target {each} needs the column {needed}", found)
        make_target(records, each, bins=[18.0, 30.0] if each == "bins" else None)
    again = [str(name) for name in source.records().names]
    require(again == names, "records() must list the records in a fixed order", "another order in a second call")


def _check_images(source: Any, rows: Array) -> None:
    resize = Resize(16, source.channels)

    def read(row: int) -> Array:
        image = source.open(row)
        contract = "open() must return a PIL.Image.Image"
        require(isinstance(image, Image.Image), contract, type(image).__name__)
        return resize(image)

    one_by_one = [read(row) for row in rows.tolist()]
    with ThreadPoolExecutor(4) as threads:
        at_once = list(threads.map(read, rows.tolist() * 2))
    same = all(np.array_equal(a, b) for a, b in zip(one_by_one * 2, at_once, strict=True))
    require(same, "open() must return the same image in each call, also from several threads", "other pixels")


def _check_rows(source: Any, rows: Array) -> None:
    stamps = np.asarray(source.stamps(rows))
    contract = f"stamps() must return one uint64 per row, shape (n,) = ({len(rows)},)"
    fits = stamps.shape == (len(rows),) and stamps.dtype == np.uint64
    require(fits, contract, f"{stamps.dtype} of shape {stamps.shape}")
    require(np.array_equal(source.stamps(rows), stamps), "the stamp of an unchanged file must not change", "a change")
    shuffled = rows[::-1]
    ordered = np.asarray(source.reading_order(shuffled))
    kept = np.array_equal(np.sort(ordered), np.sort(rows))
    require(kept, "reading_order() must return the same rows, in any order", ordered[:5])
