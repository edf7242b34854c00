"""The metrics of a part and the sums they follow from: pure functions on arrays, every image counted once."""

from collections.abc import Sequence

import numpy as np

from agebench.metrics.answers import Answers, Array, Images, cells, is_finite
from agebench.metrics.formulas import Drawn, Sums
from agebench.metrics.table import Metric, metrics_of

BINS = 15  # of the expected calibration error


def rows_of(answers: Answers) -> list[Metric]:
    """Return the metrics that are computed from answers, in the order of the table."""
    rows = metrics_of(num_labels=len(answers.values), ordered=answers.ordered, unit=answers.unit)
    return [metric for metric in rows if metric.computed]


def summarise(answers: Answers) -> dict[str, float]:
    """Return every metric of a part.

    accuracy, top5 (if R > 5): shares of images whose label is the likeliest, or among the five likeliest. Of equally
        likely labels the first comes first.
    balanced_accuracy: mean recall of the labels that occur.
    macro_f1: mean F1 of the labels that occur, as actual or as predicted.
    nll: mean negative log-likelihood in nats; a probability below FLOOR counts as FLOOR.
    ece: expected calibration error, after Guo et al. (2017), arXiv:1706.04599: |accuracy - confidence| of the images
        whose highest probability lies in the same of 15 bins of equal width, averaged over images.

    For ordered labels, where the error is the point estimate less the true value, in the unit:
    mae, rmse, median_error, bias: mean absolute, root mean squared, median absolute and mean error.
    cs0 to cs10 (years) or within_1 (other units): shares of images whose absolute error is at most so much.
    qwk: Cohen's kappa of the likeliest label with quadratic weights; 0 where chance explains everything.
    balanced_mae: the mean over decades of the true age (years), or over labels, of their mae; those that occur.

    All are NaN if a single number among the answers is not finite: such a network has diverged.
    """
    rows = rows_of(answers)
    if not is_finite(answers):
        return {metric.name: float("nan") for metric in rows}
    images = Images(answers)
    found = from_sums(sums(images, np.zeros(len(answers.target), dtype=np.int64), 1), rows)
    found |= from_images(images, rows, lambda order: np.ones((1, len(order)), dtype=np.int32))
    return {metric.name: float(found[metric.name][0]) for metric in rows}


def per_image(images: Images) -> dict[str, Array]:
    """Return the metrics that are means over images as one number per image, float64, shape (N,) each."""
    return {
        metric.name: metric.per_image(images).astype(np.float64)
        for metric in rows_of(images.answers)
        if metric.per_image is not None and not metric.balanced
    }


def sums(images: Images, groups: Array, count: int) -> dict[str, Array]:
    """Add up over the images of each group what the metrics need, float64, shape (G, columns) each.

    Metrics that are functions of the images themselves, such as a median, do not follow from such sums.

    Args:
        images: All finite.
        groups: The group of each image in [0, count), int64, shape (N,).
        count: G, how many groups there are.
    """
    rows, labels = rows_of(images.answers), len(images.answers.values)
    target, predicted, right = images.target, images.predicted, images.right.astype(np.float64)
    # Bin i holds i/15 < confidence <= (i + 1)/15; rounding may take a probability a hair above one.
    bins = np.clip(np.ceil(images.confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)

    def add(weights: Array | None = None, *, at: Array | int = 0, width: int = 1) -> Array:
        added = np.bincount(groups * width + at, weights=weights, minlength=count * width)  # (N,) -> (G * width,)
        return added.reshape(count, width).astype(np.float64, copy=False)

    found = {
        "means": np.concatenate([add(each) for each in per_image(images).values()], axis=1),
        "actual": add(at=target, width=labels),
        "predicted": add(at=predicted, width=labels),
        "right": add(right, at=target, width=labels),
        "gaps": add(right - images.confidence, at=bins, width=BINS),
    }
    if images.answers.ordered:
        cell, called = cells(images.answers)
        cell, width = cell[target], len(called)  # (R,) -> (N,)
        found |= {"squared": add(images.error**2), "disagreement": add((target - predicted) ** 2.0)}
        found["cell_images"] = add(at=cell, width=width)
        for metric in rows:
            if metric.balanced and metric.per_image is not None:
                found[_by_cell(metric)] = add(metric.per_image(images).astype(np.float64), at=cell, width=width)
        found["cell_error"] = add(images.error, at=cell, width=width)
    return found


def from_sums(sums: Sums, rows: Sequence[Metric]) -> dict[str, Array]:
    """Return the metrics of each of B sets of images, shape (B,), and the tables among them.

    Args:
        sums: What `sums` returns of those sets, shape (B, columns) each.
        rows: What rows_of returns of the same answers.

    Returns:
        Every metric that follows from sums, float64, shape (B,); for each label `precision`, `recall` and `f1`, shape
        (B, R); for each cell `cell_mae` and `cell_bias`, shape (B, C). What no image bears on is NaN.
    """
    actual, predicted, right = sums["actual"], sums["predicted"], sums["right"]
    images = actual.sum(1)
    means = [metric.name for metric in rows if metric.per_image is not None and not metric.balanced]
    found = dict(zip(means, (sums["means"] / images[:, None]).T, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        found |= {"precision": right / predicted, "recall": right / actual, "f1": 2 * right / (actual + predicted)}
        for metric in rows:
            if metric.balanced:
                found[metric.name] = np.nanmean(sums[_by_cell(metric)] / sums["cell_images"], axis=1)
        if "cell_images" in sums:
            found["cell_mae"] = sums["cells of balanced_mae"] / sums["cell_images"]
            found["cell_bias"] = sums["cell_error"] / sums["cell_images"]
    known = {**sums, **found, "images": images}
    return found | {metric.name: metric.of_sums(known) for metric in rows if metric.of_sums is not None}


def from_images(images: Images, rows: Sequence[Metric], drawn: Drawn) -> dict[str, Array]:
    """Return the metrics of B sets of images that are functions of the images themselves, shape (B,) each.

    Args:
        images: N images, all finite.
        rows: What rows_of returns of the same answers.
        drawn: From indices of M images, how often each set contains them, int32, shape (B, M).
    """
    return {metric.name: metric.of_images(images, drawn) for metric in rows if metric.of_images is not None}


def _by_cell(metric: Metric) -> str:
    """Return the key of a balanced metric's sums over each cell."""
    return f"cells of {metric.name}"
