"""The formulas of the metrics in agebench.metrics.table.

There are three kinds of functions. A function of `Images` returns one value per image; the metric is their mean. A
function of `Sums` computes a metric of B sets of images from sums over each set. A function of `Images` and `Drawn`
computes a metric that is not a function of sums, such as a quantile; `Drawn` returns how often each set contains each
image.
"""

from collections.abc import Callable, Mapping

import numpy as np

from agebench.metrics.predictions import Array, Images, cells

Sums = Mapping[str, Array]  # the result of agebench.metrics.compute.sums, with precision, recall and F1 of each label
PerImage = Callable[[Images], Array]  # shape (N,)
OfSums = Callable[[Sums], Array]  # shape (B,)
Drawn = Callable[[Array], Array]  # indices of M images -> how often each of B sets contains them, int32, shape (B, M)
OfImages = Callable[[Images, Drawn], Array]  # shape (B,)

FLOOR = 1e-12  # minimum of a probability before its logarithm, so that the nll of an image is at most 27.6 nats


def correct(images: Images) -> Array:
    """Return whether the most likely label is the true label."""
    return images.correct


def in_top5(images: Images) -> Array:
    """Return whether the true label is one of the five most likely labels. Ties are broken by label order."""
    posterior, likelihood = images.predictions.posterior, images.likelihood
    earlier = np.arange(posterior.shape[1]) < images.target[:, None]  # (R,) < (N, 1) -> (N, R)
    before = (posterior > likelihood[:, None]) | ((posterior == likelihood[:, None]) & earlier)
    return np.asarray(before.sum(1) < 5)


def negative_log_likelihood(images: Images) -> Array:
    """Return the negative log-likelihood of the true label, in nats."""
    return np.asarray(-np.log(np.clip(images.likelihood.astype(np.float64), FLOOR, None)))


def error(images: Images) -> Array:
    """Return the point estimate minus the true value, in the unit."""
    return images.error


def absolute_error(images: Images) -> Array:
    """Return the absolute error, in the unit."""
    return images.absolute_error


def within(tolerance: int) -> PerImage:
    """Return the function that tests whether the absolute error is at most the tolerance, in the unit."""
    return lambda images: np.asarray(images.absolute_error <= tolerance)


def calibrated_nll(images: Images) -> Array:
    """Return the negative log-likelihood of the true label after temperature scaling, in nats."""
    return negative_log_likelihood(images.calibrated)


def covered(*, calibrated: bool) -> PerImage:
    """Return the function that tests whether the set of an image contains the true label."""
    return lambda images: images.covered(calibrated=calibrated)


def range_width(*, calibrated: bool) -> PerImage:
    """Return the function for the width of the range of an image, in the unit."""
    return lambda images: images.range_widths(calibrated=calibrated)


def set_size(*, calibrated: bool) -> PerImage:
    """Return the function for the number of labels in the set of an image."""
    return lambda images: images.set_sizes(calibrated=calibrated)


def mean_recall(sums: Sums) -> Array:
    """Return the mean recall over the labels with images."""
    found: Array = np.nanmean(sums["recall"], axis=1)
    return found


def mean_f1(sums: Sums) -> Array:
    """Return the mean F1 over the labels that occur as true or predicted labels."""
    found: Array = np.nanmean(sums["f1"], axis=1)
    return found


def weights_of_labels(images: Images) -> Array:
    """Return the weight of each image with which the share of correct predictions is the mean recall, (N,)."""
    return 1 / np.bincount(images.target)[images.target]


def weights_of_f1(images: Images) -> Array:
    """Return the weight of each image with which the share of correct predictions is the mean F1, (N,).

    F1 is 2 correct / (actual + predicted), so an image counts for its true and for its predicted label.
    """
    labels = len(images.predictions.values)
    counts = np.bincount(images.target, minlength=labels) + np.bincount(images.predicted, minlength=labels)
    return 1 / counts[images.target] + 1 / counts[images.predicted]


def weights_of_cells(images: Images) -> Array:
    """Return the weight of each image with which a mean over images is the mean over cells, (N,)."""
    cell = cells(images.predictions)[0][images.target]
    return 1 / np.bincount(cell)[cell]


def calibration_error(sums: Sums) -> Array:
    """Return |accuracy - confidence| of each bin of confidence, averaged over images."""
    found: Array = np.abs(sums["gaps"]).sum(1) / sums["images"]
    return found


def calibrated_calibration_error(sums: Sums) -> Array:
    """Return |accuracy - confidence| of each bin of calibrated confidence, averaged over images."""
    return calibration_error({**sums, "gaps": sums["calibrated_gaps"]})


def root_mean_square(sums: Sums) -> Array:
    """Return the root of the mean squared error, in the unit."""
    found: Array = np.sqrt(sums["squared"][:, 0] / sums["images"])
    return found


def quadratic_kappa(sums: Sums) -> Array:
    """Return Cohen's kappa of the most likely label with quadratic weights."""
    return _quadratic_kappa(sums, sums["predicted"], sums["disagreement"])


def quadratic_kappa_of_point(sums: Sums) -> Array:
    """Return Cohen's kappa of the label nearest to the point estimate with quadratic weights."""
    return _quadratic_kappa(sums, sums["nearest"], sums["disagreement_point"])


def _quadratic_kappa(sums: Sums, predicted: Array, disagreement: Array) -> Array:
    """Return Cohen's kappa with quadratic weights, or 0 if the expected disagreement is 0.

    The expected disagreement is the sum of (j - k)^2 actual_j predicted_k / images over all pairs of labels j and k.

    Args:
        sums: The sums over B sets of images.
        predicted: Images per predicted label, shape (B, R).
        disagreement: Sum of the squared differences between true and predicted label, shape (B, 1).
    """
    actual = sums["actual"]
    labels = np.arange(actual.shape[1], dtype=np.float64)
    chance = (actual + predicted) @ labels**2 - 2 * (actual @ labels) * (predicted @ labels) / sums["images"]
    return np.where(chance > 0, 1 - disagreement[:, 0] / np.where(chance > 0, chance, 1), 0.0)


def median_error(images: Images, drawn: Drawn) -> Array:
    """Return the median absolute error, in the unit."""
    cumulative = np.cumsum(drawn(images.by_error), axis=1, dtype=np.int32)  # (B, N)
    count = cumulative[:, -1:]
    ascending = images.absolute_error[images.by_error]
    low, high = ((cumulative > middle).argmax(1) for middle in ((count - 1) // 2, count // 2))
    found: Array = (ascending[low] + ascending[high]) / 2
    return found
