"""Who is in train, val and test: named protocols, worked out from records and labels alone.

Every split takes (records, labels) first and its own settings by keyword, and returns row numbers of those records.
"""

import hashlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agebench.data.protocol import capped_name, split_name
from agebench.data.records import Array, Records
from agebench.data.split_lists import find_rows, read_names, read_parts
from agebench.errors import UserError

log = logging.getLogger(__name__)

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Row numbers of each part, int64, ascending.

    Args:
        name: The protocol's name, as it appears in results.
        train: Rows that are learnt from, shape (n_train,).
        val: Rows that choose the epoch, shape (n_val,).
        test: Rows that are reported, shape (n_test,). None of them is in train.
        val_is_test: True if a lecture's protocol picks its epoch on the test images, so its figure is optimistic.
    """

    name: str
    train: Array
    val: Array
    test: Array
    val_is_test: bool = False

    def part(self, name: str) -> Array:
        """Return the rows of train, val or test."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def test_sha(records: Records, rows: Array) -> str:
    """Return 16 hex digits that stand for a list of test images, whatever their order."""
    names = sorted(str(name) for name in records.names[rows])
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def official(
    records: Records, labels: Array, *, seed: int = 0, val_share: float = 0.1, val_from_test: bool = False
) -> Split:
    """Follow the data set's publisher; where it names no val part, take a stratified share of train, seeded.

    With val_from_test, val is the test part, as some lectures have it, and no image of train is given up for it. CACD's
    parts come from its ranks (over 5 train, 1-2 val, 3-5 test); MNIST's and a folder's from where the file lies.
    """
    if "part" not in records.columns:
        raise UserError(
            "data/split=official needs parts fixed by the publisher (for CACD: the ranks in celebrity2000_meta.mat or "
            f"celebrity2000.mat), and this data names none: use {_without_parts(records)}"
        )
    split = _published("official", records, labels, seed=seed, val_share=None if val_from_test else val_share)
    if not val_from_test:
        return split
    name = split_name("official", {"val_from_test": True})
    return replace(split, name=name, val=split.test, val_is_test=True)


def _published(name: str, records: Records, labels: Array, *, seed: int, val_share: float | None) -> Split:
    """Follow the column `part`; where it has no val, take a share of train, unless that is None."""
    _check_parts(name, records, ("train", "test"))
    part = records.columns["part"]
    train, val, test = (np.flatnonzero(part == each) for each in PARTS)
    if len(val) == 0 and val_share is not None:
        if gone := _marked(records, "val"):
            log.warning(
                "data/split=%s: none of the %s images marked val is there: a share of train is val, whoever is in it",
                name,
                f"{gone:,}",
            )
        _check_shares(name, val_share=val_share)
        train, val = _take_share(train, labels, val_share, np.random.default_rng(seed))
    return Split(name, train, val, test)


def _check_parts(name: str, records: Records, needed: Sequence[str]) -> None:
    """Raise UserError if no image at hand is in one of the publisher's parts that a split needs."""
    has = {part: int((records.columns["part"] == part).sum()) for part in PARTS}
    empty = next((part for part in needed if has[part] == 0), None)
    if empty is None:
        return
    marked, there = _marked(records, empty), ", ".join(f"{count:,} {part}" for part, count in has.items() if count)
    told = f"the data set marks {marked:,} and none of them is there" if marked else "this data marks none"
    raise UserError(
        f"data/split={name} needs {empty} images: {told}, but {there or 'no image of any part'}; "
        f"use {_without_parts(records)}"
    )


def _without_parts(records: Records) -> str:
    """Return the splits to advise where the publisher's parts cannot be had, one that does not leak first."""
    people = len(np.unique(records.columns["identity"])) if "identity" in records.columns else 0
    return "data/split=identity, or random, which leaks people" if people >= 10 else "data/split=random"


def _marked(records: Records, part: str) -> int:
    """Return how many images of a part the data set lists, those that are not there included."""
    return int(((records.whole or records).columns["part"] == part).sum())


def train80(records: Records, labels: Array, *, seed: int = 0) -> Split:
    """CACD's small protocol: learn from the 80 cleaned people of val, test on the 120; a tenth of the 80 is val."""
    if "part" not in records.columns or "identity" not in records.columns:
        raise UserError("data/split=train80 needs CACD's ranks and identities: use data/split=identity")
    _check_parts("train80", records, ("val", "test"))
    part = records.columns["part"]
    clean, test = np.flatnonzero(part == "val"), np.flatnonzero(part == "test")
    groups = _group_codes(records)
    order = np.random.default_rng(seed).permutation(np.unique(groups[clean]))
    held = np.isin(groups[clean], order[: max(1, round(len(order) / 10))])
    return Split("train80", clean[~held], clean[held], test)


def random(records: Records, labels: Array, *, seed: int = 0, val_share: float = 0.1, test_share: float = 0.1) -> Split:
    """Split images at random, stratified by label; with people in the data, most of them end up on both sides."""
    _check_shares("random", val_share=val_share, test_share=test_share)
    rng = np.random.default_rng(seed)
    rest, test = _take_share(np.arange(len(records)), labels, test_share, rng)
    train, val = _take_share(rest, labels, val_share / (1 - test_share), rng)
    return Split("random", train, val, test)


def lecture(records: Records, labels: Array, *, seed: int = 42, per_label: int = 200, test_share: float = 0.2) -> Split:
    """The age lecture's recipe: so many images a decade at random, 80/20 within each; its val IS its test.

    Where no ages are known it is so many a label. The 80/20 cut is scikit-learn's train_test_split, as in the lecture,
    image by image: people are on both sides.
    """
    from sklearn.model_selection import train_test_split

    _check_shares("lecture", test_share=test_share)
    rng = np.random.default_rng(seed)
    train: list[Array] = []
    test: list[Array] = []
    # Whatever is learnt of them, the images are the lecture's.
    groups, kind = (records.columns["age"] // 10, "decade") if "age" in records.columns else (labels, "label")
    counts = dict(zip(*(each.tolist() for each in np.unique(groups, return_counts=True)), strict=True))
    if fewer := {group: count for group, count in counts.items() if count < per_label}:
        decades = ", ".join(f"{10 * g}s {count:,}" for g, count in fewer.items())
        log.warning(
            "data/split=lecture: %s fewer than the %s images that it wants (%s); %s of %s are used",
            f"{len(fewer)} of {len(counts)} {kind}s {'has' if len(fewer) == 1 else 'have'}",
            f"{per_label:,}",
            decades if kind == "decade" else f"the least {min(fewer.values()):,}",
            f"{sum(min(count, per_label) for count in counts.values()):,}",
            f"{per_label * len(counts):,}",
        )
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
    held = np.sort(np.concatenate(test))
    return Split("lecture", np.sort(np.concatenate(train)), held, held, val_is_test=True)


def subset(
    records: Records, labels: Array, *, seed: int = 0, train: int = 10_000, val: int = 2_000, test: int = 10_000
) -> Split:
    """Draw so many images for each part at random, as the hiragana notebook does; the rest stays unused.

    If the data has fewer images, all three shrink in proportion.
    """
    wanted = np.array([train, val, test])
    share = min(1.0, len(records) / wanted.sum())
    counts = np.floor(wanted * share).astype(int)
    if counts.min() < 1:
        raise UserError(f"data/split=subset needs at least one image a part, {len(records)} images are too few")
    if share < 1:
        log.warning(
            "data/split=subset: %s images are fewer than the %s it wants; train, val and test shrink to %s",
            f"{len(records):,}",
            f"{wanted.sum():,}",
            " / ".join(f"{count:,}" for count in counts),
        )
    order = np.random.default_rng(seed).permutation(len(records))
    a, b, c = (np.sort(rows) for rows in np.split(order[: counts.sum()], np.cumsum(counts)[:-1]))
    return Split("subset", a, b, c)


def identity(
    records: Records, labels: Array, *, seed: int = 0, val_share: float = 0.1, test_share: float = 0.1
) -> Split:
    """Split people (or pages) at random, so that nobody is on two sides, with labels as even as that allows."""
    _check_shares("identity", val_share=val_share, test_share=test_share)
    folds = _folds(records, labels, seed, _fineness(val_share, test_share))
    count = len(np.unique(folds))
    tests = max(1, round(test_share * count))
    vals = max(1, round(val_share * count))
    test = np.flatnonzero(folds < tests)
    val = np.flatnonzero((folds >= tests) & (folds < tests + vals))
    return Split("identity", np.flatnonzero(folds >= tests + vals), val, test)


def _fineness(*shares: float) -> int:
    """Return the smallest number of folds, from 3 to 20, of which whole ones make up the shares to a hundredth."""
    off = {k: max(abs(share * k - max(1, round(share * k))) / k for share in shares) for k in range(3, 21)}
    return next((k for k, worst in off.items() if worst < 0.01), min(off, key=lambda k: off[k]))


def kfold(records: Records, labels: Array, *, seed: int = 0, k: int = 5, fold: int = 0) -> Split:
    """Cut people into k folds: `fold` is test, the next one val, the rest train."""
    if not 0 <= fold < k or k < 3:
        raise UserError(f"data/split=kfold needs k >= 3 and 0 <= fold < k, got k={k} and fold={fold}")
    folds = _folds(records, labels, seed, k)
    val = (fold + 1) % k
    rest = np.flatnonzero((folds != fold) & (folds != val))
    return Split(
        split_name("kfold", {"k": k, "fold": fold}), rest, np.flatnonzero(folds == val), np.flatnonzero(folds == fold)
    )


def column(
    records: Records,
    labels: Array,
    *,
    seed: int = 0,
    file: str | None = None,
    train: str | None = None,
    val: str | None = None,
    test: str | None = None,
    val_share: float = 0.1,
) -> Split:
    """Follow lists of one's own: the data's `split` column, one CSV file for all parts, or a file for each part.

    The split.csv of a run is such a file; images that it lists both in val and in test, as some lectures' runs do, are
    in both again. Images that no list names are in no part.

    Args:
        records: N records.
        labels: Of each record, int64, shape (N,).
        seed: Decides which images of train become val where nothing lists any.
        file: A CSV file with a column for the name and one for the part.
        train: A list of the train images: a name a line, or a CSV file. `val` and `test` likewise.
        val: May be left out.
        test: Of the test images.
        val_share: The share of train that becomes val where nothing lists any.
    """
    files = {part: path for part, path in zip(PARTS, (train, val, test), strict=True) if path is not None}
    if file is not None and files:
        raise UserError("data/split=column takes data.split.file for all parts, or a list for each: not both")
    if file is None and not files:
        if not records.own_parts:
            raise UserError(
                "data/split=column needs lists of your own: data.split.file=LIST.csv, or data.split.train=FILE and "
                "data.split.test=FILE (a table may have a column split instead); the publisher's parts are official"
            )
        return _published("column", records, labels, seed=seed, val_share=val_share)
    if file is not None:
        listed, files = read_parts(file), dict.fromkeys(PARTS, file)
        if unknown := sorted(listed.keys() - set(PARTS)):
            raise UserError(f"{file}: part must be train, val or test, got {', '.join(unknown[:3])}")
    else:
        if missing := sorted({"train", "test"} - files.keys()):
            raise UserError(f"data/split=column with a list for each part needs data.split.{missing[0]}=FILE too")
        listed = {part: read_names(path) for part, path in files.items()}
    told = ", ".join(dict.fromkeys(map(str, files.values())))
    found, lost = find_rows(listed, records.names)
    rows = {part: found.get(part, np.array([], dtype=np.int64)) for part in PARTS}
    for part in ("train", "test"):
        if len(rows[part]) == 0:
            raise _no_match(part, files[part], listed, records, by_column=file is not None)
    if lost:
        images, are = ("image", "is") if len(lost) == 1 else ("images", "are")
        log.warning("%s %s that %s lists %s not in this data, such as %s", f"{len(lost):,}", images, told, are, lost[0])
    val_is_test = np.array_equal(rows["val"], rows["test"])
    for first, second in (("train", "test"), ("train", "val"), ("val", "test")):
        shared = np.intersect1d(rows[first], rows[second])
        if len(shared) and not (val_is_test and first == "val"):
            where = " and ".join(dict.fromkeys(str(files[part]) for part in (first, second)))
            images = "image is" if len(shared) == 1 else "images are"
            raise UserError(
                f"{where}: {len(shared):,} {images} in {first} and in {second}, such as {records.names[shared[0]]}; "
                + ("val must be test itself, or share none with it" if first == "val" else "take them out of one")
            )
    name = split_name("column", {"file": file, "train": train, "val": val, "test": test})
    if len(rows["val"]) == 0:
        _check_shares("column", val_share=val_share)
        rows["train"], rows["val"] = _take_share(rows["train"], labels, val_share, np.random.default_rng(seed))
    return Split(name, **rows, val_is_test=val_is_test)


def _no_match(
    part: str, file: str, listed: Mapping[str, Sequence[str]], records: Records, *, by_column: bool
) -> UserError:
    """Return what is wrong with a list of which no image is in the data."""
    names = listed.get(part, ())
    if names:
        return UserError(
            f"{file}: no image that it names for {part} is in this data ({len(names):,} named): "
            f"it names {names[0]}, the data {records.names[0]}"
        )
    if not by_column:
        return UserError(f"{file} names no image for {part}: give a name a line, or a CSV file with a column name")
    has = ", ".join(f"{len(each):,} {other}" for other, each in listed.items()) or "none of any part"
    return UserError(f"{file} has no line whose part is {part} (it has {has}): add them, or use another split")


def cap(split: Split, labels: Array, *, per_class: int | None, limit: int | None) -> Split:
    """Keep at most per_class images a label of train, and at most `limit` images of every part, spread over labels."""
    rng = np.random.default_rng(0)
    name, train = capped_name(split.name, per_class, limit), split.train
    if per_class is not None:
        train = np.sort(np.concatenate([rng.permutation(r)[:per_class] for r in _by_label(train, labels)]))
    if limit is None:
        return replace(split, name=name, train=train)
    val, test = (_spread(rows, labels, limit, rng) for rows in (split.val, split.test))
    train = _spread(train, labels, limit, rng)
    return Split(name, train, test if split.val_is_test else val, test, split.val_is_test)


def check(split: Split) -> None:
    """Raise UserError if a part is empty or a test or val image is also in train."""
    for part in PARTS:
        if len(split.part(part)) == 0:
            raise UserError(f"data/split={split.name} leaves no image in {part}: use more data or another split")
    for part in ("val", "test"):
        shared = np.intersect1d(split.train, split.part(part))
        if len(shared):
            images = "image is" if len(shared) == 1 else "images are"
            raise UserError(
                f"data/split={split.name}: {len(shared):,} {images} in train and in {part}; a split must not share any"
            )


def _by_label(rows: Array, labels: Array) -> list[Array]:
    return [rows[labels[rows] == label] for label in np.unique(labels[rows])]


def _take_share(rows: Array, labels: Array, share: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return (rest, taken): `share` of all rows at random, as evenly over the labels as whole images allow."""
    found, counts = np.unique(labels[rows], return_counts=True)
    quota = share * counts
    take = np.floor(quota).astype(int)
    # What rounding down left over goes to the labels that lost most by it.
    left = round(share * len(rows)) - take.sum()
    # Ties are drawn, for labels in their order would always favour the young.
    ties = np.random.default_rng(0).permutation(len(found))
    take[np.lexsort((ties, (take - quota).round(9)))[:left]] += 1
    taken = np.zeros(len(rows), dtype=bool)
    for label, count in zip(found, take, strict=True):
        taken[rng.permutation(np.flatnonzero(labels[rows] == label))[:count]] = True
    return rows[~taken], rows[taken]


def _check_shares(name: str, **shares: float) -> None:
    if min(shares.values()) <= 0 or sum(shares.values()) >= 1:
        got = ", ".join(f"{share}={value}" for share, value in shares.items())
        raise UserError(f"data/split={name} needs shares above 0 that leave something to train on, got {got}")


def _spread(rows: Array, labels: Array, limit: int, rng: np.random.Generator) -> Array:
    """Return at most `limit` rows, dealt label by label in turn."""
    groups: Sequence[Array] = [rng.permutation(r) for r in _by_label(rows, labels)]
    turn = np.concatenate([np.arange(len(g)) for g in groups]) if groups else np.array([], dtype=int)
    dealt = np.concatenate(groups)[np.argsort(turn, kind="stable")] if groups else rows
    return np.sort(dealt[:limit])


def _group_codes(records: Records) -> Array:
    if "identity" not in records.columns:
        raise UserError("this split needs to know who is in each image, and this data does not: use data/split=random")
    return np.unique(records.columns["identity"], return_inverse=True)[1]


def _folds(records: Records, labels: Array, seed: int, k: int) -> Array:
    """Return the fold of every row, int64, shape (N,); no identity is in two folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = _group_codes(records)
    if len(np.unique(groups)) < k:
        raise UserError(
            f"splitting by identity into {k} folds needs at least {k} of them, got {len(np.unique(groups))}"
        )
    if np.bincount(labels).max() < k:
        log.warning(
            "no label has %d images, one for each fold: people are split without regard to their labels; "
            "coarser labels, such as data.target=decade, would be spread evenly",
            k,
        )
        labels = np.zeros_like(labels)
    folds = np.zeros(len(records), dtype=np.int64)
    cut = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A label too rare to be in every fold, such as the highest age, is nothing that anybody could mend.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for number, (_, rows) in enumerate(cut.split(np.zeros(len(records)), labels, groups)):
            folds[rows] = number
    return folds
