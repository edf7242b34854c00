"""Leakage of a split: the identities that its parts share, and the test metrics of an identity lookup."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from agebench.data.records import Array, Records
from agebench.data.split import PARTS, Split
from agebench.data.target import Target
from agebench.identity_groups import factorize, group_codes, is_known

UNKNOWN_PEOPLE = "the identities of the people are unknown, so the same person may be in train and test"
HELPS = 0.9  # the lookup helps if its error is below this share of the error of the baseline


def audit(records: Records, target: Target, split: Split) -> dict[str, Any]:
    """Measure the identities that the parts of a split share, without opening an image.

    The identity lookup predicts the median train value of the test image's identity; for the accuracy, it predicts the
    most common train label of that identity. If the identity is not in train, it uses all train images. The baseline
    always uses all train images. Each image of unknown identity is a separate identity.

    Args:
        records: N records. If no identity is known, each result that needs one is None.
        target: The labels of the records.
        split: Rows of the records. Without train images, each result that needs one is None.

    Returns:
        Plain data for JSON: `splits` (`images`, `identities` and `labels` of each part, the last two distinct),
        `{test,val}_identity_in_train` and `{test,val}_identity_and_label_in_train` (shares of the part's images),
        `lookup_mae` and `median_mae` (in `unit`; None for classes), `lookup_accuracy` and `majority_accuracy`, `unit`.
    """
    identities = records.columns.get("identity")
    known = identities is not None and bool(is_known(identities).any())
    groups, _ = group_codes(identities, len(records))
    pairs = groups * target.num_labels + target.labels  # (N,): one code for each pair of identity and label
    found: dict[str, Any] = {"splits": {part: _count(groups, target, split.part(part), known=known) for part in PARTS}}
    trains = len(split.train) > 0
    for part in ("test", "val"):
        rows = split.part(part)
        for name, codes in (("identity", groups), ("identity_and_label", pairs)):
            share = float(np.isin(codes[rows], codes[split.train]).mean()) if known and trains else None
            found[f"{part}_{name}_in_train"] = share

    one_group = np.zeros_like(groups)  # the baseline is a lookup with one identity for all images
    actual = target.values[target.labels[split.test]]
    for name, each in (("lookup", groups if known else None), ("median", one_group)):
        guess = None if each is None or not target.ordered or not trains else _medians(each, target, split)
        found[f"{name}_mae"] = None if guess is None else float(np.abs(guess - actual).mean())
    for name, each in (("lookup", groups if known else None), ("majority", one_group)):
        guess = None if each is None or not trains else _most_common(each, target, split)
        found[f"{name}_accuracy"] = None if guess is None else float((guess == target.labels[split.test]).mean())
    return {**found, "unit": target.unit}


def describe(records: Records, split: Split) -> dict[str, Any]:
    """Return `ages` and `groups` of audit.json: who the images of all parts show.

    Args:
        records: N records. Without ages, `ages` is None.
        split: Rows of the records.

    Returns:
        Plain data for JSON: `ages` (`images`, and `youngest`, `oldest` and `median` in years) and, for each column of
        groups, the number of `train`, `val` and `test` images of each group.
    """
    used = np.unique(np.concatenate([split.part(part) for part in PARTS]))
    years = records.columns["age"][used] if "age" in records.columns else None
    ages = None
    if years is not None:
        ages = {
            "images": len(used),
            "youngest": int(years.min()),
            "oldest": int(years.max()),
            "median": float(np.median(years)),
        }
    groups: dict[str, dict[str, dict[str, int]]] = {}
    for column, cells in records.groups.items():
        names, codes = factorize(cells)
        counts = {part: np.bincount(codes[split.part(part)], minlength=len(names)).tolist() for part in PARTS}
        groups[column] = {name: {part: counts[part][i] for part in PARTS} for i, name in enumerate(names.tolist())}
    return {"ages": ages, "groups": groups}


def verdict(audited: Mapping[str, Any]) -> str:
    """Return one sentence about the meaning of an audit for the test metrics.

    Args:
        audited: The result of `audit`, with `duplicates` of agebench.leakage.duplicates if they were searched for.
    """
    by_identity = _verdict_by_identity(audited)
    copies = audited.get("duplicates") or {}
    in_train = {part: copies.get(f"{part}_in_train", 0) for part in ("test", "val")}
    shares = [f"{n:,} of the {audited['splits'][part]['images']:,} {part} images" for part, n in in_train.items() if n]
    if in_train["test"]:
        return f"leaks: {' and '.join(shares)} are identical to a train image; by identity, {by_identity}"
    if shares:
        return f"val leaks: {shares[0]} are identical to a train image; by identity, {by_identity}"
    if pairs := copies.get("pairs_across", 0):
        return f"val and test share images (pairs of identical images: {pairs:,}); by identity, {by_identity}"
    return by_identity


def _verdict_by_identity(audited: Mapping[str, Any]) -> str:
    share = audited["test_identity_in_train"]
    if share is None and audited["splits"]["train"]["images"] == 0:
        return "no train images: `evaluate` compares the test images with those that a run was trained on"
    if share is None:
        return "leak unknown: this data set has no identities, so train and test may share people"
    if share == 0:
        clean = f"clean: none of the {audited['splits']['test']['identities']:,} identities of test is in train"
        of_val = audited["val_identity_in_train"]
        if of_val == 0:
            return clean
        return f"{clean}; but {_percent(of_val)} of the val images show one that is, so val looks better than test"
    both = _percent(audited["test_identity_and_label_in_train"])
    shared = (
        f"{_percent(share)} of the test images are of an identity that is in train, {both} even with the same label"
    )
    metrics, near = _metrics(audited)
    if not _helps(audited):
        return f"shares identities, but an identity lookup helps little: {shared}, and the lookup scores {metrics}"
    return (
        f"leaks: {shared}, and an identity lookup, which sees no pixel, scores {metrics}, "
        f"so a test metric near {near} shows no skill"
    )


def leak(audited: dict[str, Any]) -> dict[str, Any] | None:
    """Return `leak` of results.json; None if no identity of test is in train, or no identity is known."""
    if not audited["test_identity_in_train"]:
        return None
    names = ("test_identity_in_train", "test_identity_and_label_in_train", "lookup_mae", "median_mae")
    return {name: audited[name] for name in (*names, "lookup_accuracy", "majority_accuracy", "unit")}


def _count(groups: Array, target: Target, rows: Array, *, known: bool) -> dict[str, int | None]:
    identities = len(np.unique(groups[rows])) if known else None
    return {"images": len(rows), "identities": identities, "labels": len(np.unique(target.labels[rows]))}


def _medians(groups: Array, target: Target, split: Split) -> Array:
    """Return the median train value of each test image's group, float64, shape (n_test,)."""
    # Values ascend with the labels, so that pairs sorted by group and label are sorted by group and value.
    pairs = np.sort(groups[split.train] * target.num_labels + target.labels[split.train])
    of, values = pairs // target.num_labels, target.values[pairs % target.num_labels]
    starts, counts = _runs(of)
    medians = (values[starts + (counts - 1) // 2] + values[starts + counts // 2]) / 2
    return _look_up(groups[split.test], of[starts], medians, default=np.median(values))


def _most_common(groups: Array, target: Target, split: Split) -> Array:
    """Return the most common train label of each test image's group, int64, shape (n_test,); ties: the lowest."""
    pairs = np.sort(groups[split.train] * target.num_labels + target.labels[split.train])
    starts, counts = _runs(pairs)
    of, labels = np.divmod(pairs[starts], target.num_labels)
    group_starts, sizes = _runs(of)
    most = np.maximum.reduceat(counts, group_starts)
    candidates = np.flatnonzero(counts == np.repeat(most, sizes))  # at least one label of each group, ascending
    first = candidates[_runs(of[candidates])[0]]
    overall = np.bincount(target.labels[split.train]).argmax()
    return _look_up(groups[split.test], of[first], labels[first], default=overall)


def _runs(ascending: Array) -> tuple[Array, Array]:
    """Return the start and the count of each distinct value of a sorted array with at least one value."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ascending)) + 1])
    return starts, np.diff(np.append(starts, len(ascending)))


def _look_up(groups: Array, known: Array, values: Array, *, default: Any) -> Array:
    """Return the value of each group, or the default. `known` are the groups with a value, ascending, not empty."""
    at = np.minimum(np.searchsorted(known, groups), len(known) - 1)
    return np.where(known[at] == groups, values[at], default)


def _helps(audited: Mapping[str, Any]) -> bool:
    """Return whether the lookup is clearly better than the baseline in one of the metrics."""
    pairs = [(1 - audited["lookup_accuracy"], 1 - audited["majority_accuracy"])]
    if audited["lookup_mae"] is not None:
        pairs.append((audited["lookup_mae"], audited["median_mae"]))
    return any(lookup < HELPS * baseline for lookup, baseline in pairs)


def _metrics(audited: Mapping[str, Any]) -> tuple[str, str]:
    """Return the metrics of the lookup and the baseline as text, and those of the lookup alone."""
    unit, parts, near = audited["unit"], [], []
    if audited["lookup_mae"] is not None:
        near.append(f"{audited['lookup_mae']:.2f}")
        parts.append(f"MAE {near[-1]} {unit} (the median of train: {audited['median_mae']:.2f})")
    if unit != "years":  # the accuracy of exact years is always low
        near.append(f"{audited['lookup_accuracy']:.3f}")
        parts.append(f"accuracy {near[-1]} (the most common label: {audited['majority_accuracy']:.3f})")
    return " and ".join(parts), " or ".join(near)


def _percent(share: float) -> str:
    """Return a share as text. Only 0 is printed as 0%, and only 1 as 100%."""
    if 0 < share < 0.0005:
        return "under 0.1%"
    if 0.9995 <= share < 1:
        return "over 99.9%"
    return f"{share:.1%}" if 0 < share < 1 else f"{share:.0%}"
