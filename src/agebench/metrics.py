"""How good predictions are: pure functions on arrays, every image counted once."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def per_image(
    posterior: Array, point: Array, target: Array, *, values: Array, ordered: bool, unit: str
) -> dict[str, Array]:
    """Return those metrics that are means over images, one number an image each, float64, shape (N,).

    Args:
        posterior: Probability of each label, shape (N, R).
        point: One estimate an image in the target's unit, shape (N,).
        target: Label indices in [0, R), shape (N,).
        values: What each label is worth in the unit, shape (R,).
        ordered: Whether distances between labels mean something.
        unit: `years` adds cs5, the share within 5 years; every other ordered unit adds within_1.
    """
    numbers = {"accuracy": (posterior.argmax(1) == target).astype(np.float64)}
    if ordered:
        # Float first: unsigned labels wrap round, |3 - 5| = 254.
        error = np.asarray(point, dtype=np.float64) - np.asarray(values, dtype=np.float64)[target]
        numbers |= {"mae": np.abs(error), "bias": error}
        name, reach = ("cs5", 5.0) if unit == "years" else ("within_1", 1.0)
        numbers[name] = (np.abs(error) <= reach).astype(np.float64)
    return numbers


def summarise(
    posterior: Array, point: Array, target: Array, *, values: Array, ordered: bool, unit: str
) -> dict[str, float]:
    """Return every metric of a part: the means of per_image, macro F1, and for ordered labels quadratic kappa.

    The arguments are those of per_image.
    """
    numbers = per_image(posterior, point, target, values=values, ordered=ordered, unit=unit)
    metrics = {name: float(each.mean()) for name, each in numbers.items()}
    counts = confusion(posterior.argmax(1), target, posterior.shape[1])
    metrics["macro_f1"] = macro_f1(counts)
    if ordered:
        metrics["qwk"] = quadratic_kappa(counts)
    return metrics


def confusion(predicted: Array, target: Array, num_labels: int) -> Array:
    """Count images by (actual, predicted) label, int64, shape (R, R)."""
    # Wide first: 30 * 10 wraps round in uint8.
    pairs = np.bincount(
        target.astype(np.int64) * num_labels + predicted.astype(np.int64), minlength=num_labels * num_labels
    )
    return pairs.reshape(num_labels, num_labels)


def macro_f1(counts: Array) -> float:
    """Return the mean F1 over the labels that occur, as actual or predicted, from counts of shape (R, R)."""
    hits, actual, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    occurs = (actual + predicted) > 0
    return float((2 * hits[occurs] / (actual + predicted)[occurs]).mean())


def quadratic_kappa(counts: Array) -> float:
    """Return Cohen's kappa with quadratic weights from counts of shape (R, R); 0 where chance explains everything."""
    labels = np.arange(len(counts))
    weights = (labels[:, None] - labels[None]) ** 2.0
    chance = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
    expected = float((weights * chance).sum())
    return 1.0 - float((weights * counts).sum()) / expected if expected > 0 else 0.0


def bootstrap(
    numbers: dict[str, Array], groups: Array | None = None, *, resamples: int = 2_000, seed: int = 0
) -> dict[str, list[float]]:
    """Return the central 95% interval of each mean under resampling of images, or of whole groups (people).

    Args:
        numbers: One number an image for each metric, shape (N,).
        groups: Whose image it is, shape (N,); None resamples images one by one.
        resamples: How many.
        seed: Decides the resamples.
    """
    if not numbers:
        return {}
    count = len(next(iter(numbers.values())))
    codes = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(codes).astype(np.float64)
    sums = np.stack([np.bincount(codes, weights=each) for each in numbers.values()], axis=1)  # (G, M)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, len(numbers)))
    share = np.full(len(sizes), 1 / len(sizes))
    for first in range(0, resamples, 100):
        times = rng.multinomial(len(sizes), share, size=min(100, resamples - first))  # how often each group is drawn
        means[first : first + 100] = (times @ sums) / (times @ sizes)[:, None]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return {name: [float(a), float(b)] for name, a, b in zip(numbers, low, high, strict=True)}
