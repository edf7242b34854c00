"""Names of splits and targets. Settings that change the test images or labels are part of the name."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LISTS = ("train", "val", "test")
FOLD = re.compile(r"/(kfold(?:-by-image)?\d+)-(\d+)(?=[-/])")  # in a protocol


def split_name(kind: str, settings: Mapping[str, Any]) -> str:
    """Return the name of a split.

    Args:
        kind: Name of the function in agebench.data.split.
        settings: The known keyword arguments of that function.
    """
    if kind == "kfold":
        by_image = "-by-image" if settings.get("by_image") else ""
        return f"kfold{by_image}{settings['k']}-{settings['fold']}"
    if kind == "official" and settings.get("val_from_test"):
        return "official-valtest"
    if kind == "column":
        files = [settings.get("file"), *(settings.get(part) for part in LISTS)]
        stems = [Path(str(file)).stem for file in files if file is not None]
        return "-".join(["column", *dict.fromkeys(stems)])
    return kind


def without_fold(protocol: str) -> tuple[str, int | None]:
    """Return a protocol without the number of its fold, and this number.

    `cacd/kfold5-0/age` gives `cacd/kfold5/age` and 0. A protocol without folds is returned unchanged, with None.
    """
    found = FOLD.search(protocol)
    return (FOLD.sub(r"/\1", protocol, count=1), int(found[2])) if found else (protocol, None)


def capped_name(name: str, per_class: int | None, limit: int | None) -> str:
    """Return the name of a split with its limits on the number of images."""
    caps = (("per", per_class), ("limit", limit))
    return "-".join([name, *(f"{word}{count}" for word, count in caps if count is not None)])


def is_capped(protocol: str) -> bool:
    """Return whether the split of a protocol has a limit on the number of images of a part."""
    return re.search(r"/[^/]*-(per|limit)\d+[-/]", protocol) is not None


def target_name(target: str, bins: Sequence[float] | None) -> str:
    """Return the name of a target. That of `bins` contains the edges."""
    return f"bins-{'-'.join(f'{edge:g}' for edge in bins or ())}" if target == "bins" else target
