"""The formula of each metric: a function that a row of agebench.metrics.table names.

There are three kinds. A function of `Images` returns one number per image, and the metric is the mean of them. A
function of `Sums` works out a metric of B sets of images from sums over each. A function of `Images` and `Drawn`
handles what is no function of sums, such as a quantile: it is told how often each set contains each image.
"""

from collections.abc import Callable, Mapping

import numpy as np

from agebench.metrics.answers import Array, Images

Sums = Mapping[str, Array]  # what agebench.metrics.compute.sums returns, with the tables of label_tables
PerImage = Callable[[Images], Array]  # shape (N,)
OfSums = Callable[[Sums], Array]  # shape (B,)
Drawn = Callable[[Array], Array]  # indices of M images -> how often each of B sets contains them, int32, shape (B, M)
OfImages = Callable[[Images, Drawn], Array]  # shape (B,)

FLOOR = 1e-12  # of a probability before its logarithm: an image costs at most 27.6 nats


def right(images: Images) -> Array:
    """Return whether the likeliest label is the true one."""
    return images.right


def among_five(images: Images) -> Array:
    """Return whether the true label is among the five likeliest; of equally likely ones the first comes first."""
    posterior, likelihood = images.answers.posterior, images.likelihood
    earlier = np.arange(posterior.shape[1]) < images.target[:, None]  # (R,) < (N, 1) -> (N, R)
    before = (posterior > likelihood[:, None]) | ((posterior == likelihood[:, None]) & earlier)
    return np.asarray(before.sum(1) < 5)


def surprise(images: Images) -> Array:
    """Return the negative log-likelihood of the true label, in nats."""
    return np.asarray(-np.log(np.clip(images.likelihood.astype(np.float64), FLOOR, None)))


def error(images: Images) -> Array:
    """Return estimate less true value, in the unit."""
    return images.error


def absolute_error(images: Images) -> Array:
    """Return the absolute error, in the unit."""
    return images.absolute


def within(reach: int) -> PerImage:
    """Return the function that says whether the absolute error is at most `reach`, in the unit."""
    return lambda images: np.asarray(images.absolute <= reach)


def mean_recall(sums: Sums) -> Array:
    """Return the mean recall of the labels that occur."""
    found: Array = np.nanmean(sums["recall"], axis=1)
    return found


def mean_f1(sums: Sums) -> Array:
    """Return the mean F1 of the labels that occur, as actual or as predicted."""
    found: Array = np.nanmean(sums["f1"], axis=1)
    return found


def calibration_error(sums: Sums) -> Array:
    """Return |accuracy - confidence| within each bin of confidence, averaged over images."""
    found: Array = np.abs(sums["gaps"]).sum(1) / sums["images"]
    return found


def root_mean_square(sums: Sums) -> Array:
    """Return the root of the mean squared error, in the unit."""
    found: Array = np.sqrt(sums["squared"][:, 0] / sums["images"])
    return found


def quadratic_kappa(sums: Sums) -> Array:
    """Return Cohen's kappa with quadratic weights; 0 where chance explains everything.

    By chance alone the sum of squared label distances would be, over pairs of labels j and k, that of
    (j - k)^2 actual_j predicted_k / images.
    """
    actual, predicted, disagreement = sums["actual"], sums["predicted"], sums["disagreement"][:, 0]
    labels = np.arange(actual.shape[1], dtype=np.float64)
    chance = (actual + predicted) @ labels**2 - 2 * (actual @ labels) * (predicted @ labels) / sums["images"]
    return np.where(chance > 0, 1 - disagreement / np.where(chance > 0, chance, 1), 0.0)


def median_error(images: Images, drawn: Drawn) -> Array:
    """Return the median absolute error, in the unit."""
    upto = np.cumsum(drawn(images.by_error), axis=1, dtype=np.int32)  # (B, N)
    count = upto[:, -1:]
    ascending = images.absolute[images.by_error]
    low, high = ((upto > middle).argmax(1) for middle in ((count - 1) // 2, count // 2))
    found: Array = (ascending[low] + ascending[high]) / 2
    return found
