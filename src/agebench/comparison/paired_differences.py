"""The mean over images of groups of runs, and the paired differences between them, with Holm's correction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agebench.comparison.groups import Group
from agebench.comparison.predictions_csv import NoPairsError, Numbers, read_numbers
from agebench.identity_groups import group_codes, resampled
from agebench.metrics.bootstrap import (
    central_levels,
    corrected_p_value,
    draw,
    effective_groups,
    few_groups,
    resamples_for,
)
from agebench.metrics.holm import holm
from agebench.metrics.predictions import Array
from agebench.progress import Bar

FEW_SEEDS = 3  # seeds below which a note says that a difference is not one of methods


@dataclass(frozen=True)
class Difference:
    """The paired difference of a mean over images between two models tested on the same images.

    Args:
        value: The mean of the first model minus the mean of the second.
        low: Lower bound of the 95% interval.
        high: Upper bound of the 95% interval.
        p: Two-sided p-value of a difference of zero.
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Paired:
    """The comparison of groups with the best group.

    Args:
        differences: The difference of each group to the best, by the index of the group.
        adjusted: The p-values after Holm's correction, by the index of the group.
        intervals: The 95% interval of the mean over images and seeds, by the index of each group that could be read.
        least: The smallest possible p-value for this number of resamples and groups.
        over: `people`, `identities` or `images`: what was resampled.
        drawn: The number of people or images.
        resamples: The number of resamples.
        notes: Why groups without a difference could not be compared, and limits of the differences.
    """

    differences: Mapping[int, Difference]
    adjusted: Mapping[int, float]
    intervals: Mapping[int, tuple[float, float]]
    least: float
    over: str
    drawn: int
    resamples: int
    notes: tuple[str, ...]


def compare_with_best(groups: Sequence[Group], best: int, *, metric: str, unit: str) -> Paired | None:
    """Compare each group with the best one on the same test images.

    The value of a group on an image is the mean over its seeds. People are resampled if their identities are known,
    else images.

    Args:
        groups: The ranked groups.
        best: The index of the best group.
        metric: A metric with can_pair in the table of metrics.
        unit: The unit of the target, empty for classes.

    Returns:
        None if there is only one run. The differences are empty, with notes, if no group can be compared.
    """
    if sum(len(group.runs) for group in groups) < 2:
        return None
    notes: list[str] = []
    try:
        standard = read_group(groups[best], metric, unit)
    except NoPairsError as error:
        lacking = "no paired differences" if len(groups) > 1 else "no interval"
        return Paired({}, {}, {}, 1.0, "images", 0, 0, (f"{lacking}: {error}",))
    rows: dict[int, Array] = {best: standard.numbers}
    with Bar("reading predictions", total=len(groups), unit="groups") as bar:
        for i, group in enumerate(groups):
            bar.update()
            if i == best:
                continue
            try:
                rows[i] = _in_order(read_group(group, metric, unit), standard)
            except NoPairsError as error:
                notes.append(f"no paired difference: {error}")
    people = np.array(standard.people) if any(standard.people) else None
    codes, drawn = group_codes(people, len(standard.names))
    over = resampled(known=people is not None, unit=unit)
    resamples = resamples_for(drawn)
    others = [i for i in rows if i != best]
    drawn_means = paired_differences([*(rows[i] - standard.numbers for i in others), *rows.values()], people)
    found = dict(zip(others, drawn_means[: len(others)], strict=True))
    own = dict(zip(rows, drawn_means[len(others) :], strict=True))
    adjusted = dict(zip(found, holm([each.p for each in found.values()]), strict=True))
    least = corrected_p_value(2 / (resamples + 1), effective_groups(codes, drawn)) if drawn > 1 else 1.0
    if warning := few_groups(drawn, over):
        notes.append(warning)
    if found and min(len(group.runs) for group in groups) < FEW_SEEDS:
        notes.append(
            f"n < {FEW_SEEDS}: intervals and p-values describe these trained models on other {over} of the same "
            "kind, not the methods trained again with other seeds"
        )
    bounds = {i: (mean.low, mean.high) for i, mean in own.items() if np.isfinite(mean.low)}
    return Paired(found, adjusted, bounds, least, over, drawn, resamples, tuple(notes))


def paired_differences(differences: Sequence[Array], people: Array | None) -> list[Difference]:
    """Return the bootstrap of the mean difference of each of P pairs of models.

    The interval has the quantiles of central_levels, which correct for few groups. The p-value is twice the share of
    resamples whose mean is zero or has the other sign, with the same correction. The sample itself counts as one such
    resample, so the share is at least 1 / (resamples + 1). All pairs share their resamples, because drawing
    them takes most of the time (1 s for 10,000 images).

    Args:
        differences: The difference on each image, shape (N,) for each pair.
        people: The identity of each image, shape (N,). None resamples images.

    Returns:
        The difference of each pair. The interval and the p-value are NaN if a difference is not finite, or if there are
        fewer than two groups.
    """
    if not differences:
        return []
    codes, count = group_codes(people, len(differences[0]))
    values = [float(each.mean()) for each in differences]
    if count < 2:
        return [Difference(value, float("nan"), float("nan"), float("nan")) for value in values]
    totals = [np.bincount(codes, weights=each) for each in differences]
    columns = np.stack([*totals, np.bincount(codes).astype(np.float64)], axis=1)  # (G, P + 1)
    resamples = resamples_for(count)
    drawn = draw(count, resamples=resamples, seed=0, width=columns.shape[1])
    sums = np.concatenate([times.astype(np.float64) @ columns for times in drawn])  # (resamples, P + 1)
    means = sums[:, :-1] / sums[:, -1:]
    effective = effective_groups(codes, count)
    return [_difference(value, resampled, effective) for value, resampled in zip(values, means.T, strict=True)]


def _difference(value: float, resampled: Array, groups: float) -> Difference:
    """Return the difference from its resampled means, shape (resamples,), over an effective number of groups."""
    if not np.isfinite(value):
        return Difference(value, float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(resampled, central_levels(groups))
    tail_count = min(int((resampled <= 0).sum()), int((resampled >= 0).sum())) + 1
    p = corrected_p_value(2 * tail_count / (len(resampled) + 1), groups)
    return Difference(value, float(low), float(high), p)


def read_group(group: Group, metric: str, unit: str) -> Numbers:
    """Return the mean over the runs of a group of the value of each image.

    Raises:
        NoPairsError: If a run has no predictions.csv that fits.
    """
    first: Numbers | None = None
    rows = []
    for run in group.runs:
        read = read_numbers(run, metric, unit)
        first = first or read
        rows.append(_in_order(read, first))
    if first is None:
        raise NoPairsError("there is no run")
    return Numbers(first.names, first.people, np.mean(rows, axis=0))


def _in_order(numbers: Numbers, reference: Numbers) -> Array:
    """Return the values in the order of the images of the reference."""
    if numbers.names == reference.names:
        return numbers.numbers
    row_of = {name: row for row, name in enumerate(numbers.names)}
    if row_of.keys() != set(reference.names) or len(numbers.names) != len(reference.names):
        raise NoPairsError("the predictions.csv files of two runs list different images although split_sha is the same")
    return numbers.numbers[[row_of[name] for name in reference.names]]
