"""Conformal label sets: contiguous ranges for ordered labels, any labels for classes.

A label belongs to the set of an image if its conformity is at least a threshold.

- Ordered labels: the conformity is the smaller of the two tail probabilities P(Y <= y) and P(Y >= y). The set is the
  range between two quantiles of the posterior, as in Chernozhukov, Wüthrich and Zhu (2021), arXiv:1909.07889.
- Classes: the conformity is the probability of the label, as in Sadinle, Lei and Wasserman (2019), arXiv:1609.00451.

The point estimate belongs to every set. The labels that this adds have conformity 1.
"""

import math

import numpy as np

from agebench.metrics.predictions import Array

HIGHEST = 0.49  # limit of a threshold of tails; both tails of the median are at least 0.5, up to rounding
SLACK = 1e-5  # relative; an exported graph computes conformities in float32


def needed_groups(coverage: float) -> int:
    """Return the smallest number of calibration groups for which the sets do not contain every label."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def hierarchical_threshold(conformity: Array, codes: Array, count: int, *, coverage: float) -> float:
    """Return the largest threshold with which a random image of a new person is covered with the given probability.

    This is hierarchical conformal prediction of Lee, Barber and Willett (2023), arXiv:2306.06342. Each of the G people
    weighs 1 / (G + 1), divided equally among the images. The person to predict has the remaining weight, at the lowest
    conformity. People must be exchangeable, images of one person only among themselves. If each image is a group, this
    is split conformal prediction.

    Args:
        conformity: Conformity of the true label of each image, shape (N,).
        codes: The person of each image, as integers in [0, G), shape (N,).
        count: G, at least needed_groups(coverage).
        coverage: The probability, above 0 and below 1.
    """
    weights = 1 / ((count + 1) * np.bincount(codes, minlength=count)[codes])  # (N,)
    descending = np.argsort(-conformity, kind="stable")
    reached = np.cumsum(weights[descending]) >= coverage - 1e-9  # (N,)
    return float(conformity[descending[reached.argmax()]]) * (1 - SLACK)


def conformities(posterior: Array, point: Array, values: Array, *, ordered: bool) -> Array:
    """Return the conformity of every label of each image, float64, shape (N, R). For ordered labels it has one peak.

    Args:
        posterior: Probability of each label, shape (N, R).
        point: Point estimates in the unit, or for classes indices of labels, shape (N,).
        values: The value of each label in the unit, ascending; for classes the index of each label, shape (R,).
        ordered: Whether the labels have an order.
    """
    numbers, estimate = np.asarray(values, np.float64), np.asarray(point, np.float64)[:, None]
    if not ordered:
        return np.where(numbers == estimate, 1.0, posterior)
    tails = np.minimum(posterior.cumsum(1), _reverse(_reverse(posterior).cumsum(1)))
    # The labels around the point estimate: the last that is not above it, and the first that is not below it.
    last = numbers[np.clip((numbers <= estimate).sum(1) - 1, 0, None)]  # (N,)
    first = numbers[np.clip((numbers < estimate).sum(1), None, len(numbers) - 1)]  # (N,)
    tails[(numbers == last[:, None]) | (numbers == first[:, None])] = 1.0
    # The estimate may lie outside of the quantiles. The labels in between have the conformity of the nearest quantile.
    rising, falling = np.maximum.accumulate(tails, axis=1), _reverse(np.maximum.accumulate(_reverse(tails), axis=1))
    return np.minimum(rising, falling)


def most_probable(posterior: Array, mass: float) -> Array:
    """Return the most probable labels that together have at least a probability, bool, shape (N, R)."""
    descending = np.argsort(-posterior, axis=1, kind="stable")
    ranked = np.take_along_axis(posterior, descending, axis=1)
    found = np.empty(posterior.shape, dtype=bool)
    np.put_along_axis(found, descending, ranked.cumsum(1) - ranked < mass, axis=1)
    return found


def _reverse(rows: Array) -> Array:
    return rows[:, ::-1]
