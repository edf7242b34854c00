"""How good answers are: pure functions on arrays, every image counted once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

REACHES = range(11)  # years k of the cumulative score CS@k
FLOOR = 1e-12  # of a probability before its logarithm: an image costs at most 27.6 nats
BINS = 15  # of the expected calibration error
# What every epoch logs and every test shows; results.json has all.
HEADLINE = ("loss", "accuracy", "macro_f1", "nll", "mae", "bias", "cs5", "within_1", "qwk")


@dataclass(frozen=True)
class Answers:
    """What was answered for N images, and what is true.

    Args:
        posterior: Probability of each label, float, shape (N, R).
        point: One estimate an image in the target's unit, shape (N,).
        target: True label indices in [0, R), any integer type, shape (N,).
        values: What each label is worth in the unit, shape (R,).
        ordered: Whether distances between labels mean something.
        unit: `years`, `decades`, `bins`, or empty for classes.
    """

    posterior: Array
    point: Array
    target: Array
    values: Array
    ordered: bool
    unit: str


def names(*, num_labels: int, ordered: bool, unit: str) -> list[str]:
    """Return the names of the metrics that summarise works out, in its order."""
    found = ["accuracy", *(["top5"] if num_labels > 5 else []), "balanced_accuracy", "macro_f1", "nll", "ece"]
    if not ordered:
        return found
    within = [f"cs{years}" for years in REACHES] if unit == "years" else ["within_1"]
    return [*found, "mae", "rmse", "median_error", "bias", *within, "qwk", "balanced_mae"]


def headline(*, ordered: bool, unit: str) -> list[str]:
    """Return those few that are logged at each epoch and shown after a test, the loss first."""
    return ["loss", *(name for name in names(num_labels=2, ordered=ordered, unit=unit) if name in HEADLINE)]


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
    wanted = names(num_labels=len(answers.values), ordered=answers.ordered, unit=answers.unit)
    if not is_finite(answers):
        return dict.fromkeys(wanted, float("nan"))
    found = from_sums(sums(answers, np.zeros(len(answers.target), dtype=np.int64), 1), list(per_image(answers)))
    if answers.ordered:
        found["median_error"] = np.median(np.abs(errors(answers)), keepdims=True)
    return {name: float(found[name][0]) for name in wanted}


def is_finite(answers: Answers) -> bool:
    """Return whether all probabilities and estimates are numbers."""
    return bool(np.isfinite(answers.posterior).all() and np.isfinite(answers.point).all())


def errors(answers: Answers) -> Array:
    """Return estimate less true value in the unit, float64, shape (N,)."""
    # Float first: unsigned labels wrap round, |3 - 5| = 254.
    return np.asarray(answers.point, dtype=np.float64) - np.asarray(answers.values, dtype=np.float64)[answers.target]


def per_image(answers: Answers) -> dict[str, Array]:
    """Return those metrics that are means over images, one number an image each, float64, shape (N,)."""
    posterior, target = answers.posterior, answers.target.astype(np.int64)
    likelihood = posterior[np.arange(len(target)), target]  # (N, R) -> (N,)
    found = {"accuracy": posterior.argmax(1) == target}
    if posterior.shape[1] > 5:
        earlier = np.arange(posterior.shape[1]) < target[:, None]  # (R,) < (N, 1) -> (N, R)
        before = (posterior > likelihood[:, None]) | ((posterior == likelihood[:, None]) & earlier)
        found["top5"] = before.sum(1) < 5
    found["nll"] = -np.log(np.clip(likelihood.astype(np.float64), FLOOR, None))
    if answers.ordered:
        error = errors(answers)
        found |= {"mae": np.abs(error), "bias": error}
        reaches = {f"cs{years}": years for years in REACHES} if answers.unit == "years" else {"within_1": 1}
        found |= {name: np.abs(error) <= reach for name, reach in reaches.items()}
    return {name: each.astype(np.float64) for name, each in found.items()}


def cells(answers: Answers) -> tuple[Array, Array]:
    """Return which cell of balanced_mae each label lies in, int64, shape (R,), and what the C cells are called, (C,).

    Ages in years share the cell of their decade, called 1 for 10 to 19; any other label has one of its own.
    """
    values = np.asarray(answers.values, dtype=np.float64)
    called, cell = np.unique(values // 10 if answers.unit == "years" else values, return_inverse=True)
    return cell, called


def sums(answers: Answers, groups: Array, count: int) -> dict[str, Array]:
    """Add up over the images of each group whatever the metrics need, float64, shape (G, columns) each.

    Only the median is no function of such sums.

    Args:
        answers: All finite.
        groups: The group of each image in [0, count), int64, shape (N,).
        count: G, how many groups there are.
    """
    labels = len(answers.values)
    target, predicted = answers.target.astype(np.int64), answers.posterior.argmax(1)
    right = (predicted == target).astype(np.float64)
    confidence = answers.posterior.max(1).astype(np.float64)
    # Bin i holds i/15 < confidence <= (i + 1)/15; rounding may take a probability a hair above one.
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)

    def add(weights: Array | None = None, *, at: Array | int = 0, width: int = 1) -> Array:
        added = np.bincount(groups * width + at, weights=weights, minlength=count * width)  # (N,) -> (G * width,)
        return added.reshape(count, width).astype(np.float64, copy=False)

    found = {
        "means": np.concatenate([add(each) for each in per_image(answers).values()], axis=1),
        "actual": add(at=target, width=labels),
        "predicted": add(at=predicted, width=labels),
        "right": add(right, at=target, width=labels),
        "gaps": add(right - confidence, at=bins, width=BINS),
    }
    if answers.ordered:
        error, (cell, called) = errors(answers), cells(answers)
        cell, width = cell[target], len(called)  # (R,) -> (N,)
        found |= {
            "squared": add(error**2),
            "disagreement": add((target - predicted) ** 2.0),
            "cell_images": add(at=cell, width=width),
            "cell_absolute": add(np.abs(error), at=cell, width=width),
            "cell_error": add(error, at=cell, width=width),
        }
    return found


def from_sums(sums: dict[str, Array], means: Sequence[str]) -> dict[str, Array]:
    """Return the metrics of each of B sets of images, shape (B,), and the tables among them.

    Args:
        sums: What `sums` returns of those sets, shape (B, columns) each.
        means: What the columns of sums["means"] are called.

    Returns:
        Every metric but the median, float64, shape (B,); for each label `precision`, `recall` and `f1`, shape (B, R);
        for each cell `cell_mae` and `cell_bias`, shape (B, C). What no image bears on is NaN.
    """
    actual, predicted, right = sums["actual"], sums["predicted"], sums["right"]
    images = actual.sum(1)
    found = dict(zip(means, (sums["means"] / images[:, None]).T, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        found |= {"precision": right / predicted, "recall": right / actual, "f1": 2 * right / (actual + predicted)}
        if "cell_images" in sums:
            found["cell_mae"] = sums["cell_absolute"] / sums["cell_images"]
            found["cell_bias"] = sums["cell_error"] / sums["cell_images"]
    found["balanced_accuracy"] = np.nanmean(found["recall"], axis=1)
    found["macro_f1"] = np.nanmean(found["f1"], axis=1)
    found["ece"] = np.abs(sums["gaps"]).sum(1) / images
    if "cell_images" in sums:
        found["rmse"] = np.sqrt(sums["squared"][:, 0] / images)
        found["qwk"] = _quadratic_kappa(actual, predicted, sums["disagreement"][:, 0])
        found["balanced_mae"] = np.nanmean(found["cell_mae"], axis=1)
    return found


def _quadratic_kappa(actual: Array, predicted: Array, disagreement: Array) -> Array:
    """Return kappa, shape (B,), from label counts (B, R) and the sum of squared label distances (B,).

    By chance alone that sum would be, over pairs of labels j and k, that of (j - k)^2 actual_j predicted_k / images.
    """
    labels = np.arange(actual.shape[1], dtype=np.float64)
    images = actual.sum(1)
    chance = (actual + predicted) @ labels**2 - 2 * (actual @ labels) * (predicted @ labels) / images
    return np.where(chance > 0, 1 - disagreement / np.where(chance > 0, chance, 1), 0.0)
