"""What a split leaks: how far one gets by knowing who is in a test image, and never seeing a pixel."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from agebench.data.records import Array, Records
from agebench.data.split import PARTS, Split
from agebench.data.target import Target

HELPS = 0.9  # a lookup with less than this share of the baseline's error is one that helps


def audit(records: Records, target: Target, split: Split) -> dict[str, Any]:
    """Count what the parts of a split share, opening no image.

    A lookup predicts the median train value, for accuracy the most common train label, of whoever is in a test image;
    of all of train where train has nobody of that name. The baseline does the latter for every image.

    Args:
        records: N records; without a column `identity` everything that needs one is None.
        target: Their labels.
        split: Rows of those records; no part is empty.

    Returns:
        Plain data for JSON: `splits` (of each part its `images`, `identities` and `labels`, distinct ones),
        `{test,val}_identity_in_train` and `{test,val}_identity_and_label_in_train` (shares of the part's images),
        `lookup_mae` and `median_mae` (in `unit`; None for classes), `lookup_accuracy` and `majority_accuracy`, `unit`.
    """
    known = "identity" in records.columns
    who = np.unique(records.columns["identity"], return_inverse=True)[1] if known else np.zeros(len(records), dtype=int)
    pairs = who * target.num_labels + target.labels  # (N,): one code for an identity with a label
    found: dict[str, Any] = {"splits": {part: _count(who, target, split.part(part), known=known) for part in PARTS}}
    for part in ("test", "val"):
        rows = split.part(part)
        for name, codes in (("identity", who), ("identity_and_label", pairs)):
            share = float(np.isin(codes[rows], codes[split.train]).mean()) if known else None
            found[f"{part}_{name}_in_train"] = share

    nobody = np.zeros_like(who)  # the baseline is the lookup of those who take everybody for the same
    actual = target.values[target.labels]
    for name, groups in (("lookup", who if known else None), ("median", nobody)):
        guess = None if groups is None or not target.ordered else _medians(groups, actual, split)
        found[f"{name}_mae"] = None if guess is None else float(np.abs(guess - actual[split.test]).mean())
    for name, groups in (("lookup", who if known else None), ("majority", nobody)):
        guess = None if groups is None else _most_common(groups, target, split)
        found[f"{name}_accuracy"] = None if guess is None else float((guess == target.labels[split.test]).mean())
    return {**found, "unit": target.unit}


def verdict(audited: Mapping[str, Any]) -> str:
    """Say in one sentence what an audit means for a test figure."""
    share = audited["test_identity_in_train"]
    if share is None:
        return "cannot tell: this data does not say who is in each image, so the same ones may be in train and in test"
    if share == 0:
        clean = f"clean: none of the {audited['splits']['test']['identities']:,} identities of test is in train"
        of_val = audited["val_identity_in_train"]
        if of_val == 0:
            return clean
        return f"{clean}; but {_percent(of_val)} of the val images are of one that is, so val looks better than test"
    both = _percent(audited["test_identity_and_label_in_train"])
    shared = (
        f"{_percent(share)} of the test images are of an identity that is in train, {both} even with the same label"
    )
    figures, near = _figures(audited)
    if not _helps(audited):
        return f"shares identities, but knowing them helps little: {shared}, and looking them up scores {figures}"
    return (
        f"leaks: {shared}, and whoever looks that identity up and never sees a pixel scores {figures}, "
        f"so a test figure near {near} is no skill"
    )


def leak(audited: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a run's results say of a leak; None if no identity of test is in train, or none is known."""
    if not audited["test_identity_in_train"]:
        return None
    names = ("test_identity_in_train", "test_identity_and_label_in_train", "lookup_mae", "median_mae")
    return {name: audited[name] for name in (*names, "lookup_accuracy", "majority_accuracy", "unit")}


def _count(who: Array, target: Target, rows: Array, *, known: bool) -> dict[str, int | None]:
    identities = len(np.unique(who[rows])) if known else None
    return {"images": len(rows), "identities": identities, "labels": len(np.unique(target.labels[rows]))}


def _medians(groups: Array, values: Array, split: Split) -> Array:
    """Return each test image's median over the train values of its group, float64, shape (n_test,)."""
    order = split.train[np.lexsort((values[split.train], groups[split.train]))]
    names, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
    ordered = values[order]
    medians = (ordered[starts + (counts - 1) // 2] + ordered[starts + counts // 2]) / 2
    return _look_up(groups[split.test], names, medians, otherwise=np.median(ordered))


def _most_common(groups: Array, target: Target, split: Split) -> Array:
    """Return each test image's most common train label of its group, the lower of two, int64, shape (n_test,)."""
    labels = target.labels[split.train]
    codes, counts = np.unique(groups[split.train] * target.num_labels + labels, return_counts=True)
    first = codes[np.lexsort((codes, -counts, codes // target.num_labels))]  # by group, then how common, then label
    names, starts = np.unique(first // target.num_labels, return_index=True)
    most = (first % target.num_labels)[starts]
    return _look_up(groups[split.test], names, most, otherwise=np.bincount(labels).argmax())


def _look_up(wanted: Array, names: Array, answers: Array, *, otherwise: Any) -> Array:
    """Return the answer under each wanted name; `names` are ascending and at least one."""
    at = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
    return np.where(names[at] == wanted, answers[at], otherwise)


def _helps(audited: Mapping[str, Any]) -> bool:
    """Return whether the lookup is clearly less wrong than the baseline, by either metric."""
    pairs = [(1 - audited["lookup_accuracy"], 1 - audited["majority_accuracy"])]
    if audited["lookup_mae"] is not None:
        pairs.append((audited["lookup_mae"], audited["median_mae"]))
    return any(lookup < HELPS * baseline for lookup, baseline in pairs)


def _figures(audited: Mapping[str, Any]) -> tuple[str, str]:
    """Return the lookup's figures beside the baseline's, and the lookup's alone."""
    unit, parts, near = audited["unit"], [], []
    if audited["lookup_mae"] is not None:
        near.append(f"{audited['lookup_mae']:.2f}")
        parts.append(f"MAE {near[-1]} {unit} (the median of train: {audited['median_mae']:.2f})")
    if unit != "years":  # an exact year is too much to ask: its accuracy says little
        near.append(f"{audited['lookup_accuracy']:.3f}")
        parts.append(f"accuracy {near[-1]} (the most common label: {audited['majority_accuracy']:.3f})")
    return " and ".join(parts), " or ".join(near)


def _percent(share: float) -> str:
    """Write a share so that some are never none, nor nearly all of them all."""
    if 0 < share < 0.0005:
        return "under 0.1%"
    if 0.9995 <= share < 1:
        return "over 99.9%"
    return f"{share:.1%}" if 0 < share < 1 else f"{share:.0%}"
