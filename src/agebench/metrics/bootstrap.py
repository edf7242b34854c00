"""Bootstrap intervals of metrics, over people if their identities are known, else over images."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from agebench.identity_groups import group_codes
from agebench.metrics import decisions
from agebench.metrics.compute import BalancedMeans, from_images, from_sums, rows_of, sums
from agebench.metrics.predictions import Array, Images, LabelledPredictions, cells, is_finite
from agebench.metrics.table import Metric

METHOD = "expanded percentile"
FEW = 20  # groups below which intervals hold less often than 95%, even with the correction
FEW_IN_CELL = 5  # groups of a cell below which a mean over cells has no interval: one error decides too much
MAX_ELEMENTS = 4_000_000  # elements of one array of resamples: 32 MB
CELL_METRICS = ("cell_mae", "cell_bias", "cell_coverage", "cell_range_width")  # the last two if calibrated
CACHED_DRAWS = 1 << 16  # draws that fit into a processor's cache


def effective_groups(codes: Array, count: int) -> float:
    """Return the number of groups of equal size that are as informative, after Kish: (sum of sizes)^2 / sum of squares.

    Args:
        codes: The group of each image in [0, G), int64, shape (N,).
        count: G.
    """
    sizes = np.bincount(codes, minlength=count).astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def central_levels(groups: float) -> tuple[float, float]:
    """Return the quantiles of the resamples that bound a 95% interval over G groups.

    A percentile interval is too narrow for few groups: the variance of resamples is (G - 1) / G of what it should be,
    and a normal quantile takes the place of Student's. The expanded percentile interval of Hesterberg (2015),
    doi:10.1080/00031305.2015.1089789, corrects both. For 10 groups it takes the quantiles 0.9% and 99.1%, for 120
    groups 2.3% and 97.7%. It stays within the range of the metric.

    Args:
        groups: G above 1, the result of effective_groups.
    """
    from scipy.special import ndtr, stdtrit

    low = float(ndtr(-stdtrit(groups - 1, 0.975) * math.sqrt(groups / (groups - 1))))
    return low, 1 - low


def corrected_p_value(p: float, groups: float) -> float:
    """Return a two-sided p-value with the correction of central_levels, so that it agrees with the interval.

    Args:
        p: Twice the share of resamples on the other side, above 0.
        groups: G above 1, the result of effective_groups.
    """
    from scipy.special import ndtri, stdtr

    return min(1.0, 2 * float(stdtr(groups - 1, ndtri(min(p, 1.0) / 2) * math.sqrt((groups - 1) / groups))))


def few_groups(groups: int, what: str) -> str:
    """Return a warning about intervals over fewer than FEW groups, or an empty string.

    Args:
        groups: G.
        what: The name of a group, `people` or `images`.
    """
    if not 2 <= groups < FEW:
        return ""
    return f"95% intervals over only {groups} {what} hold less often than 95% of the time: see docs/heads.md"


def few_in_cell(name: str, what: str) -> str:
    """Return why a balanced metric has no interval.

    Args:
        name: The metric.
        what: The name of a group, `people` or `images`.
    """
    return f"{name} has no interval: a decade or label of the test has fewer than {FEW_IN_CELL} {what}"


def resamples_for(count: int) -> int:
    """Return the number of resamples for G groups: 10,000, or 2,000 above 20,000 groups, to save time."""
    return 10_000 if count <= 20_000 else 2_000


def draw(count: int, *, resamples: int, seed: int, width: int = 1) -> Iterator[Array]:
    """Yield resamples of G groups in batches of b: the number of times that each group is drawn, int32, shape (b, G).

    Each resample draws G groups with replacement.

    Args:
        count: G.
        resamples: Total number of resamples.
        seed: Seed of the random generator. The resamples do not depend on b.
        width: Columns of the widest array that the caller computes per resample. It limits b.
    """
    rng = np.random.default_rng(seed)
    batch = max(1, MAX_ELEMENTS // max(count, width))
    chunk = max(1, CACHED_DRAWS // count)
    shift = np.arange(0, chunk * count, count, dtype=np.int32)[:, None]  # so that one bincount counts a chunk
    for first in range(0, resamples, batch):
        times = np.empty((min(batch, resamples - first), count), dtype=np.int32)
        for start in range(0, len(times), chunk):
            part = times[start : start + chunk]
            drawn = rng.integers(0, count, size=part.shape, dtype=np.int32) + shift[: len(part)]
            part[:] = np.bincount(drawn.reshape(-1), minlength=part.size).reshape(part.shape)
        yield times


def intervals(
    predictions: LabelledPredictions,
    groups: Array | None = None,
    *,
    means: Mapping[str, tuple[Array, Array]] | None = None,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, Array]:
    """Return the 95% bootstrap interval of every metric: lower and upper bound, the quantiles of central_levels.

    A resample draws as many groups as there are, with replacement, each with all of its images. A metric is computed
    from the images drawn, so a person with twice the images has twice the weight, and the number of images varies
    between resamples. All metrics share their resamples. Metrics that are a mean over labels are resampled as weighted
    means over images, see agebench.metrics.compute.BalancedMeans.

    Intervals hold less often than 95% with fewer than FEW groups, and for labels and shares that depend on few. The
    interval of a share of exactly 0 or 1 has no width. The calibration error is biased upwards in resamples, so its
    interval is too high; for a well calibrated model it may not contain the metric. Intervals of decisions at an age
    limit are wider, see agebench.metrics.decisions.widen.

    Args:
        predictions: N images.
        groups: The group of each image, usually a person, shape (N,). None resamples single images.
        means: Further metrics that are weighted means over images: the value and the weight of each image, both of
            shape (N,).
        resamples: Number of resamples; None is resamples_for.
        seed: Random seed of the resamples.

    Returns:
        An array of shape (2,) for every metric of summarise and of `means`; of shape (2, R) for `precision`, `recall`
        and `f1`; of shape (2, C) for CELL_METRICS, over the resamples in which the label or cell occurs.
        NaN if a prediction is not finite, for metrics that depend on fewer than two groups, and for balanced metrics
        with fewer than FEW_IN_CELL groups in a cell.
    """
    codes, count = group_codes(groups, len(predictions.target))
    extra = dict(means or {})
    if count < 2 or not is_finite(predictions):
        return _unknown(predictions, list(extra))
    images, rows = Images(predictions), rows_of(predictions)
    added, balanced = sums(images, codes, count), BalancedMeans(images, rows, codes, count)
    undefined = _has_few_groups(added, rows)
    for name, (numbers, weights) in extra.items():
        both = [np.bincount(codes, weights=each, minlength=count) for each in (numbers * weights, weights)]
        added[name] = np.stack(both, axis=1)  # (G, 2)
    keys, edges = list(added), np.cumsum([each.shape[1] for each in added.values()])
    columns = np.concatenate([added.pop(key) for key in keys], axis=1)  # (G, all columns)

    drawn: dict[str, list[Array]] = {}
    width = max(len(predictions.target) if any(metric.of_images for metric in rows) else 0, columns.shape[1])
    for times in draw(count, resamples=resamples or resamples_for(count), seed=seed, width=width):
        weights = times.astype(np.float64)
        parts = np.split(weights @ columns, edges[:-1], axis=1)
        resampled = dict(zip(keys, parts, strict=True))
        further = {name: resampled.pop(name) for name in extra}
        found = from_sums(resampled, rows) | balanced.of(weights)
        with np.errstate(invalid="ignore"):  # a resample may have no image with a weight
            found |= {name: each[:, 0] / each[:, 1] for name, each in further.items()}
        found |= from_images(images, rows, partial(_times_of_images, times, codes))
        for name, each in found.items():
            drawn.setdefault(name, []).append(each)
    levels = central_levels(effective_groups(codes, count))
    bounds = {name: _quantiles(np.concatenate(each), levels) for name, each in drawn.items()}
    bounds = {n: np.where(undefined[n], np.nan, each) if n in undefined else each for n, each in bounds.items()}
    return decisions.widen(bounds, images, codes)


def _has_few_groups(added: Mapping[str, Array], rows: Sequence[Metric]) -> dict[str, Array]:
    """Return whether each metric of a label or cell depends on too few groups, bool, shape (R,), (C,) or ()."""
    counts = {"precision": added["predicted"], "recall": added["actual"], "f1": added["predicted"] + added["actual"]}
    if "cell_images" in added:
        counts |= dict.fromkeys(CELL_METRICS, added["cell_images"])
    few = {name: (images > 0).sum(0) < 2 for name, images in counts.items()}
    if "cell_images" in added:
        in_cells = (added["cell_images"] > 0).sum(0)  # groups, (C,)
        too_few = np.asarray(((in_cells > 0) & (in_cells < FEW_IN_CELL)).any())
        few |= {metric.name: too_few for metric in rows if metric.balanced}
    return few


def _times_of_images(times: Array, codes: Array, images: Array) -> Array:
    """Return how often each resample contains each of M images, int32, shape (b, M), from groups (b, G)."""
    return times[:, codes[images]]


def _unknown(predictions: LabelledPredictions, extra: list[str]) -> dict[str, Array]:
    """Return the intervals of predictions that are not finite: NaN for every metric."""
    labels, widths = len(predictions.values), dict[str, int]()
    widths |= dict.fromkeys(("precision", "recall", "f1"), labels)
    if predictions.ordered:
        metrics = CELL_METRICS if predictions.calibrated is not None else CELL_METRICS[:2]
        widths |= dict.fromkeys(metrics, len(cells(predictions)[1]))
    scalars = [*(metric.name for metric in rows_of(predictions)), *extra]
    tables = {name: np.full((2, width), np.nan) for name, width in widths.items()}
    return {name: np.full(2, np.nan) for name in scalars} | tables


def _quantiles(resampled: Array, levels: tuple[float, float]) -> Array:
    """Return two quantiles of (B, ...), ignoring NaN, shape (2, ...)."""
    if not np.isnan(resampled).any():
        return np.quantile(resampled, levels, axis=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # a label without images
        found: Array = np.nanquantile(resampled, levels, axis=0)
    return found
