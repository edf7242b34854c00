"""Compute the metrics of a part, and the sums over images from which they are computed."""

from collections.abc import Sequence

import numpy as np

from agebench.metrics import decisions
from agebench.metrics.formulas import Drawn, Sums
from agebench.metrics.predictions import Array, Images, LabelledPredictions, cells, is_finite
from agebench.metrics.table import Metric, decision_rows, metrics_of

BINS = 15  # number of bins of the expected calibration error


def rows_of(predictions: LabelledPredictions) -> list[Metric]:
    """Return the rows of the metrics that can be computed from these predictions, in the order of the table."""
    rows = metrics_of(num_labels=len(predictions.values), ordered=predictions.ordered, unit=predictions.unit)
    calibrated = predictions.calibrated is not None
    rows = [metric for metric in rows if metric.computed and (calibrated or not metric.calibrated)]
    if predictions.points_only:
        rows = [metric for metric in rows if (metric.from_point if predictions.ordered else metric.from_label)]
    if predictions.age_limit is not None:
        above = Images(predictions).at_limit
        of_limit = decision_rows(predictions.age_limit, below=not above.all(), above=bool(above.any()))
        rows += [metric for metric in of_limit if predictions.has_posterior or metric.from_point]
    return rows


def summarise(predictions: LabelledPredictions) -> dict[str, float]:
    """Return every metric of a part.

    accuracy, top5 (if R > 5): share of images whose true label is the most likely label, or one of the five most
        likely labels. Ties are broken by the order of the labels.
    balanced_accuracy: mean recall over the labels with images.
    macro_f1: mean F1 over the labels that occur as true or predicted labels.
    nll: mean negative log-likelihood in nats. Probabilities are clipped at FLOOR.
    ece: expected calibration error, after Guo et al. (2017), arXiv:1706.04599: |accuracy - confidence| in 15 bins of
        confidence of equal width, averaged over images.

    For ordered labels, where the error is the point estimate minus the true value, in the unit:
    mae, rmse, median_error, bias: mean absolute, root mean squared, median absolute and mean error.
    cs0 to cs10 (years) or within_1 (other units): share of images whose absolute error is at most this number.
    qwk: Cohen's kappa of the most likely label with quadratic weights; 0 if the expected disagreement is 0.
    qwk_point: the same of the label nearest to the point estimate.
    balanced_mae: mean of the mae of each decade of the true age (years) or of each label (other units).

    For calibrated predictions:
    nll_calibrated, ece_calibrated: nll and ece after temperature scaling.
    coverage: share of images whose true label belongs to the conformal set.
    range_width (ordered) or set_size (classes): mean width of the sets in the unit, or number of their labels.
    coverage_uncalibrated, range_width_uncalibrated, set_size_uncalibrated: the same for sets without calibration.

    With an age limit also the metrics of decisions, see agebench.metrics.decisions, as far as they are defined.

    All metrics are NaN if any prediction is not finite, because the network has diverged.
    """
    rows = rows_of(predictions)
    if not is_finite(predictions):
        return {metric.name: float("nan") for metric in rows}
    images = Images(predictions)
    found = from_sums(sums(images, np.zeros(len(predictions.target), dtype=np.int64), 1), rows)
    found |= from_images(images, rows, lambda order: np.ones((1, len(order)), dtype=np.int32))
    return {metric.name: float(found[metric.name][0]) for metric in rows}


def per_image(images: Images) -> dict[str, Array]:
    """Return the value of each image for the metrics that are means over images, float64, shape (N,) each."""
    return {
        metric.name: metric.per_image(images).astype(np.float64)
        for metric in rows_of(images.predictions)
        if metric.per_image is not None and not metric.balanced
    }


def sums(images: Images, groups: Array, count: int) -> dict[str, Array]:
    """Return the sums over each group of images that the metrics need, float64, shape (G, columns) each.

    Metrics such as the median error are not functions of sums, see `from_images`.

    Args:
        images: N images, all finite.
        groups: The group of each image in [0, count), int64, shape (N,).
        count: G, the number of groups.
    """
    rows, labels = rows_of(images.predictions), len(images.predictions.values)
    target, predicted, correct = images.target, images.predicted, images.correct.astype(np.float64)

    def add(weights: Array | None = None, *, at: Array | int = 0, width: int = 1) -> Array:
        added = np.bincount(groups * width + at, weights=weights, minlength=count * width)  # (N,) -> (G * width,)
        return added.reshape(count, width).astype(np.float64, copy=False)

    def add_gaps(confidence: Array) -> Array:
        # Bin i is i/15 < confidence <= (i + 1)/15. Rounding can make a probability slightly greater than one.
        bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        return add(correct - confidence, at=bins, width=BINS)

    found = {
        "means": np.concatenate([add(each) for each in per_image(images).values()], axis=1),
        "actual": add(at=target, width=labels),
        "predicted": add(at=predicted, width=labels),
        "correct": add(correct, at=target, width=labels),
        "gaps": add_gaps(images.confidence),
    }
    if images.predictions.calibrated is not None:
        found["calibrated_gaps"] = add_gaps(images.calibrated.confidence)
    if images.predictions.ordered:
        cell, names = cells(images.predictions)
        cell, width = cell[target], len(names)  # (R,) -> (N,)
        found |= {"squared": add(images.error**2), "disagreement": add((target - predicted) ** 2.0)}
        found["cell_images"] = add(at=cell, width=width)
        for metric in rows:
            if metric.balanced and metric.per_image is not None:
                found[_by_cell(metric)] = add(metric.per_image(images).astype(np.float64), at=cell, width=width)
        found["cell_error"] = add(images.error, at=cell, width=width)
        found["nearest"] = add(at=images.nearest, width=labels)
        found["disagreement_point"] = add((target - images.nearest) ** 2.0)
        if images.predictions.calibrated is not None:
            found["cell_covered"] = add(images.covered(calibrated=True).astype(np.float64), at=cell, width=width)
            found["cell_range"] = add(images.range_widths(calibrated=True), at=cell, width=width)
    if (limit := images.predictions.age_limit) is not None:
        for name, columns in decisions.sums_at_limit(images, limit.challenge_ages).items():
            found[name] = np.concatenate([add(column) for column in columns.T], axis=1)
    return found


def from_sums(sums: Sums, rows: Sequence[Metric]) -> dict[str, Array]:
    """Return the metrics of B sets of images that are functions of sums over images.

    Args:
        sums: The result of `sums` for these sets, shape (B, columns) each.
        rows: The result of `rows_of` for the same predictions.

    Returns:
        The metrics, float64, shape (B,); `precision`, `recall` and `f1` of each label, shape (B, R); `cell_mae` and
        `cell_bias` of each cell, shape (B, C), and of calibrated predictions also `cell_coverage` and
        `cell_range_width`. Undefined metrics are NaN.
    """
    actual, predicted, correct = sums["actual"], sums["predicted"], sums["correct"]
    images = actual.sum(1)
    means = [metric.name for metric in rows if metric.per_image is not None and not metric.balanced]
    found = dict(zip(means, (sums["means"] / images[:, None]).T, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        found |= {"precision": correct / predicted, "recall": correct / actual}
        found["f1"] = 2 * correct / (actual + predicted)
        for metric in rows:
            if metric.balanced:
                found[metric.name] = np.nanmean(sums[_by_cell(metric)] / sums["cell_images"], axis=1)
        if "cell_images" in sums:
            found["cell_mae"] = sums["cells of balanced_mae"] / sums["cell_images"]
            found["cell_bias"] = sums["cell_error"] / sums["cell_images"]
        if "cell_covered" in sums:
            found["cell_coverage"] = sums["cell_covered"] / sums["cell_images"]
            found["cell_range_width"] = sums["cell_range"] / sums["cell_images"]
    known = {**sums, **found, "images": images}
    return found | {metric.name: metric.of_sums(known) for metric in rows if metric.of_sums is not None}


def from_images(images: Images, rows: Sequence[Metric], drawn: Drawn) -> dict[str, Array]:
    """Return the metrics of B sets of images that are not functions of sums, shape (B,) each.

    Args:
        images: N images, all finite.
        rows: The result of `rows_of` for the same predictions.
        drawn: Maps the indices of M images to how often each set contains them, int32, shape (B, M).
    """
    return {metric.name: metric.of_images(images, drawn) for metric in rows if metric.of_images is not None}


class BalancedMeans:
    """The metrics that give each label or cell the same weight, in resamples of groups of images.

    A resample may have no image of a rare label. The mean over the remaining labels would be another metric, and a
    biased one if rare labels are harder. The metrics are therefore resampled as weighted means over images, with the
    weights of the images in the complete set.

    Args:
        images: N images, all finite.
        rows: The result of `rows_of` for the same predictions.
        groups: The group of each image in [0, count), int64, shape (N,).
        count: G, the number of groups.
    """

    def __init__(self, images: Images, rows: Sequence[Metric], groups: Array, count: int) -> None:
        found = {row.name: tuple(each(images) for each in row.weighted) for row in rows if row.weighted is not None}
        self.names = list(found)
        sums = [
            np.bincount(groups, weights=each, minlength=count)
            for values, weights in found.values()
            for each in (values * weights, weights)
        ]
        self.columns = np.stack(sums, axis=1) if sums else np.empty((count, 0))  # (G, 2 metrics)

    def of(self, times: Array) -> dict[str, Array]:
        """Return the metrics of B resamples, shape (B,) each, from how often each contains each group, (B, G)."""
        drawn = times @ self.columns
        with np.errstate(invalid="ignore"):  # a resample may have no image
            return {name: drawn[:, 2 * i] / drawn[:, 2 * i + 1] for i, name in enumerate(self.names)}


def _by_cell(metric: Metric) -> str:
    """Return the key of the sums of a balanced metric over each cell."""
    return f"cells of {metric.name}"
