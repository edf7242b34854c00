"""Whether one group of runs is better than another on the same images: paired differences with Holm's correction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agebench.comparison.groups import Group
from agebench.comparison.predictions import NoPairsError, Numbers, read_numbers
from agebench.groups import group_codes
from agebench.metrics.answers import Array
from agebench.metrics.bootstrap import CENTRAL, Difference, draw, resamples_for


@dataclass(frozen=True)
class Paired:
    """What came of comparing groups with the best one.

    Args:
        differences: By the index of the group, those that could be compared.
        adjusted: Their p-values after Holm.
        least: The smallest p-value that the resamples can show.
        over: `people` or `images`: what was resampled.
        drawn: How many of them there are.
        resamples: How often.
        notes: Why others could not be compared.
    """

    differences: Mapping[int, Difference]
    adjusted: Mapping[int, float]
    least: float
    over: str
    drawn: int
    resamples: int
    notes: tuple[str, ...]


def compare_with_best(groups: Sequence[Group], best: int, *, metric: str, unit: str) -> Paired | None:
    """Compare each group with the best one on the same test images.

    A group's number of an image is the mean over its seeds. Whole people are resampled where the data knows them.

    Args:
        groups: Those that are ranked.
        best: Which of them is the best.
        metric: One whose row in the table of metrics has can_pair.
        unit: Of the target, empty for classes.

    Returns:
        None if there is nothing to compare; without differences, but with notes, if none could be.
    """
    if len(groups) < 2:
        return None
    notes: list[str] = []
    try:
        standard = _read_group(groups[best], metric, unit)
    except NoPairsError as error:
        return Paired({}, {}, 1.0, "images", 0, 0, (f"no paired differences: {error}",))
    rows: dict[int, Array] = {}
    for i, group in enumerate(groups):
        if i == best:
            continue
        try:
            rows[i] = _in_order(_read_group(group, metric, unit), standard) - standard.numbers
        except NoPairsError as error:
            notes.append(f"no paired difference: {error}")
    people = np.array(standard.people) if any(standard.people) else None
    over, drawn = ("people" if people is not None else "images"), group_codes(people, len(standard.names))[1]
    resamples = resamples_for(drawn)
    found = dict(zip(rows, paired_differences(list(rows.values()), people), strict=True))
    adjusted = dict(zip(found, holm([each.p for each in found.values()]), strict=True))
    return Paired(found, adjusted, 2 / (resamples + 1), over, drawn, resamples, tuple(notes))


def paired_differences(apart: Sequence[Array], people: Array | None) -> list[Difference]:
    """Return what agebench.metrics.bootstrap.paired_difference does of each of P pairs, from the same resamples.

    Drawing them takes most of the time: 10,000 images one by one take 1 s, however many pairs share them.

    Args:
        apart: Differences on each image, shape (N,) each.
        people: Whose each image is, shape (N,); None resamples images.
    """
    if not apart:
        return []
    codes, count = group_codes(people, len(apart[0]))
    values = [float(each.mean()) for each in apart]
    if count < 2:
        return [Difference(value, float("nan"), float("nan"), float("nan")) for value in values]
    weights = [np.bincount(codes, weights=each) for each in apart]
    columns = np.stack([*weights, np.bincount(codes).astype(np.float64)], axis=1)  # (G, P + 1)
    resamples = resamples_for(count)
    drawn = draw(count, resamples=resamples, seed=0, width=columns.shape[1])
    added = np.concatenate([times.astype(np.float64) @ columns for times in drawn])  # (resamples, P + 1)
    means = added[:, :-1] / added[:, -1:]
    found = []
    for value, resampled in zip(values, means.T, strict=True):
        low, high = np.quantile(resampled, CENTRAL)
        beyond = min(int((resampled <= 0).sum()), int((resampled >= 0).sum())) + 1
        found.append(Difference(value, float(low), float(high), min(1.0, 2 * beyond / (resamples + 1))))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number after Holm (1979), Scand. J. Statist. 6, 65-70; NaN stays NaN."""
    order = [i for i in np.argsort(p_values, kind="stable").tolist() if not np.isnan(p_values[i])]
    adjusted, highest = list(p_values), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _read_group(group: Group, metric: str, unit: str) -> Numbers:
    """Return the mean over a group's runs of each image's number."""
    first: Numbers | None = None
    rows = []
    for run in group.runs:
        read = read_numbers(run, metric, unit)
        first = first or read
        rows.append(_in_order(read, first))
    if first is None:
        raise NoPairsError("there is no run")
    return Numbers(first.names, first.people, np.mean(rows, axis=0))


def _in_order(numbers: Numbers, wanted: Numbers) -> Array:
    if numbers.names == wanted.names:
        return numbers.numbers
    at = {name: row for row, name in enumerate(numbers.names)}
    if at.keys() != set(wanted.names) or len(numbers.names) != len(wanted.names):
        raise NoPairsError("the predictions.csv files of two runs list different images although split_sha is the same")
    return numbers.numbers[[at[name] for name in wanted.names]]
