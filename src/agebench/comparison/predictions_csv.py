"""Compute the value of a metric for each test image of a run."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agebench.calibration.calibration import Calibration
from agebench.metrics.compute import rows_of
from agebench.metrics.predictions import Array, Calibrated, Images, LabelledPredictions, take
from agebench.metrics.table import Metric, find
from agebench.runs.predictions_csv import UNREADABLE, labelled_predictions, read_predictions
from agebench.runs.read import Run, mapping, number

# Of `calibration` in results.json.
CALIBRATED = ("coverage", "temperature", "threshold", "over", "groups", "images", "nll")


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
        metric: A metric with can_pair in the table of metrics, or such a metric of calibrated predictions.
        unit: The unit of the target, empty for classes.

    Raises:
        NoPairsError: If the file is missing or unreadable, or if it does not match the metric in results.json.
    """
    row = find(metric)
    if row.calibrated:
        return _read_calibrated_numbers(run, row, unit)
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
    _check_mean(run, metric, numbers)
    return Numbers(names, people, numbers)


def _read_calibrated_numbers(run: Run, row: Metric, unit: str) -> Numbers:
    """Return the value of a metric of calibrated predictions for each test image, see read_numbers."""
    everything = replace(run, tested=None)  # a pooled run has a calibration for each fold
    names, people, predictions = read_labelled(everything, unit)
    numbers = _per_image(row, replace(predictions, calibrated=calibrate(everything, predictions)))
    if run.tested is not None:
        kept = [i for i, name in enumerate(names) if name in run.tested]
        names, people, numbers = [names[i] for i in kept], [people[i] for i in kept], numbers[kept]
    _check_mean(run, f"test/{row.name}", numbers)
    return Numbers(names, people, numbers)


def calibrate(run: Run, predictions: LabelledPredictions) -> Calibrated:
    """Return the calibrated posteriors and sets of all test images. In a pooled run each fold has its own calibration.

    Args:
        run: The run.
        predictions: Its test images, in the order of the folds.

    Raises:
        NoPairsError: If a results.json has no calibration that can be read.
    """
    known: dict[str, Any] = {
        "ordered": predictions.ordered,
        "values": tuple(predictions.values.tolist()),
        "weights_sha": "",
    }
    folds, start, found = run.folds or (run,), 0, []
    for fold in folds:
        stored, images = mapping(fold.result("calibration")), number(fold.result("data", "test"))
        if not stored:
            raise NoPairsError(f"{fold.folder.name} is not calibrated")
        end = len(predictions.target) if fold is folds[-1] else start + int(images or 0)
        try:
            calibration = Calibration(**{key: stored[key] for key in CALIBRATED}, **known)
            found.append(calibration.calibrated(take(predictions, np.arange(start, end))))
        except (LookupError, TypeError, ValueError) as error:
            raise NoPairsError(f"{fold.folder.name} has a calibration that cannot be read") from error
        start = end
    arrays = ("posterior", "sets", "uncalibrated_sets")
    return Calibrated(*(np.concatenate([getattr(each, name) for each in found]) for name in arrays))


def _check_mean(run: Run, metric: str, numbers: Array) -> None:
    """Raise NoPairsError unless the mean over images is the metric in results.json."""
    reported, mean = run.metrics.get(metric), float(numbers.mean())
    # In files of older versions the posterior has six digits, so that one or two images may have two equally probable
    # labels.
    share = bool(np.isin(numbers, (0, 1)).all())
    tolerance = 1e-3 * abs(mean) + (2.0 / len(numbers) if share else 1e-6)
    if reported is None or not abs(mean - reported) <= tolerance:
        raise NoPairsError(f"the predictions.csv of {run.folder.name} does not match its results.json")


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


def _per_image(row: Metric, predictions: LabelledPredictions) -> Array:
    """Return the value of a metric for each image, float64, shape (N,).

    Raises:
        ValueError: If the target does not have the metric.
    """
    if row.per_image is None or row not in rows_of(predictions):
        raise ValueError(f"{row.name} is not a metric of this target")
    return row.per_image(Images(predictions)).astype(np.float64)
