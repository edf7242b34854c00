"""Which test images the report shows: mistakes, confused pairs, and the most and least certain predictions."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from agebench.report.outcome import Array, Outcome

MOST = 24  # images of a sheet
MAX_PAIRS = 6
MAX_EXAMPLES = 5  # images of each direction of a pair
MAX_PAIR_LABELS = 15  # ordered labels; with more, a confused pair is only an error of some years


class ConfusedPair(NamedTuple):
    """Two labels that are confused.

    Args:
        labels: Indices (a, b) of the two labels. More images of a are taken for b than the other way round.
        counts: Number of images of a taken for b, and of b taken for a.
        rows: Rows of the images of a taken for b, and of b taken for a; the most certain mistakes first.
    """

    labels: tuple[int, int]
    counts: tuple[int, int]
    rows: tuple[Array, Array]


def is_correct(outcome: Outcome) -> Array:
    """Return whether the label nearest to the point estimate is the true label, bool, shape (N,)."""
    return np.asarray(estimated_labels(outcome) == outcome.target)


def estimated_labels(outcome: Outcome) -> Array:
    """Return the label that each image is taken for, int64, shape (N,).

    It is the label nearest to the point estimate for ordered labels, else the most likely label.
    """
    if not outcome.ordered:
        return outcome.predicted
    edges = (outcome.values[:-1] + outcome.values[1:]) / 2
    return np.searchsorted(edges, outcome.point)


def doubt(outcome: Outcome) -> Array:
    """Return how uncertain each prediction is, float64, shape (N,).

    It is the standard deviation of the posterior in the unit for ordered labels, else 1 - the highest probability.
    """
    posterior = np.asarray(outcome.posterior, dtype=np.float64)
    if not outcome.ordered:
        return np.asarray(1 - posterior.max(1))
    mean = posterior @ outcome.values  # (N, R) @ (R,) -> (N,)
    return np.asarray(np.sqrt(np.maximum(posterior @ outcome.values**2 - mean**2, 0)))


def worst_mistakes(outcome: Outcome, most: int = MOST) -> Array:
    """Return rows of wrong predictions, the worst first, int64.

    The worst has the largest absolute error for ordered labels, else the highest probability of the wrong label.
    """
    error = np.abs(outcome.point - outcome.values[outcome.target])
    badness = error if outcome.ordered else outcome.posterior.max(1)
    return _first(np.flatnonzero(~is_correct(outcome)), -badness, most)


def most_certain(outcome: Outcome, most: int = MOST) -> Array:
    """Return rows of correct predictions, the one with the least doubt first, int64."""
    return _first(np.flatnonzero(is_correct(outcome)), doubt(outcome), most)


def least_certain(outcome: Outcome, most: int = MOST) -> Array:
    """Return rows of predictions, the one with the most doubt first, int64."""
    return _first(np.arange(len(outcome)), -doubt(outcome), most)


SHEETS: dict[str, Callable[[Outcome], Array]] = {
    "worst": worst_mistakes,
    "certain": most_certain,
    "uncertain": least_certain,
}


def confused_pairs(outcome: Outcome) -> list[ConfusedPair]:
    """Return the pairs of labels that are confused most often, counting both directions, most frequent first."""
    labels = len(outcome.label_names)
    if outcome.ordered and labels > MAX_PAIR_LABELS:
        return []
    estimated = estimated_labels(outcome)
    counts = np.bincount(outcome.target * labels + estimated, minlength=labels**2).reshape(labels, labels)
    both = np.triu(counts + counts.T, k=1)
    pairs = []
    for flat in np.argsort(-both, axis=None, kind="stable")[:MAX_PAIRS]:
        a, b = map(int, np.unravel_index(flat, both.shape))
        if not both[a, b]:
            break
        if counts[b, a] > counts[a, b]:
            a, b = b, a
        rows = [np.flatnonzero((outcome.target == x) & (estimated == y)) for x, y in ((a, b), (b, a))]
        chosen = [_first(each, doubt(outcome), MAX_EXAMPLES) for each in rows]
        pairs.append(ConfusedPair((a, b), (len(rows[0]), len(rows[1])), (chosen[0], chosen[1])))
    return pairs


def single_images(outcome: Outcome) -> Array:
    """Return rows of at most 8 images whose posteriors are shown, int64.

    They are the four images at even steps from the least to the most doubt, and the four worst mistakes.
    """
    order = np.argsort(doubt(outcome), kind="stable")
    even = order[np.linspace(0, len(order) - 1, 4).round().astype(np.int64)] if len(order) else order
    return np.fromiter(dict.fromkeys([*even.tolist(), *worst_mistakes(outcome, 4).tolist()]), dtype=np.int64)


def explained_rows(outcome: Outcome, each: int = 5) -> Array:
    """Return rows of correct predictions with little doubt, of different labels, and of the worst mistakes, int64."""
    certain = most_certain(outcome, len(outcome))
    first = np.sort(np.unique(outcome.target[certain], return_index=True)[1])[:each]
    return np.concatenate([certain[first], worst_mistakes(outcome, each)]).astype(np.int64)


def chosen_rows(outcome: Outcome) -> Array:
    """Return the rows of all images that the report shows, int64, ascending."""
    rows = [choose(outcome) for choose in SHEETS.values()]
    rows += [each for pair in confused_pairs(outcome) for each in pair.rows]
    return np.unique(np.concatenate([*rows, single_images(outcome)]).astype(np.int64))


def _first(rows: Array, key: Array, most: int) -> Array:
    """Return at most `most` of the rows in ascending order of their keys; ties keep the order of the rows."""
    return rows[np.argsort(key[rows], kind="stable")][:most]
