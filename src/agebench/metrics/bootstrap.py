"""How sure a figure is: percentile bootstrap over people where the images show people, else over images."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from agebench.groups import group_codes
from agebench.metrics.answers import Answers, Array, Images, cells, is_finite
from agebench.metrics.compute import from_images, from_sums, rows_of, sums

CENTRAL = (0.025, 0.975)
ROOM = 4_000_000  # numbers in one array of resamples: 32 MB
AT_ONCE = 1 << 16  # draws that a processor's cache holds


def resamples_for(count: int) -> int:
    """Return how often G groups are resampled: 10,000 times, and 2,000 times beyond 20,000 groups, to save time."""
    return 10_000 if count <= 20_000 else 2_000


def draw(count: int, *, resamples: int, seed: int, width: int = 1) -> Iterator[Array]:
    """Yield how often each of G groups is drawn, with replacement, G times: int32, shape (b, G), b resamples at a time.

    Args:
        count: G.
        resamples: How many in all.
        seed: Decides them; b has no influence.
        width: Columns of the widest array that the caller makes of a resample, which b leaves room for.
    """
    rng = np.random.default_rng(seed)
    most = max(1, ROOM // max(count, width))
    few = max(1, AT_ONCE // count)
    shift = np.arange(0, few * count, count, dtype=np.int32)[:, None]  # so that one bincount serves several resamples
    for first in range(0, resamples, most):
        times = np.empty((min(most, resamples - first), count), dtype=np.int32)
        for start in range(0, len(times), few):
            part = times[start : start + few]
            drawn = rng.integers(0, count, size=part.shape, dtype=np.int32) + shift[: len(part)]
            part[:] = np.bincount(drawn.reshape(-1), minlength=part.size).reshape(part.shape)
        yield times


def intervals(
    answers: Answers,
    groups: Array | None = None,
    *,
    means: Mapping[str, tuple[Array, Array]] | None = None,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, Array]:
    """Return the central 95% of every metric under resampling, low and high.

    It is the percentile bootstrap: as many groups as there are, drawn with replacement, each with all of its images;
    the metric is worked out from the images drawn. So people count by their images, in a resample as in the metric
    itself: whoever has twice the images weighs twice, and the number of images differs from resample to resample. All
    metrics share their resamples. Intervals are too narrow with few groups (below some 20) and for shares that hang on
    few images; that of a share of exactly 0 or 1 has no width. The calibration error of a resample is on average larger
    than that of the sample, for chance adds to absolute values: its interval lies too high and, for a well calibrated
    model, may miss the figure.

    Args:
        answers: N images.
        groups: Whose each image is, shape (N,); None resamples images one by one.
        means: Further metrics that are weighted means over images: a number and its weight for each image, shape (N,)
            both.
        resamples: How many; resamples_for decides if None.
        seed: Decides them.

    Returns:
        For every name of summarise and of `means` an array of shape (2,); for `precision`, `recall` and `f1` (2, R),
        for `cell_mae` and `cell_bias` (2, C), over the resamples in which the label or cell occurs. NaN where a number
        is not finite, and where fewer than two groups bear on the figure, for one group says nothing of others.
    """
    codes, count = group_codes(groups, len(answers.target))
    extra = dict(means or {})
    if count < 2 or not is_finite(answers):
        return _unknown(answers, list(extra))
    images, rows = Images(answers), rows_of(answers)
    added = sums(images, codes, count)
    few = _borne_by_few(added)
    for name, (numbers, weights) in extra.items():
        both = [np.bincount(codes, weights=each, minlength=count) for each in (numbers * weights, weights)]
        added[name] = np.stack(both, axis=1)  # (G, 2)
    keys, edges = list(added), np.cumsum([each.shape[1] for each in added.values()])
    columns = np.concatenate([added.pop(key) for key in keys], axis=1)  # (G, all columns)

    drawn: dict[str, list[Array]] = {}
    width = max(len(answers.target) if any(metric.of_images for metric in rows) else 0, columns.shape[1])
    for times in draw(count, resamples=resamples or resamples_for(count), seed=seed, width=width):
        parts = np.split(times.astype(np.float64) @ columns, edges[:-1], axis=1)
        resampled = dict(zip(keys, parts, strict=True))
        further = {name: resampled.pop(name) for name in extra}
        found = from_sums(resampled, rows)
        found |= {name: each[:, 0] / each[:, 1] for name, each in further.items()}
        found |= from_images(images, rows, partial(_times_of_images, times, codes))
        for name, each in found.items():
            drawn.setdefault(name, []).append(each)
    bounds = {name: _central(np.concatenate(each)) for name, each in drawn.items()}
    return {name: np.where(few[name], np.nan, each) if name in few else each for name, each in bounds.items()}


def _borne_by_few(added: Mapping[str, Array]) -> dict[str, Array]:
    """Return for each table of figures which of them fewer than two groups bear on, bool, shape (R,) or (C,)."""
    bearing = {"precision": added["predicted"], "recall": added["actual"], "f1": added["predicted"] + added["actual"]}
    if "cell_images" in added:
        bearing |= {"cell_mae": added["cell_images"], "cell_bias": added["cell_images"]}
    return {name: (images > 0).sum(0) < 2 for name, images in bearing.items()}


def _times_of_images(times: Array, codes: Array, images: Array) -> Array:
    """Return how often each resample contains each of M images, int32, shape (b, M), from its groups, shape (b, G)."""
    return times[:, codes[images]]


def _unknown(answers: Answers, extra: list[str]) -> dict[str, Array]:
    labels, widths = len(answers.values), dict[str, int]()
    widths |= dict.fromkeys(("precision", "recall", "f1"), labels)
    if answers.ordered:
        widths |= dict.fromkeys(("cell_mae", "cell_bias"), len(cells(answers)[1]))
    scalars = [*(metric.name for metric in rows_of(answers)), *extra]
    tables = {name: np.full((2, width), np.nan) for name, width in widths.items()}
    return {name: np.full(2, np.nan) for name in scalars} | tables


def _central(resampled: Array) -> Array:
    """Return the bounds of the central 95% of (B, ...), shape (2, ...), NaN left out."""
    if not np.isnan(resampled).any():
        return np.quantile(resampled, CENTRAL, axis=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # a label that no image has
        found: Array = np.nanquantile(resampled, CENTRAL, axis=0)
    return found


@dataclass(frozen=True)
class Difference:
    """How much a mean over images differs between two models tested on the same images.

    Args:
        value: Mean of the first less mean of the second.
        low: Lower bound of its 95% interval.
        high: Upper bound.
        p: Two-sided p-value of there being none.
    """

    value: float
    low: float
    high: float
    p: float


def paired_difference(
    numbers_a: Array, numbers_b: Array, groups: Array | None = None, *, resamples: int | None = None, seed: int = 0
) -> Difference:
    """Compare two models by the percentile bootstrap of the difference on each image, resampled as in `intervals`.

    The p-value is twice the share of resamples whose difference lies on the other side of zero, or on it: the level at
    which the interval would just reach zero. The sample itself counts as one such resample, so it is never below
    2 / (resamples + 1).

    Args:
        numbers_a: One number an image of the first model, such as its absolute error, shape (N,).
        numbers_b: The same of the second, for the same images in the same order.
        groups: Whose each image is, shape (N,); None resamples images one by one.
        resamples: How many; resamples_for decides if None.
        seed: Decides them.

    Returns:
        The difference; interval and p-value are NaN if a number is not finite or there are fewer than two groups.

    Raises:
        ValueError: If the shapes disagree.
    """
    apart = np.asarray(numbers_a, dtype=np.float64) - np.asarray(numbers_b, dtype=np.float64)
    if not np.shape(numbers_a) == np.shape(numbers_b) == apart.shape[:1]:
        raise ValueError(f"needed two arrays of the same shape (N,), got {np.shape(numbers_a)}, {np.shape(numbers_b)}")
    codes, count = group_codes(groups, len(apart))
    value = float(apart.mean())
    if count < 2 or not np.isfinite(value):
        return Difference(value, float("nan"), float("nan"), float("nan"))
    columns = np.stack([np.bincount(codes, weights=apart), np.bincount(codes).astype(np.float64)], axis=1)  # (G, 2)
    resamples = resamples or resamples_for(count)
    added = np.concatenate(
        [times.astype(np.float64) @ columns for times in draw(count, resamples=resamples, seed=seed)]
    )
    resampled = added[:, 0] / added[:, 1]
    low, high = np.quantile(resampled, CENTRAL)
    beyond = min(int((resampled <= 0).sum()), int((resampled >= 0).sum())) + 1
    return Difference(value, float(low), float(high), min(1.0, 2 * beyond / (resamples + 1)))
