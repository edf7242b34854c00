"""Decisions at an age limit: error rates, AUC and precision, and intervals that hold for few people and few errors.

An image is judged at or above an age if the estimate is. A person below the limit who is judged at or above it is a
false adult; a person at or above the limit who is judged below it is a false minor.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from agebench.metrics.formulas import Drawn, OfSums, Sums
from agebench.metrics.predictions import Array, Images

FALSE_ADULT, FALSE_MINOR = "false_adult_rate", "false_minor_rate"
AUC, RECALL, PRECISION = "limit_auc", "minor_recall", "minor_precision"
TAIL = 0.025  # of a 95% interval, on each side


def at_age(name: str, age: float) -> str:
    """Return the name of an error rate at a challenge age, such as `false_adult_rate_at_21`."""
    return f"{name}_at_{age:g}"


def at_prior(prior: float) -> str:
    """Return the name of the precision at a share of people below the limit, such as `minor_precision_0.1`."""
    return f"{PRECISION}_{prior:g}"


def sums_at_limit(images: Images, ages: Sequence[float]) -> dict[str, Array]:
    """Return what is summed over images for the decisions, float64: `above`, shape (N, 1), and others.

    Args:
        images: N images with an age limit.
        ages: The C challenge ages, the limit first.

    Returns:
        `below` and `above` the limit, shape (N, 1); `false_adults` and `false_minors` at each age, shape (N, C).
    """
    above = images.at_limit[:, None]
    judged = np.stack([images.judged(age) for age in ages], axis=1)  # (N, C)
    found = {"below": ~above, "above": above, "false_adults": judged & ~above, "false_minors": ~judged & above}
    return {name: each.astype(np.float64) for name, each in found.items()}


def false_adult_rate(column: int) -> OfSums:
    """Return the share of images below the limit that are judged at or above a challenge age, given by its column."""
    return lambda sums: _ratio(sums["false_adults"][:, column], sums["below"][:, 0])


def false_minor_rate(column: int) -> OfSums:
    """Return the share of images at or above the limit that are judged below a challenge age, given by its column."""
    return lambda sums: _ratio(sums["false_minors"][:, column], sums["above"][:, 0])


def recall(sums: Sums) -> Array:
    """Return the share of images below the limit that are judged below it. It does not depend on a prior."""
    return 1 - false_adult_rate(0)(sums)


def precision(prior: float) -> OfSums:
    """Return the share of people below the limit among those judged below it, if `prior` is their share among all."""
    return lambda sums: _precision(prior, false_adult_rate(0)(sums), false_minor_rate(0)(sums))


def _precision(prior: float, false_adults: Array, false_minors: Array) -> Array:
    found = prior * (1 - false_adults)
    return _ratio(found, found + (1 - prior) * false_minors)


def _ratio(numerator: Array, denominator: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = numerator / denominator
    return found


def area_under_curve(images: Images, drawn: Drawn) -> Array:
    """Return the area under the ROC curve of the probability of an age at or above the limit. A tie counts half."""
    order = np.argsort(images.probability_at_limit, kind="stable")
    scores, above = images.probability_at_limit[order], images.at_limit[order]
    times = drawn(order)  # (B, N)
    firsts = np.flatnonzero(np.diff(scores, prepend=-np.inf) > 0)  # the first image of each distinct score
    positive = np.add.reduceat(np.where(above, times, 0), firsts, axis=1, dtype=np.float64)  # (B, distinct scores)
    negative = np.add.reduceat(np.where(above, 0, times), firsts, axis=1, dtype=np.float64)
    wins = (positive * (np.cumsum(negative, axis=1) - negative / 2)).sum(1)
    return _ratio(wins, positive.sum(1) * negative.sum(1))


def rates(images: Images, ages: Sequence[float]) -> dict[str, tuple[Array, Array]]:
    """Return both error rates at each age as weighted means: the decision is wrong, and its weight, shape (N,) each.

    A rate of which there are no images is left out.
    """
    above, found = images.at_limit, dict[str, tuple[Array, Array]]()
    for age in ages:
        judged = images.judged(age)
        for name, wrong, weights in ((FALSE_ADULT, judged, ~above), (FALSE_MINOR, ~judged, above)):
            if weights.any():
                found[at_age(name, age)] = wrong.astype(np.float64), weights.astype(np.float64)
    return found


def people(codes: Array, chosen: Array) -> tuple[int, float]:
    """Return the number of groups among the chosen images, and their effective number after Kish: (sum m)^2 / sum m^2.

    Both are equal if every group has as many images. An image-weighted rate varies as one of so many people.

    Args:
        codes: The group of each image, int64, shape (N,).
        chosen: Bool, shape (N,).
    """
    images = np.bincount(codes[chosen]).astype(np.float64)
    images = images[images > 0]
    return len(images), float(images.sum() ** 2 / (images**2).sum()) if len(images) else 0.0


def exact_bounds(rate: float, count: float) -> Array:
    """Return the 95% Clopper-Pearson interval of a rate over a number of independent people, shape (2,).

    The number of events, rate times count, need not be an integer. Without an event the upper bound is
    1 - 0.025^(1 / count), which is about 3.7 / count.
    """
    from scipy.special import betaincinv

    events = rate * count
    low = betaincinv(events, count - events + 1, TAIL) if rate > 0 else 0.0
    high = betaincinv(events + 1, count - events, 1 - TAIL) if rate < 1 else 1.0
    return np.array([low, high])


def widen(bounds: Mapping[str, Array], images: Images, codes: Array) -> dict[str, Array]:
    """Return bootstrap intervals, those of decisions wide enough for few people and few errors.

    The bootstrap gives a rate of 0 an interval without width. An interval of an error rate therefore contains both the
    bootstrap interval and the Clopper-Pearson interval of the effective number of people, as if all images of a person
    were judged alike. The precision has the values at the bounds of both error rates as its bounds.

    Args:
        bounds: The result of the bootstrap, shape (2,) for each rate.
        images: N images with an age limit.
        codes: The group of each image, int64, shape (N,).
    """
    limit = images.predictions.age_limit
    if limit is None:
        return dict(bounds)
    found = dict(bounds)
    for name, (wrong, weights) in rates(images, limit.ages).items():
        if name in found:
            chosen = weights > 0
            exact = exact_bounds(float(wrong[chosen].mean()), people(codes, chosen)[1])
            found[name] = _union(found[name], exact)
    for name in (FALSE_ADULT, FALSE_MINOR):
        if name in found:
            found[name] = found[at_age(name, limit.limit)]
    if RECALL in found:
        found[RECALL] = 1 - found[FALSE_ADULT][::-1]
    for prior in limit.priors:
        if (name := at_prior(prior)) in found:
            worst_first = _precision(prior, found[FALSE_ADULT][::-1], found[FALSE_MINOR][::-1])
            found[name] = _union(found[name], worst_first)
    if AUC in found and min(people(codes, side)[0] for side in (images.at_limit, ~images.at_limit)) < 2:
        found[AUC] = np.full(2, np.nan)
    return found


def _union(first: Array, second: Array) -> Array:
    return np.array([np.fmin(first[0], second[0]), np.fmax(first[1], second[1])])
