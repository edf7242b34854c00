"""Whether one group of runs does better than another on the very same images: paired differences, corrected."""

import csv
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agebench.comparison.groups import Group
from agebench.groups import group_codes
from agebench.metrics.bootstrap import CENTRAL, Difference, draw, resamples_for
from agebench.metrics.compute import Answers, Array, per_image
from agebench.runs.read import Run

COLUMNS = ["name", "identity", "target", "point"]  # of predictions.csv, before the posterior
FROM_ESTIMATES = ("mae", "cs", "within_1")  # what needs no posterior, which is most of a file


class NoPairsError(Exception):
    """Two runs cannot be compared image by image; the message says why."""


@dataclass(frozen=True)
class Numbers:
    """One number an image.

    Args:
        names: Of the images, length N.
        people: Who is in each, length N; all empty if nobody knows.
        numbers: Float64, shape (N,).
    """

    names: list[str]
    people: list[str]
    numbers: Array


@dataclass(frozen=True)
class Paired:
    """What came of comparing groups with the best one.

    Args:
        differences: By the index of the group, those that could be compared.
        adjusted: Their p-values after Holm.
        least: The least p-value that the resamples can tell.
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


def can_pair(metric: str) -> bool:
    """Return whether a test metric is a mean over images that predictions.csv tells."""
    name = metric.removeprefix("test/")
    return name in ("accuracy", "top5", "nll", "mae", "within_1") or (name[:2] == "cs" and name[2:].isdigit())


def compare_with_best(groups: Sequence[Group], best: int, *, metric: str, unit: str) -> Paired | None:
    """Compare each group with the best one on the same test images.

    A group's number of an image is the mean over its seeds. Whole people are resampled where the data knows them.

    Args:
        groups: Those that are ranked.
        best: Which of them is the best.
        metric: One of which can_pair is true.
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
        return Paired({}, {}, 1.0, "images", 0, 0, (f"no group is compared image by image: {error}",))
    rows: dict[int, Array] = {}
    for i, group in enumerate(groups):
        if i == best:
            continue
        try:
            rows[i] = _in_order(_read_group(group, metric, unit), standard) - standard.numbers
        except NoPairsError as error:
            notes.append(f"not compared image by image: {error}")
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
        raise NoPairsError("the predictions.csv of two runs are of different images, though split_sha is the same")
    return numbers.numbers[[at[name] for name in wanted.names]]


def read_numbers(run: Run, metric: str, unit: str) -> Numbers:
    """Return the number of each test image whose mean a metric is, from predictions.csv.

    Raises:
        NoPairsError: If the file is missing, unreadable, or not that of the figure in results.json.
    """
    path, name = run.folder / "predictions.csv", metric.removeprefix("test/")
    # A class is told by its name, which is all that the accuracy needs.
    right = name == "accuracy" and not unit
    try:
        labels, leading, posterior = read_predictions(path, posterior=not right and not name.startswith(FROM_ESTIMATES))
        names, people, targets, points = (list(column) for column in zip(*leading, strict=True))
        if right:
            numbers = np.array([t == p for t, p in zip(targets, points, strict=True)], dtype=np.float64)
        else:
            index = {label: i for i, label in enumerate(labels)}
            answers = Answers(
                posterior=posterior,
                point=np.array(points if unit else [index[p] for p in points], dtype=np.float64),
                target=np.array([index[t] for t in targets], dtype=np.int64),
                values=np.array(label_values(labels, unit)),
                ordered=bool(unit),
                unit=unit,
            )
            numbers = per_image(answers)[name]
    except FileNotFoundError:
        raise NoPairsError(f"{run.folder.name} has no predictions.csv") from None
    except (OSError, ValueError, KeyError, IndexError, csv.Error, DeprecationWarning) as error:
        raise NoPairsError(f"{run.folder.name} has a predictions.csv that cannot be read") from error
    told, mean = run.metrics.get(metric), float(numbers.mean())
    # Six digits of a posterior may make two labels equal that were not, on an image or two.
    room = 1e-3 * abs(mean) + (2.0 / len(numbers) if name not in ("mae", "nll") else 1e-6)
    if told is None or not abs(mean - told) <= room:
        raise NoPairsError(f"the predictions.csv of {run.folder.name} is not that of its results.json")
    return Numbers(names, people, numbers)


def read_predictions(path: Path, *, posterior: bool) -> tuple[list[str], list[list[str]], Array]:
    """Return the labels, the COLUMNS of each row, and the posterior, shape (N, R), all zero unless it is asked for."""
    text = path.read_text(encoding="utf-8-sig")
    if '"' in text:  # a name with a comma in it
        rows = list(csv.reader(text.splitlines()))
        header = rows.pop(0)
        leading, rest = [row[:4] for row in rows], [",".join(row[4:]) for row in rows]
    else:
        lines = text.splitlines()
        header = lines.pop(0).split(",")
        cut = [line.split(",", 4) for line in lines]
        leading, rest = [row[:4] for row in cut], [row[4] for row in cut]
    labels = [column[2:-1] for column in header if column.startswith("p(")]
    if header[:4] != COLUMNS or header[4 : 4 + len(labels)] != [f"p({label})" for label in labels] or not rest:
        raise ValueError("not a predictions.csv")
    shape = (len(rest), len(labels))
    if not posterior:
        return labels, leading, np.broadcast_to(np.zeros(1), shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how NumPy says that there is more than numbers
        behind = len(header) - 4 - len(labels)  # the protocol
        numbers = ",".join(row.rsplit(",", behind)[0] for row in rest) if behind else ",".join(rest)
        return labels, leading, np.fromstring(numbers, sep=",").reshape(shape)


def label_values(labels: Sequence[str], unit: str) -> list[float]:
    """Return what the labels are worth in the unit, as agebench.data.target has it."""
    if unit == "years":
        return [float(label) for label in labels]
    if unit == "decades":
        return [float(label.removesuffix("s")) // 10 for label in labels]
    return [float(i) for i in range(len(labels))]
