"""Named split protocols: which images are in train, val and test.

Each protocol is a function of (records, labels) with settings as keyword arguments. It returns a Split.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agebench.data.protocol import capped_name, split_name
from agebench.data.records import Array, Records
from agebench.data.split_lists import find_listed_parts
from agebench.data.stratify import (
    draw_in_turns,
    draw_per_label,
    has_identities,
    identity_codes,
    identity_folds,
    image_folds,
    take_share,
)
from agebench.errors import UserError
from agebench.identity_groups import is_known
from agebench.schema import Count, InnerShare, Natural, Seed

log = logging.getLogger(__name__)

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Row numbers of each part, int64, ascending.

    Args:
        name: Name of the protocol, as it appears in results.
        train: Training rows, shape (n_train,).
        val: Validation rows, which select the epoch, shape (n_val,).
        test: Test rows, shape (n_test,). None of them is in train.
        val_is_test: Whether a lecture's protocol selects the epoch on the test images, which makes its test metrics
            optimistic.
        test_only: Whether train and val are empty, because the data only tests a model that was trained on other data.
    """

    name: str
    train: Array
    val: Array
    test: Array
    val_is_test: bool = False
    test_only: bool = False

    def part(self, name: str) -> Array:
        """Return the rows of train, val or test."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def test_sha(records: Records, rows: Array) -> str:
    """Return a hash of the names of the test images, 16 hex digits. It does not depend on their order."""
    return names_sha(map(str, records.names[rows].tolist()))


def names_sha(names: Iterable[str]) -> str:
    """Return a hash of the names of images, 16 hex digits. It does not depend on their order."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def official(
    records: Records, labels: Array, *, seed: Seed = 0, val_share: InnerShare = 0.1, val_from_test: bool = False
) -> Split:
    """Return the publisher's parts. Without a published val part, val is a stratified share of train.

    CACD's parts are given by the rank of the person (over 5 train, 1-2 val, 3-5 test), those of MNIST and of image
    folders by the location of the file. With val_from_test, val is the test part, as in some lectures, and train keeps
    all of its images.
    """
    if "part" not in records.columns:
        raise UserError(
            "data/split=official needs parts fixed by the publisher (for CACD: the ranks in celebrity2000_meta.mat or "
            f"celebrity2000.mat), and this data has none: use {_without_parts(records)}"
        )
    split = _published("official", records, labels, seed=seed, val_share=None if val_from_test else val_share)
    if not val_from_test:
        return split
    name = split_name("official", {"val_from_test": True})
    return replace(split, name=name, val=split.test, val_is_test=True)


def _published(name: str, records: Records, labels: Array, *, seed: int, val_share: float | None) -> Split:
    """Return the parts in the column `part`. Without val rows, val is a share of train, unless val_share is None."""
    _check_parts(name, records, ("train", "test"))
    part = records.columns["part"]
    train, val, test = (np.flatnonzero(part == each) for each in PARTS)
    if len(val) == 0 and val_share is not None:
        if absent := _listed_count(records, "val"):
            log.warning(
                "data/split=%s: none of the %s images of the val part is present: val is a random share of train, "
                "which may share identities with train",
                name,
                f"{absent:,}",
            )
        _check_shares(name, val_share=val_share)
        train, val = take_share(train, labels, val_share, np.random.default_rng(seed))
    return Split(name, train, val, test)


def _check_parts(name: str, records: Records, needed: Sequence[str]) -> None:
    """Raise UserError if one of the needed published parts has no image."""
    counts = {part: int((records.columns["part"] == part).sum()) for part in PARTS}
    empty = next((part for part in needed if counts[part] == 0), None)
    if empty is None:
        return
    listed, others = _listed_count(records, empty), [f"{count:,} {part}" for part, count in counts.items() if count]
    reason = f"the data set lists {listed:,} and none of them is present" if listed else "this data lists none"
    raise UserError(
        f"data/split={name} needs {empty} images: {reason}, but {', '.join(others) or 'no image of any part'}; "
        f"use {_without_parts(records)}"
    )


def _without_parts(records: Records) -> str:
    """Return the splits to recommend if the published parts are unavailable. The first one has no leak."""
    identities = records.columns.get("identity", np.array([]))
    enough = len(np.unique(identities[is_known(identities)])) >= 10
    return "data/split=identity, or random, which leaks identities" if enough else "data/split=random"


def _listed_count(records: Records, part: str) -> int:
    """Return the number of images of a part that the data set lists, including those without a file."""
    return int(((records.whole or records).columns["part"] == part).sum())


def train80(records: Records, labels: Array, *, seed: Seed = 0) -> Split:
    """Return CACD's small protocol: 80 people with clean labels for train and val (a tenth of them), 120 for test."""
    if "part" not in records.columns or "identity" not in records.columns:
        raise UserError("data/split=train80 needs CACD's ranks and identities: use data/split=identity")
    _check_parts("train80", records, ("val", "test"))
    part = records.columns["part"]
    clean, test = np.flatnonzero(part == "val"), np.flatnonzero(part == "test")
    groups, _ = identity_codes(records)
    order = np.random.default_rng(seed).permutation(np.unique(groups[clean]))
    in_val = np.isin(groups[clean], order[: max(1, round(len(order) / 10))])
    return Split("train80", clean[~in_val], clean[in_val], test)


def random(
    records: Records, labels: Array, *, seed: Seed = 0, val_share: InnerShare = 0.1, test_share: InnerShare = 0.1
) -> Split:
    """Return a random split of images, stratified by label. Most identities are then both in train and in test."""
    _check_shares("random", val_share=val_share, test_share=test_share)
    rng = np.random.default_rng(seed)
    rest, test = take_share(np.arange(len(records)), labels, test_share, rng)
    train, val = take_share(rest, labels, val_share / (1 - test_share), rng)
    return Split("random", train, val, test)


def lecture(
    records: Records, labels: Array, *, seed: Seed = 42, per_label: Count = 200, test_share: InnerShare = 0.2
) -> Split:
    """Return the age lecture's split: per_label random images of each decade, 80/20 within each decade; val is test.

    Without ages, per_label images of each label are drawn. The 80/20 split is scikit-learn's train_test_split, as in
    the lecture. It splits by image, so identities are both in train and in test.
    """
    from sklearn.model_selection import train_test_split

    _check_shares("lecture", test_share=test_share)
    rng = np.random.default_rng(seed)
    train: list[Array] = []
    test: list[Array] = []
    # The lecture draws by decade for every target.
    groups, kind = (records.columns["age"] // 10, "decade") if "age" in records.columns else (labels, "label")
    counts = dict(zip(*(each.tolist() for each in np.unique(groups, return_counts=True)), strict=True))
    _warn_of_small_groups(counts, kind, per_label)
    for group in counts:
        rows = np.flatnonzero(groups == group)
        rows = np.sort(rng.permutation(rows)[:per_label])
        if len(rows) < 2:
            raise UserError(
                f"data/split=lecture needs at least 2 images of every {kind}, {kind} {group} has {len(rows)}"
            )
        a, b = train_test_split(rows, test_size=test_share, random_state=seed)
        train.append(a)
        test.append(b)
    tested = np.sort(np.concatenate(test))
    return Split("lecture", np.sort(np.concatenate(train)), tested, tested, val_is_test=True)


def _warn_of_small_groups(counts: dict[int, int], kind: str, per_label: Count) -> None:
    """Warn if decades or labels have fewer images than per_label."""
    small = {group: count for group, count in counts.items() if count < per_label}
    if not small:
        return
    decades = ", ".join(f"{10 * group}s {count:,}" for group, count in small.items())
    log.warning(
        "data/split=lecture: %s fewer than the %s images of the protocol (%s); %s of %s are used",
        f"{len(small)} of {len(counts)} {kind}s {'has' if len(small) == 1 else 'have'}",
        f"{per_label:,}",
        decades if kind == "decade" else f"the smallest {min(small.values()):,}",
        f"{sum(min(count, per_label) for count in counts.values()):,}",
        f"{per_label * len(counts):,}",
    )


def subset(
    records: Records, labels: Array, *, seed: Seed = 0, train: Count = 10_000, val: Count = 2_000, test: Count = 10_000
) -> Split:
    """Return a fixed number of random images for each part, as in the hiragana notebook. The rest is not used.

    If the data has fewer images, all three parts shrink in proportion.
    """
    wanted = np.array([train, val, test])
    share = min(1.0, len(records) / wanted.sum())
    counts = np.floor(wanted * share).astype(int)
    if counts.min() < 1:
        raise UserError(f"data/split=subset needs at least one image per part, got {len(records)} images")
    if share < 1:
        log.warning(
            "data/split=subset: %s images are fewer than the %s of the protocol; train, val and test shrink to %s",
            f"{len(records):,}",
            f"{wanted.sum():,}",
            " / ".join(f"{count:,}" for count in counts),
        )
    order = np.random.default_rng(seed).permutation(len(records))
    a, b, c = (np.sort(rows) for rows in np.split(order[: counts.sum()], np.cumsum(counts)[:-1]))
    return Split("subset", a, b, c)


def identity(
    records: Records, labels: Array, *, seed: Seed = 0, val_share: InnerShare = 0.1, test_share: InnerShare = 0.1
) -> Split:
    """Return a random split in which each identity (person or page) is in one part; stratified by label if possible."""
    _check_shares("identity", val_share=val_share, test_share=test_share)
    folds = identity_folds(records, labels, seed=seed, k=_fold_count(val_share, test_share))
    count = len(np.unique(folds))
    tests = max(1, round(test_share * count))
    vals = max(1, round(val_share * count))
    test = np.flatnonzero(folds < tests)
    val = np.flatnonzero((folds >= tests) & (folds < tests + vals))
    return Split("identity", np.flatnonzero(folds >= tests + vals), val, test)


def _fold_count(*shares: float) -> int:
    """Return the smallest number of equal folds, from 3 to 20, that can form the shares within 0.01."""
    off = {k: max(abs(share * k - max(1, round(share * k))) / k for share in shares) for k in range(3, 21)}
    return next((k for k, worst in off.items() if worst < 0.01), min(off, key=lambda k: off[k]))


def kfold(records: Records, labels: Array, *, seed: Seed = 0, k: Count = 5, fold: Natural = 0) -> Split:
    """Return a split of identities into k folds: `fold` is test, the next one is val, the rest is train.

    If no identity is known, the images are split into stratified folds, and the name of the split says so.
    """
    if not 0 <= fold < k or k < 3:
        raise UserError(f"data/split=kfold needs k >= 3 and 0 <= fold < k, got k={k} and fold={fold}")
    by_image = not has_identities(records)
    if by_image:
        log.warning(
            "data/split=kfold: this data has no identities, so it is split by image (kfold-by-image); the same person "
            "may be in train and in test"
        )
    folds = image_folds(labels, seed=seed, k=k) if by_image else identity_folds(records, labels, seed=seed, k=k)
    val = (fold + 1) % k
    train = np.flatnonzero((folds != fold) & (folds != val))
    name = split_name("kfold", {"k": k, "fold": fold, "by_image": by_image})
    return Split(name, train, np.flatnonzero(folds == val), np.flatnonzero(folds == fold))


def column(
    records: Records,
    labels: Array,
    *,
    seed: Seed = 0,
    file: str | None = None,
    train: str | None = None,
    val: str | None = None,
    test: str | None = None,
    val_share: InnerShare = 0.1,
) -> Split:
    """Return the parts in the `split` column of the data, in one CSV file for all parts, or in one file per part.

    The split.csv of a run is a CSV file for all parts. If val and test list the same images, as in a run of some
    lectures, val is test. Images that no list names are in no part.

    Args:
        records: N records.
        labels: Label of each record, int64, shape (N,).
        seed: Random seed of the val rows that are drawn from train if there is no list of val.
        file: CSV file with the columns `name` and `part`, see agebench.data.split_lists.read_parts.
        train: List of the train images, see agebench.data.split_lists.read_names.
        val: List of the val images; without it, val is a stratified share of train.
        test: List of the test images.
        val_share: The share of train that becomes val.
    """
    lists = {part: path for part, path in zip(PARTS, (train, val, test), strict=True) if path is not None}
    if file is None and not lists:
        if not records.own_parts:
            raise UserError(
                "data/split=column needs your own lists: data.split.file=LIST.csv, or data.split.train=FILE and "
                "data.split.test=FILE (a table may have a column split instead); for the publisher's parts use official"
            )
        return _published("column", records, labels, seed=seed, val_share=val_share)
    rows, val_is_test = find_listed_parts(records.names, file, lists)
    if len(rows["val"]) == 0:
        _check_shares("column", val_share=val_share)
        rows["train"], rows["val"] = take_share(rows["train"], labels, val_share, np.random.default_rng(seed))
    name = split_name("column", {"file": file, "train": train, "val": val, "test": test})
    return Split(name, rows["train"], rows["val"], rows["test"], val_is_test)


def test_only(records: Records, labels: Array) -> Split:
    """Return a split in which every image is a test image, for a model that was trained on other data.

    It cannot be trained on.
    """
    none = np.array([], dtype=np.int64)
    return Split("test_only", none, none, np.arange(len(records)), test_only=True)


def cap(split: Split, labels: Array, *, per_class: int | None, limit: int | None) -> Split:
    """Return a split with at most per_class train images of each label, and at most `limit` images of each part."""
    rng = np.random.default_rng(0)
    name, train = capped_name(split.name, per_class, limit), split.train
    if per_class is not None and len(train):
        train = draw_per_label(train, labels, per_class, rng)
    if limit is None:
        return replace(split, name=name, train=train)
    val, test = (draw_in_turns(rows, labels, limit, rng) for rows in (split.val, split.test))
    train = draw_in_turns(train, labels, limit, rng)
    return replace(split, name=name, train=train, val=test if split.val_is_test else val, test=test)


def check(split: Split) -> None:
    """Raise UserError if a part is empty, or if a val or test image is also in train."""
    for part in ("test",) if split.test_only else PARTS:
        if len(split.part(part)) == 0:
            raise UserError(f"data/split={split.name} leaves no image in {part}: use more data or another split")
    if split.test_only:
        return
    in_train = np.zeros(1 + max(int(split.part(part).max()) for part in PARTS), dtype=bool)
    in_train[split.train] = True
    for part in ("val", "test"):
        rows = split.part(part)
        shared = len(np.unique(rows[in_train[rows]]))
        if shared:
            images = "image is" if shared == 1 else "images are"
            raise UserError(
                f"data/split={split.name}: {shared:,} {images} in train and in {part}; a split must not share any"
            )


def _check_shares(name: str, **shares: float) -> None:
    if min(shares.values()) <= 0 or sum(shares.values()) >= 1:
        got = ", ".join(f"{share}={value}" for share, value in shares.items())
        raise UserError(f"data/split={name} needs shares above 0 that leave images for train, got {got}")
