"""Read predictions.csv, and compute the value of a metric for each test image."""

import csv
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agebench.files import plain_cell
from agebench.metrics.compute import rows_of
from agebench.metrics.predictions import Array, Images, LabelledPredictions
from agebench.metrics.table import Metric, find
from agebench.runs.read import Run

COLUMNS = ["name", "identity", "target", "point"]  # the columns of predictions.csv before the posterior

UNREADABLE = (OSError, ValueError, KeyError, IndexError, csv.Error, DeprecationWarning)


class NoPairsError(Exception):
    """Two runs cannot be compared image by image. The message is the reason."""


@dataclass(frozen=True)
class Numbers:
    """One value per image.

    Args:
        names: The names of the images, length N.
        people: The identity of each image, length N. Unknown identities are empty.
        numbers: The values, float64, shape (N,).
    """

    names: list[str]
    people: list[str]
    numbers: Array


def read_numbers(run: Run, metric: str, unit: str) -> Numbers:
    """Return the value of a metric for each test image, from predictions.csv.

    Args:
        run: A completed run.
        metric: A metric with can_pair in the table of metrics.
        unit: The unit of the target, empty for classes.

    Raises:
        NoPairsError: If the file is missing or unreadable, or if it does not match the metric in results.json.
    """
    row = find(metric)
    # For classes the point estimate is the most likely label. Of these metrics only the accuracy is paired.
    labels_suffice = row.from_label and not unit
    try:
        labels, leading, posterior = read_tested(run, posterior=not (labels_suffice or row.from_point))
        names, people, targets, points = (list(column) for column in zip(*leading, strict=True))
        if labels_suffice:
            numbers = np.array([t == p for t, p in zip(targets, points, strict=True)], dtype=np.float64)
        else:
            numbers = _per_image(row, labelled_predictions(labels, targets, points, posterior=posterior, unit=unit))
    except FileNotFoundError:
        raise NoPairsError(f"{run.folder.name} has no predictions.csv") from None
    except UNREADABLE as error:
        raise NoPairsError(f"{run.folder.name} has a predictions.csv that cannot be read") from error
    reported, mean = run.metrics.get(metric), float(numbers.mean())
    # In files of older versions the posterior has six digits, so that one or two images may have two equally probable
    # labels.
    share = bool(np.isin(numbers, (0, 1)).all())
    tolerance = 1e-3 * abs(mean) + (2.0 / len(numbers) if share else 1e-6)
    if reported is None or not abs(mean - reported) <= tolerance:
        raise NoPairsError(f"the predictions.csv of {run.folder.name} does not match its results.json")
    return Numbers(names, people, numbers)


def read_labelled(run: Run, unit: str) -> tuple[list[str], list[str], LabelledPredictions]:
    """Return the names and people of the test images, and the predictions, from predictions.csv.

    Raises:
        NoPairsError: If the file is missing or unreadable.
    """
    try:
        labels, leading, posterior = read_tested(run, posterior=True)
        names, people, targets, points = (list(column) for column in zip(*leading, strict=True))
        return names, people, labelled_predictions(labels, targets, points, posterior=posterior, unit=unit)
    except FileNotFoundError:
        raise NoPairsError(f"{run.folder.name} has no predictions.csv") from None
    except UNREADABLE as error:
        raise NoPairsError(f"{run.folder.name} has a predictions.csv that cannot be read") from error


def read_tested(run: Run, *, posterior: bool) -> tuple[list[str], list[list[str]], Array]:
    """Return what read_predictions returns for the test images of a run. The folds of a pooled run are concatenated.

    Raises:
        NoPairsError: If the labels of two folds differ.
    """
    if run.folds:
        read = [read_tested(fold, posterior=posterior) for fold in run.folds]
        if any(labels != read[0][0] for labels, _, _ in read):
            raise NoPairsError("the models of its folds have different labels, because the data has changed")
        labels, leading = read[0][0], [row for _, rows, _ in read for row in rows]
        numbers = np.concatenate([each for _, _, each in read])
    else:
        labels, leading, numbers = read_predictions(run.folder / "predictions.csv", posterior=posterior)
    if run.tested is not None:
        kept = [i for i, row in enumerate(leading) if row[0] in run.tested]
        leading, numbers = [leading[i] for i in kept], numbers[kept]
    return labels, leading, numbers


def labelled_predictions(
    labels: Sequence[str], targets: Sequence[str], points: Sequence[str], *, posterior: Array, unit: str
) -> LabelledPredictions:
    """Return the predictions of N images from the labels and the columns of predictions.csv."""
    index = {label: i for i, label in enumerate(labels)}
    return LabelledPredictions(
        posterior=posterior,
        point=np.array(points if unit else [index[p] for p in points], dtype=np.float64),
        target=np.array([index[t] for t in targets], dtype=np.int64),
        values=np.array(label_values(labels, unit)),
        ordered=bool(unit),
        unit=unit,
    )


def _per_image(row: Metric, predictions: LabelledPredictions) -> Array:
    """Return the value of a metric for each image, float64, shape (N,).

    Raises:
        ValueError: If the target does not have the metric.
    """
    if row.per_image is None or row not in rows_of(predictions):
        raise ValueError(f"{row.name} is not a metric of this target")
    return row.per_image(Images(predictions)).astype(np.float64)


def read_predictions(path: Path, *, posterior: bool) -> tuple[list[str], list[list[str]], Array]:
    """Return the labels, the COLUMNS of each row, and the posterior, shape (N, R), or zeros if it is not requested."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        text = file.read()
    if '"' in text:  # a name with a comma or a line break in it
        rows = list(csv.reader(io.StringIO(text, newline="")))
        header = rows.pop(0)
        leading, rest = [row[:4] for row in rows], [",".join(row[4:]) for row in rows]
    else:
        lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        header = lines.pop(0).split(",")
        split_lines = [line.split(",", 4) for line in lines]
        leading, rest = [row[:4] for row in split_lines], [row[4] for row in split_lines]
    if "'" in text:
        leading = [[plain_cell(cell) for cell in row] for row in leading]
    labels = [column[2:-1] for column in header if column.startswith("p(")]
    if header[:4] != COLUMNS or header[4 : 4 + len(labels)] != [f"p({label})" for label in labels] or not rest:
        raise ValueError("not a predictions.csv")
    shape = (len(rest), len(labels))
    if not posterior:
        return labels, leading, np.broadcast_to(np.zeros(1), shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # NumPy warns about text that is not a number
        num_trailing = len(header) - 4 - len(labels)  # the protocol
        numbers = ",".join(row.rsplit(",", num_trailing)[0] for row in rest) if num_trailing else ",".join(rest)
        return labels, leading, np.fromstring(numbers, sep=",").reshape(shape)


def label_values(labels: Sequence[str], unit: str) -> list[float]:
    """Return the values of the labels in the unit, as in agebench.data.target."""
    if unit == "years":
        return [float(label) for label in labels]
    if unit == "decades":
        return [float(label.removesuffix("s")) // 10 for label in labels]
    return [float(i) for i in range(len(labels))]
