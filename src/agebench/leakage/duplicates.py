"""Images with the same content under different names, in one data set or in two."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from agebench.data.plan import Plan
from agebench.data.records import Array, Source
from agebench.data.split import PARTS
from agebench.data.threads import cores, map_chunks
from agebench.errors import BrokenImageError
from agebench.progress import Bar

COLUMNS = ("group", "name", "part", "identity", "target")  # of duplicates.csv


def audit_duplicates(source: Source, data: Plan) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Find the images of a split that are identical to another one. Only files of equal size are read.

    Args:
        source: The source of the images.
        data: The plan with their names, labels and parts.

    Returns:
        `duplicates` of audit.json: the `images` that have a copy, their `groups` and `pairs`, the pairs in two parts
        (`pairs_across`), the images of test and val with a copy in train (`test_in_train`, `val_in_train`), and the
        groups with more than one label (`groups_of_several_labels`); and the rows of duplicates.csv. If val is the
        test part, its images count as test images.
    """
    part_of = np.full(len(data.records), "", dtype="<U5")
    for part in PARTS:
        part_of[data.split.part(part)] = part
    groups = find_identical(source, data.rows[data.used])
    groups = [data.used[group] for group in groups]
    parts, labels = [part_of[group] for group in groups], data.target.labels
    inside = [_pairs(int((each == part).sum())) for each in parts for part in PARTS]
    pairs = sum(_pairs(len(group)) for group in groups)
    found = {
        "images": sum(map(len, groups)),
        "groups": len(groups),
        "pairs": pairs,
        "pairs_across": pairs - sum(inside),
        **{
            f"{part}_in_train": sum(int((each == part).sum()) for each in parts if "train" in each)
            for part in ("test", "val")
        },
        "groups_of_several_labels": sum(len(np.unique(labels[group])) > 1 for group in groups),
    }
    identities = data.records.columns.get("identity", np.full(len(data.records), ""))
    columns = data.records.names, part_of, identities, np.array(data.target.label_names, dtype=object)[labels]
    return found, [(i, *(column[row] for column in columns)) for i, group in enumerate(groups, 1) for row in group]


def duplicates_sentence(found: Mapping[str, int]) -> str:
    """Return one sentence about `duplicates` of audit.json."""
    if not found["images"]:
        return "duplicates: no image is identical to another one"
    groups, several, across = found["groups"], found["groups_of_several_labels"], found["pairs_across"]
    return (
        f"duplicates: {found['images']:,} images have an identical one (groups: {groups:,}, with several labels: "
        f"{several:,}; pairs: {found['pairs']:,}, in two parts: {across:,}); listed in duplicates.csv"
    )


def find_identical(source: Source, rows: Array) -> list[Array]:
    """Return the groups of images with the same content, as positions in `rows`, int64, ascending.

    Args:
        source: The source of the images.
        rows: Its rows to compare, int64, shape (n,).
    """
    _, inverse, counts = np.unique(_sizes(source, rows), return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts[inverse.reshape(-1)] > 1)
    found: dict[bytes, list[int]] = {}
    for at, content in zip(repeated.tolist(), _hash(source, rows[repeated]), strict=True):
        if content is not None:
            found.setdefault(content, []).append(at)
    return [np.array(group) for group in found.values() if len(group) > 1]


def find_copies(source: Source, rows: Array, other: Source, other_rows: Array) -> Array:
    """Return for each image a position in `other_rows` of an image with the same content, int64, shape (n,), or -1.

    Only files whose size occurs in both sources are read.
    """
    sizes, other_sizes = _sizes(source, rows), _sizes(other, other_rows)
    ours, theirs = np.flatnonzero(np.isin(sizes, other_sizes)), np.flatnonzero(np.isin(other_sizes, sizes))
    known = dict(zip(_hash(other, other_rows[theirs]), theirs.tolist(), strict=True))
    known.pop(None, None)
    found = np.full(len(rows), -1, dtype=np.int64)
    found[ours] = [known.get(content, -1) for content in _hash(source, rows[ours])]
    return found


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def _sizes(source: Source, rows: Array) -> Array:
    """Return the size of each file, int64, shape (n,). Images that are not single files all have -1."""
    sizes = getattr(source, "sizes", None)
    return np.full(len(rows), -1, dtype=np.int64) if sizes is None else np.asarray(sizes(rows))


def _hash(source: Source, rows: Array) -> list[bytes | None]:
    """Return the hash of each image: of its file, or of its pixels if it is not a single file; None if unreadable."""
    if not len(rows):
        return []
    found: dict[int, bytes | None] = {}
    with Bar("comparing images", total=len(rows)) as bar, ThreadPoolExecutor(cores()) as workers:
        for chunk in map_chunks(workers, partial(_hash_chunk, source), source.reading_order(rows).tolist()):
            found |= chunk
            bar.update(len(chunk))
    return [found[row] for row in rows.tolist()]


def _hash_chunk(source: Source, rows: Sequence[int]) -> dict[int, bytes | None]:
    return {row: _content_hash(source, row) for row in rows}


def _content_hash(source: Source, row: int) -> bytes | None:
    read = getattr(source, "read", None)
    try:
        if read is not None:
            content = read(row)
        else:
            image = source.open(row)
            content = f"{image.mode}{image.size}".encode() + image.tobytes()
    except BrokenImageError:
        return None
    return hashlib.blake2b(content, digest_size=16).digest() if content else None
