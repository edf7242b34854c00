"""Metrics by group, such as sex or race, and the gap between the groups with the worst and the best value."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from agebench.identity_groups import factorize, group_codes
from agebench.metrics.bootstrap import FEW_IN_CELL, draw, intervals, resamples_for
from agebench.metrics.compute import BalancedMeans, from_images, from_sums, rows_of, summarise, sums
from agebench.metrics.decisions import FALSE_ADULT, FALSE_MINOR
from agebench.metrics.holm import holm
from agebench.metrics.predictions import Array, Images, LabelledPredictions, take
from agebench.metrics.table import Metric, find

LEAST = 30  # people, or images of unknown people, of a group that is compared with others
UNKNOWN = "unknown"  # the name of the group of images without a value, which comes last
BETWEEN = " x "  # between the two columns, or the two groups, of a pair
COVERAGE = 0.95
NAMED = 5  # groups that a note names


@dataclass(frozen=True)
class Group:
    """A group of test images.

    Args:
        by: The column, such as `sex`, or a pair of columns, such as `sex x race`.
        name: The name of the group, such as `female` or `female x asian`.
        rows: The indices of its images, int64, shape (n,).
        people: The number of its people. An image of unknown identity is a separate person.
        values: The metrics that are given by group. Empty for a pair of groups with fewer than LEAST people.
        bounds: Their 95% intervals, shape (2,) each.
    """

    by: str
    name: str
    rows: Array
    people: int
    values: Mapping[str, float]
    bounds: Mapping[str, Array]

    @property
    def is_small(self) -> bool:
        """Whether the group has too few people to be compared with others."""
        return self.people < LEAST


@dataclass(frozen=True)
class Gap:
    """The difference of a metric between the two groups of a column that differ most.

    Args:
        by: The column or the pair of columns.
        metric: The name of the metric.
        worst: The group with the worse value. If values nearest to zero are better, the one further from zero.
        best: The other group.
        groups: The number of groups that were compared.
        value: The absolute difference of both values.
        low: Lower bound of the 95% interval. It is below zero if the groups may have equal values.
        high: Upper bound of the 95% interval.
        p: p-value of no difference between any groups.
        adjusted: The p-value after Holm's correction for the columns and pairs of columns of the same metric.
        values: The metric of each group that was compared.
    """

    by: str
    metric: str
    worst: str
    best: str
    groups: int
    value: float
    low: float
    high: float
    p: float
    adjusted: float
    values: Mapping[str, float] = field(default_factory=dict)


def rows_by_group(predictions: LabelledPredictions) -> list[Metric]:
    """Return the rows of the metrics that are given by group, in the order of the table."""
    return [metric for metric in rows_of(predictions) if metric.by_group]


def labels_by(columns: Mapping[str, Array]) -> dict[str, Array]:
    """Return the group of each image, str, shape (N,), for every column and every pair of columns."""
    pairs = {
        BETWEEN.join(pair): np.array([BETWEEN.join(both) for both in zip(*(columns[c] for c in pair), strict=True)])
        for pair in combinations(columns, 2)
    }
    return {**columns, **pairs}


def members(labels: Array) -> Iterator[tuple[str, Array]]:
    """Yield the name and the indices of the images of each group, sorted by name; numbers by value, `unknown` last."""
    names, codes = factorize(labels)
    index = {name: i for i, name in enumerate(names.tolist())}
    numeric = all(name.isdecimal() for name in index if name != UNKNOWN)

    def key(name: str) -> tuple[bool, int, str]:
        return name == UNKNOWN, int(name) if numeric and name != UNKNOWN else 0, name

    for name in sorted(index, key=key):
        yield name, np.flatnonzero(codes == index[name])


def measure_groups(
    predictions: LabelledPredictions,
    columns: Mapping[str, Array],
    identities: Array | None,
    *,
    resamples: int | None = None,
) -> list[Group]:
    """Return the metrics of each group and of each pair of groups.

    Args:
        predictions: N images, all finite.
        columns: The group of each image, str, shape (N,) for each column.
        identities: The identity of each image, shape (N,). None: all are unknown.
        resamples: Number of resamples of each interval; None is resamples_for.
    """
    names, found = [metric.name for metric in rows_by_group(predictions)], []
    for by, labels in labels_by(columns).items():
        for name, rows in members(labels):
            people = None if identities is None else identities[rows]
            group = Group(by, name, rows, group_codes(people, len(rows))[1], {}, {})
            if not (group.is_small and by not in columns):
                part = take(predictions, rows)
                values, bounds = summarise(part), intervals(part, people, resamples=resamples)
                values, bounds = ({n: each[n] for n in names if n in each} for each in (values, bounds))  # type: ignore[assignment]  # both have the same keys
                group = replace(group, values=values, bounds=bounds)
            found.append(group)
    return found


def find_gaps(
    predictions: LabelledPredictions,
    groups: Sequence[Group],
    identities: Array | None,
    *,
    resamples: int | None = None,
    seed: int = 0,
) -> list[Gap]:
    """Return the gap of each headline metric for each column and pair of columns with two groups that are not small.

    The error rates at an age limit depend on the people on one side of it, and need LEAST of them in a group.

    A resample draws as many people as there are, with replacement, each with all images in all groups. The worst and
    the best group are selected among all groups, so the interval and the p-value are those of the largest of all
    pairwise differences (single-step maxT, Westfall and Young 1993): the interval is the gap ± q standard errors, where
    q is the 95% quantile of max |d* - d| / se over all pairs of groups, d is a difference and d* a resampled one. The
    p-value is the share of resamples, and the sample itself, whose maximum is at least gap / se.

    Args:
        predictions: N images, all finite.
        groups: The result of `measure_groups`.
        identities: The identity of each image, shape (N,). None: all are unknown.
        resamples: Number of resamples; None is resamples_for.
        seed: Random seed of the resamples.
    """
    codes, count = group_codes(identities, len(predictions.target))
    compared: dict[str, list[Group]] = {}
    for group in groups:
        if not group.is_small:
            compared.setdefault(group.by, []).append(group)
    kept = [group for each in compared.values() if len(each) > 1 for group in each]
    parts = [_Part(take(predictions, group.rows), codes[group.rows]) for group in kept]
    drawn: list[dict[str, list[Array]]] = [{} for _ in kept]
    width = max((part.width for part in parts), default=1)
    for times in draw(count, resamples=resamples or resamples_for(count), seed=seed, width=width) if kept else ():
        for part, each in zip(parts, drawn, strict=True):
            for name, values in part.metrics(times).items():
                each.setdefault(name, []).append(values)
    resampled = [{name: np.concatenate(values) for name, values in each.items()} for each in drawn]
    gaps = []
    for by in dict.fromkeys(group.by for group in kept):
        for metric in rows_by_group(predictions):
            name = metric.name
            of = [i for i, part in enumerate(parts) if kept[i].by == by and part.people_of(name) >= LEAST]
            if len(of) > 1:
                gaps.append(_gap([kept[i] for i in of], name, np.stack([resampled[i][name] for i in of], axis=1)))
    corrected: dict[tuple[str, str], float] = {}
    for name in dict.fromkeys(gap.metric for gap in gaps):
        of_metric = [gap for gap in gaps if gap.metric == name]
        for gap, adjusted in zip(of_metric, holm([gap.p for gap in of_metric]), strict=True):
            corrected[gap.by, name] = adjusted
    return [replace(gap, adjusted=corrected[gap.by, gap.metric]) for gap in gaps]


def group_sizes(labels: Array, identities: Array | None, weights: Array | None = None) -> dict[str, int]:
    """Return the number of people of each group, in the order of `members`; only those with a weight above 0."""
    codes, _ = group_codes(identities, len(labels))
    kept = np.ones(len(labels), dtype=bool) if weights is None else weights > 0
    return {name: len(np.unique(codes[rows[kept[rows]]])) for name, rows in members(labels)}


def small_groups(sizes: Mapping[str, int]) -> str:
    """Return the names and sizes of the groups that are not compared, such as `Asian (12), other (3) and 2 more`."""
    small = [f"{name} ({people:,})" for name, people in sizes.items() if people < LEAST]
    return ", ".join(small[:NAMED]) + (f" and {len(small) - NAMED:,} more" if len(small) > NAMED else "")


def standardise(values: Array, labels: Array, cells: Array, identities: Array | None) -> tuple[Array, Array]:
    """Return values and weights, float64, shape (N,) each, whose mean over a group is its age-standardised mean.

    This is direct standardisation. The standard is the distribution of the images of all groups with at least LEAST
    people. It has the cells (decades) in which each of these groups has at least FEW_IN_CELL people. An image in cell c
    of group g has the weight (images in c) / (images of g in c). All other images have the weight 0.

    The values are the standardised mean of the group plus the residual from the mean of its cell. So their resamples
    vary as the means within cells do, for the given ages: the usual variance of a standardised mean. The factor
    sqrt(P / (P - 1)) for P people makes the variance of a small cell unbiased.

    Args:
        values: The value of each image, float64, shape (N,).
        labels: The group of each image, str, shape (N,).
        cells: The cell of each image in [0, C), int64, shape (N,).
        identities: The identity of each image, shape (N,). None: all are unknown.
    """
    adjusted, weights = np.zeros(len(labels)), np.zeros(len(labels))
    codes, count = group_codes(identities, len(labels))
    sizes = group_sizes(labels, identities)
    groups = [rows for name, rows in members(labels) if sizes[name] >= LEAST]
    if not groups:
        return adjusted, weights
    width = int(cells.max()) + 1
    images = np.stack([np.bincount(cells[rows], minlength=width) for rows in groups])  # (K, C)
    pairs = [np.unique(cells[rows] * count + codes[rows]) // count for rows in groups]  # a cell for each of its people
    people = np.stack([np.bincount(each, minlength=width) for each in pairs])  # (K, C)
    shared: Array = np.asarray((people >= FEW_IN_CELL).all(0))  # (C,)
    for rows, own, persons in zip(groups, images, people, strict=True) if shared.any() else ():
        kept = rows[shared[cells[rows]]]
        cell = cells[kept]
        weights[kept] = images.sum(0)[cell] / own[cell]
        residuals = values[kept] - (np.bincount(cell, values[kept], minlength=width)[cell] / own[cell])
        spread = np.sqrt(persons[cell] / (persons[cell] - 1))
        adjusted[kept] = np.average(values[kept], weights=weights[kept]) + residuals * spread
    return adjusted, weights


def gap_of_means(
    values: Array, labels: Array, identities: Array | None, *, by: str, metric: str, weights: Array | None = None
) -> Gap | None:
    """Return the gap of a mean over images, as find_gaps computes it, but without Holm's correction.

    Resamples keep the weights.

    Args:
        values: The value of each image, float64, shape (N,).
        labels: The group of each image, str, shape (N,).
        identities: The identity of each image, shape (N,). None: all are unknown.
        by: The column of the groups.
        metric: The name of the metric.
        weights: The weight of each image in the mean of its group, float64, shape (N,). None: all are equal.

    Returns:
        None if fewer than two groups have LEAST people with a weight above 0.
    """
    codes, count = group_codes(identities, len(values))
    sizes, all_weights = group_sizes(labels, identities, weights), np.ones(len(values)) if weights is None else weights
    groups = [
        Group(by, name, rows, sizes[name], {metric: float(np.average(values[rows], weights=all_weights[rows]))}, {})
        for name, rows in members(labels)
        if sizes[name] >= LEAST
    ]
    if len(groups) < 2:
        return None
    weighted = all_weights * values
    added = [np.bincount(codes[group.rows], weighted[group.rows], minlength=count) for group in groups]
    added += [np.bincount(codes[group.rows], all_weights[group.rows], minlength=count) for group in groups]
    columns = np.stack(added, axis=1)  # (people, 2 K): sums of weighted values and of weights
    drawn = draw(count, resamples=resamples_for(count), seed=0, width=columns.shape[1])
    sums, weight = np.split(np.concatenate([times.astype(np.float64) @ columns for times in drawn]), 2, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may have no image of a group
        return _gap(groups, metric, sums / weight)


class _Part:
    """The images of a group, whose metrics are computed in resamples of all people.

    Args:
        predictions: The n images of the group.
        codes: The person of each image among all people, int64, shape (n,).
    """

    def __init__(self, predictions: LabelledPredictions, codes: Array) -> None:
        self.images, self.rows = Images(predictions), rows_of(predictions)
        self.people, self.codes = np.unique(codes, return_inverse=True)
        added = sums(self.images, self.codes, len(self.people))
        self.balanced = BalancedMeans(self.images, self.rows, self.codes, len(self.people))
        self.keys, self.edges = list(added), np.cumsum([each.shape[1] for each in added.values()])[:-1]
        self.columns = np.concatenate(list(added.values()), axis=1)  # (people, all columns)

    @cached_property
    def width(self) -> int:
        """Columns of the widest array per resample."""
        return max(int(self.columns.shape[1]), len(self.codes) if any(row.of_images for row in self.given) else 0)

    @cached_property
    def given(self) -> list[Metric]:
        return [metric for metric in self.rows if metric.by_group]

    def people_of(self, metric: str) -> int:
        """Return the number of people that a metric depends on: those on one side of an age limit for its error rates.

        It is 0 if the group does not have the metric.
        """
        if metric not in (row.name for row in self.given):
            return 0
        if metric not in (FALSE_ADULT, FALSE_MINOR):
            return len(self.people)
        return len(np.unique(self.codes[self.images.at_limit == (metric == FALSE_MINOR)]))

    def metrics(self, times: Array) -> dict[str, Array]:
        """Return the metrics of the resamples, shape (b,) each, from how often they have each person."""
        own = times[:, self.people]  # (b, people)
        weights = own.astype(np.float64)
        parts = np.split(weights @ self.columns, self.edges, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may have no image of the group
            found = from_sums(dict(zip(self.keys, parts, strict=True)), self.rows) | self.balanced.of(weights)
            found |= from_images(self.images, self.given, lambda order: own[:, self.codes[order]])
        return {metric.name: found[metric.name] for metric in self.given}


def _gap(groups: Sequence[Group], metric: str, resampled: Array) -> Gap:
    """Return the gap without Holm's correction.

    Args:
        groups: K groups of one column.
        metric: The name of a metric that all of them have.
        resampled: The metric of each group in B resamples, shape (B, K).
    """
    values = np.array([group.values[metric] for group in groups])
    low, *_, high = np.argsort(values, kind="stable").tolist()
    largest, errors = np.zeros(len(resampled)), dict[tuple[int, int], float]()
    for i, j in combinations(range(len(values)), 2):
        difference = resampled[:, i] - resampled[:, j]  # (B,)
        errors[i, j] = errors[j, i] = error = float(np.nanstd(difference, ddof=1))
        if error > 0:
            largest = np.fmax(largest, np.abs(difference - (values[i] - values[j])) / error)
    gap = float(values[high] - values[low])
    cost = find(metric).cost
    worst, best = (high, low) if cost(values[high]) > cost(values[low]) else (low, high)
    error = errors[high, low]
    ratio = gap / error if error > 0 else np.inf if gap > 0 else 0.0
    p = (1 + int((largest >= ratio).sum())) / (1 + len(largest))
    spread = float(np.quantile(largest, COVERAGE)) * error
    bounds = (gap - spread, gap + spread) if spread > 0 else (np.nan, np.nan)
    by_name = {group.name: group.values[metric] for group in groups}
    return Gap(groups[0].by, metric, groups[worst].name, groups[best].name, len(groups), gap, *bounds, p, p, by_name)
