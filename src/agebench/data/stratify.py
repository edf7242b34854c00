"""Stratified random draws of images, and stratified folds of groups of images."""

import logging

import numpy as np

from agebench.data.records import Array, Records
from agebench.errors import UserError
from agebench.identity_groups import group_codes, is_known

log = logging.getLogger(__name__)

GROUPS_AT_ONCE = 4096  # groups per dense array of label counts, which limits memory


def rows_by_label(rows: Array, labels: Array) -> list[Array]:
    """Return the rows of each label that occurs, in ascending order of the labels and the given order of the rows."""
    if len(rows) == 0:
        return []
    of_rows = labels[rows]
    order = np.argsort(of_rows, kind="stable")
    starts = np.flatnonzero(np.diff(of_rows[order])) + 1
    return np.split(rows[order], starts)


def take_share(rows: Array, labels: Array, share: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw a random share of the rows, stratified by label, and return (rest, drawn)."""
    by_label = rows_by_label(np.arange(len(rows)), labels[rows])
    quota = share * np.array([len(each) for each in by_label])
    count = np.floor(quota).astype(int)
    # The images lost by rounding down go to the labels with the largest remainders.
    left = round(share * len(rows)) - count.sum()
    # Equal remainders are ordered at random. In label order the youngest ages would always come first.
    ties = np.random.default_rng(0).permutation(len(by_label))
    count[np.lexsort((ties, (count - quota).round(9)))[:left]] += 1
    drawn = np.zeros(len(rows), dtype=bool)
    for each, size in zip(by_label, count, strict=True):
        drawn[rng.permutation(each)[:size]] = True
    return rows[~drawn], rows[drawn]


def draw_per_label(rows: Array, labels: Array, count: int, rng: np.random.Generator) -> Array:
    """Draw at most `count` rows of each label and return them in ascending order."""
    return np.sort(np.concatenate([rng.permutation(each)[:count] for each in rows_by_label(rows, labels)]))


def draw_in_turns(rows: Array, labels: Array, limit: int, rng: np.random.Generator) -> Array:
    """Draw at most `limit` rows, one of each label in turn, and return them in ascending order."""
    by_label = [rng.permutation(each) for each in rows_by_label(rows, labels)]
    if not by_label:
        return rows
    turn = np.concatenate([np.arange(len(each)) for each in by_label])
    return np.sort(np.concatenate(by_label)[np.argsort(turn, kind="stable")][:limit])


def has_identities(records: Records) -> bool:
    """Return whether the identity of any image is known."""
    identities = records.columns.get("identity")
    return identities is not None and bool(is_known(identities).any())


def identity_codes(records: Records) -> tuple[Array, int]:
    """Return the group of each image by its identity, int64, shape (N,), and the number of groups.

    Raises:
        UserError: If no identity is known.
    """
    if not has_identities(records):
        raise UserError(
            "this split needs the identity of each image, and this data has none: use data/split=random, or name the "
            "column with identities in a CSV file of the images (data=table data.columns.identity=COLUMN)"
        )
    return group_codes(records.columns["identity"], len(records))


def image_folds(labels: Array, *, seed: int, k: int) -> Array:
    """Return a random fold of each image, int64, shape (N,), stratified by label.

    The number of images of a label differs by at most one between two folds, and so does the number of all images.

    Raises:
        UserError: If there are fewer images than folds.
    """
    if len(labels) < k:
        raise UserError(f"splitting by image into {k} folds needs at least {k} images, got {len(labels)}")
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by label, in random order within a label
    folds = np.empty(len(labels), dtype=np.int64)
    folds[order] = np.arange(len(labels)) % k
    return folds


def identity_folds(records: Records, labels: Array, *, seed: int, k: int) -> Array:
    """Return the fold of each row, int64, shape (N,). All images of an identity are in the same fold.

    Raises:
        UserError: If no identity is known, or if there are fewer identities than folds.
    """
    groups, count = identity_codes(records)
    if count < k:
        raise UserError(f"splitting by identity into {k} folds needs at least {k} identities, got {count}")
    if np.bincount(labels).max() < k:
        log.warning(
            "no label has %d images, one for each fold: the split by identity ignores the labels; "
            "coarser labels, such as data.target=decade, can be stratified",
            k,
        )
        labels = np.zeros_like(labels)
    return stratified_group_folds(labels, groups, seed=seed, k=k)


def stratified_group_folds(labels: Array, groups: Array, *, seed: int, k: int) -> Array:
    """Assign complete groups to k folds so that each fold has about the label distribution of all images.

    Groups are visited in order of decreasing standard deviation of their label counts; equal ones in random order. Each
    is assigned to the fold that gives the smallest standard deviation over the folds, averaged over the labels.

    Args:
        labels: Label of each image, int64, shape (N,).
        groups: Group of each image, codes in [0, G), int64, shape (N,), G at least k.
        seed: Random seed of the order of groups with the same label counts.
        k: Number of folds.

    Returns:
        The fold of each image, int64, shape (N,).

    Source:
        scikit-learn's StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed), with identical results (a test
        compares them). For 1,000,000 images of 20,000 people that class takes 10 to 14 s, because it loops over images
        and folds in Python. This function takes about 1 s.
    """
    distinct, labels = np.unique(labels, return_inverse=True)
    totals = np.bincount(labels).astype(np.float64)  # (C,)
    sizes = np.bincount(groups)
    shuffled = np.arange(len(sizes))
    np.random.RandomState(seed).shuffle(shuffled)  # the same generator as scikit-learn, so that splits do not change
    by_group = labels[np.argsort(groups, kind="stable")]
    ends = np.cumsum(sizes)
    spread = _label_count_std(by_group, sizes, len(distinct))[shuffled]
    counts = np.zeros((k, len(distinct)))  # images of each label in each fold
    images = [0] * k
    # shares[i] are the shares of each label in each fold if the group is assigned to fold i.
    shares = np.zeros((k, k, len(distinct)))
    candidate = np.arange(k)
    fold_of = np.empty(len(sizes), dtype=np.int64)
    for group in shuffled[np.argsort(-spread, kind="stable")].tolist():
        found = np.bincount(by_group[ends[group] - sizes[group] : ends[group]], minlength=len(distinct))
        shares[candidate, candidate] = (counts + found) / totals
        fold = _best_fold(shares.std(axis=1).mean(axis=1).tolist(), images)
        counts[fold] += found
        images[fold] += int(sizes[group])
        shares[:, fold] = counts[fold] / totals
        fold_of[group] = fold
    return fold_of[groups]


def _label_count_std(by_group: Array, sizes: Array, num_labels: int) -> Array:
    """Return the standard deviation of each group's label counts, float64, shape (G,)."""
    starts, spread = np.concatenate([[0], np.cumsum(sizes)]), np.empty(len(sizes))
    for first in range(0, len(sizes), GROUPS_AT_ONCE):
        last = min(first + GROUPS_AT_ONCE, len(sizes))
        group = np.repeat(np.arange(last - first), sizes[first:last])
        cells = group * num_labels + by_group[starts[first] : starts[last]]
        counts = np.bincount(cells, minlength=(last - first) * num_labels).astype(np.float64)
        spread[first:last] = np.std(counts.reshape(-1, num_labels), axis=1)  # (g, C) -> (g,)
    return spread


def _best_fold(spreads: list[float], images: list[int]) -> int:
    """Return the fold with the smallest spread. If two are nearly equal, return the one with fewer images."""
    best, least, fewest = 0, float("inf"), float("inf")
    for fold, (spread, count) in enumerate(zip(spreads, images, strict=True)):
        # The tolerance is that of np.isclose.
        close = abs(spread - least) <= 1e-8 + 1e-5 * abs(least) < float("inf")
        if spread < least or (close and count < fewest):
            best, least, fewest = fold, spread, count
    return best
