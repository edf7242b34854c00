"""Groups of images, such as sex or race, by which results are given."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from agebench.data.records import Array, Records, Source
from agebench.errors import UserError, did_you_mean, fold
from agebench.identity_groups import factorize

log = logging.getLogger(__name__)

UNKNOWN = "unknown"  # the group of images without a value
MAX_GROUPS = 50  # of a column


@runtime_checkable
class GroupedSource(Protocol):
    """A source with further columns that are only read if images are grouped by them."""

    def groups(self, columns: Sequence[str]) -> dict[str, Array]:
        """Return the cells of the columns, str, shape (N,) each, or raise UserError if there is no such column."""


def with_groups(records: Records, source: Source, columns: Sequence[str], *, name: str) -> Records:
    """Return the records with the groups of each image. An empty cell is the group `unknown`.

    Args:
        records: All records of the source.
        source: A source. If it is no GroupedSource, the columns of its records can be used, except identities.
        columns: The names of the columns.
        name: The data set's name.

    Raises:
        UserError: If a column does not exist, is called `name`, or has too many different values.
    """
    if not columns:
        return records
    if "name" in columns:  # a column of groups.csv
        raise UserError("data.groups cannot have a column called 'name': rename the column")
    cells = source.groups(columns) if isinstance(source, GroupedSource) else _own_columns(records, columns, name)
    groups = {column: _clean(found) for column, found in cells.items()}
    for column, found in groups.items():
        if (count := len(factorize(found)[0])) > MAX_GROUPS:
            raise UserError(
                f"data.groups: column {column!r} has {count:,} different values, at most {MAX_GROUPS} groups are "
                "supported: choose another column, or merge its values into fewer groups"
            )
        _warn_of_variants(column, found)
    return replace(records, groups=groups)


def _warn_of_variants(column: str, groups: Array) -> None:
    """Warn if the names of two groups differ only in case, spaces or full-width forms."""
    names, codes = factorize(groups)
    counts = np.bincount(codes, minlength=len(names)).tolist()
    spellings: dict[str, list[str]] = {}
    for name, count in zip(names.tolist(), counts, strict=True):
        spellings.setdefault(fold(name), []).append(f"{name!r} ({count:,} images)")
    for same in (each for each in spellings.values() if len(each) > 1):
        log.warning(
            "data.groups: %s of column %r are separate groups: write them alike if they are one group",
            " and ".join(same),
            column,
        )


def _own_columns(records: Records, columns: Sequence[str], name: str) -> dict[str, Array]:
    known = [column for column in records.columns if column != "identity"]
    for column in columns:
        if column not in known:
            raise UserError(
                f"data={name} has no column {column!r} to group by{did_you_mean(column, known)}: data.groups must be a "
                f"list of {', '.join(known)}, or null"
            )
    found = {column: records.columns[column] for column in columns}
    if "class" in found:
        found["class"] = np.array(records.class_names)[found["class"]]
    return found


def _clean(cells: Array) -> Array:
    """Return the name of the group of each image, without spaces around it."""
    distinct, codes = factorize(cells)
    names: Array = np.array([" ".join(str(cell).split()) or UNKNOWN for cell in distinct])
    return names[codes]
