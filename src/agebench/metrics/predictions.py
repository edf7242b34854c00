"""The predictions of a model with the true labels, and the quantities that metrics share, computed once."""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from agebench.metrics.age_limit import AgeLimit

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Calibrated:
    """What a calibration makes of the posteriors of N images.

    Args:
        posterior: Probability of each label after temperature scaling, float64, shape (N, R).
        sets: Whether each label belongs to the conformal set of the image, bool, shape (N, R).
        uncalibrated_sets: The same for the set that the posterior implies without calibration: the range between two
            quantiles for ordered labels, the most probable labels for classes.
    """

    posterior: Array
    sets: Array
    uncalibrated_sets: Array


@dataclass(frozen=True)
class LabelledPredictions:
    """The predictions of a model for N images, and the true labels.

    Args:
        posterior: Probability of each label, float, shape (N, R).
        point: Point estimates in the target's unit, shape (N,).
        target: True label indices in [0, R), any integer type, shape (N,).
        values: The value of each label in the unit, shape (R,).
        ordered: Whether the labels have an order.
        unit: `years`, `decades`, `bins`, or empty for classes.
        has_posterior: Whether the posterior is known. If not, it is zero, or for classes one at the point estimate.
        same_labels: Whether the model can predict every label. If not, the posterior of other labels is zero.
        age_limit: The limit of decisions about these images, or None.
        calibrated: The calibrated posteriors and sets, or None without a calibration.
    """

    posterior: Array
    point: Array
    target: Array
    values: Array
    ordered: bool
    unit: str
    age_limit: AgeLimit | None = field(default=None, kw_only=True)
    calibrated: Calibrated | None = field(default=None, kw_only=True)
    has_posterior: bool = field(default=True, kw_only=True)
    same_labels: bool = field(default=True, kw_only=True)

    @property
    def points_only(self) -> bool:
        """Whether only the point estimates can be tested, because the posterior is unknown or has other labels."""
        return not (self.has_posterior and self.same_labels)


@dataclass(frozen=True)
class Predictions(LabelledPredictions):
    """The labelled predictions for a part, in the order of the part, with its losses and metrics.

    Args:
        rows: Rows of the part, int64, shape (N,). These are all rows unless a trainer limit stopped the test early.
        losses: The head's loss of each image, float64, shape (N,); None if there is no loss.
        weights: Weight of each image in the mean loss, float64, shape (N,); None if there is no loss.
        metrics: Every metric by name, such as `test/mae`.
    """

    rows: Array
    losses: Array | None
    weights: Array | None
    metrics: dict[str, float]


def take(predictions: LabelledPredictions, rows: Array) -> LabelledPredictions:
    """Return the predictions for some of the N images, given by their indices, int64, shape (n,)."""
    of_images = [each.name for each in fields(LabelledPredictions) if each.name != "values"]
    kept = {name: _take(getattr(predictions, name), rows) for name in of_images}
    return LabelledPredictions(**kept, values=predictions.values)


def _take(value: Any, rows: Array) -> Any:
    if isinstance(value, np.ndarray):
        return value[rows]
    if is_dataclass(value):  # arrays of further properties of the images
        return replace(value, **{each.name: _take(getattr(value, each.name), rows) for each in fields(value)})  # type: ignore[type-var]  # an instance
    return value


def is_finite(predictions: LabelledPredictions) -> bool:
    """Return whether all probabilities and point estimates are finite."""
    return bool(np.isfinite(predictions.posterior).all() and np.isfinite(predictions.point).all())


def errors(predictions: LabelledPredictions) -> Array:
    """Return the point estimate minus the true value in the unit, float64, shape (N,)."""
    # Convert first: unsigned integers overflow, |3 - 5| = 254.
    true = np.asarray(predictions.values, dtype=np.float64)[predictions.target]
    return np.asarray(predictions.point, dtype=np.float64) - true


def nearest_labels(point: Array, values: Array) -> Array:
    """Return the index of the label nearest to each point estimate, int64, shape (N,). The lower one wins a tie.

    Args:
        point: Point estimates in the target's unit, finite, shape (N,).
        values: The value of each label in the unit, ascending, shape (R,).
    """
    numbers = np.asarray(values, dtype=np.float64)
    return np.searchsorted((numbers[:-1] + numbers[1:]) / 2, np.asarray(point, dtype=np.float64))


def probability_at_limit(posterior: Array, limit: AgeLimit) -> Array:
    """Return the probability of an age at or above a limit, float64, (N, R) -> (N,)."""
    found: Array = posterior[:, np.asarray(limit.starts) >= limit.limit].astype(np.float64).sum(1)
    return found


def cells(predictions: LabelledPredictions) -> tuple[Array, Array]:
    """Return the cell of each label, int64, shape (R,), and the names of the C cells, shape (C,).

    A balanced metric is a mean over cells. For ages in years a cell is a decade, named 1 for the ages 10 to 19. For
    other units each label is a cell.
    """
    values = np.asarray(predictions.values, dtype=np.float64)
    names, cell = np.unique(values // 10 if predictions.unit == "years" else values, return_inverse=True)
    return cell, names


def ends_of(sets: Array) -> tuple[Array, Array]:
    """Return the indices of the first and the last label in the set of each image, int64, shape (N,) each.

    Args:
        sets: Whether each label belongs to the set, with at least one label per image, bool, shape (N, R).
    """
    return sets.argmax(1), sets.shape[1] - 1 - sets[:, ::-1].argmax(1)


class Images:
    """The predictions per image. Each property is computed when it is first read, and then cached.

    Args:
        predictions: N images of R labels.
    """

    def __init__(self, predictions: LabelledPredictions) -> None:
        self.predictions = predictions
        self.target = predictions.target.astype(np.int64)

    @cached_property
    def predicted(self) -> Array:
        """Index of the most likely label, int64, shape (N,). The first of equally likely labels counts."""
        return np.asarray(self.predictions.posterior.argmax(1))

    @cached_property
    def nearest(self) -> Array:
        """Index of the label nearest to the point estimate, int64, shape (N,). Only for ordered labels."""
        return nearest_labels(self.predictions.point, self.predictions.values)

    def judged(self, age: float) -> Array:
        """Return whether each image is judged at or above an age in years, bool, shape (N,).

        For labels in years the estimate counts. For decades and bins the label nearest to the estimate counts.
        """
        limit = self._age_limit
        if limit.unit == "years":
            return np.asarray(self.predictions.point, dtype=np.float64) >= age
        return np.asarray(limit.starts)[self.nearest] >= age

    @cached_property
    def at_limit(self) -> Array:
        """Whether the true age is at or above the age limit, bool, shape (N,)."""
        return np.asarray(self._age_limit.starts)[self.target] >= self._age_limit.limit

    @cached_property
    def probability_at_limit(self) -> Array:
        """Probability of an age at or above the age limit, float64, shape (N,)."""
        return probability_at_limit(self.predictions.posterior, self._age_limit)

    @property
    def _age_limit(self) -> AgeLimit:
        if self.predictions.age_limit is None:
            raise ValueError("these predictions have no age limit")
        return self.predictions.age_limit

    @cached_property
    def correct(self) -> Array:
        """Whether the most likely label is the true label, bool, shape (N,)."""
        return np.asarray(self.predicted == self.target)

    @cached_property
    def likelihood(self) -> Array:
        """Probability of the true label, shape (N,)."""
        found: Array = self.predictions.posterior[np.arange(len(self.target)), self.target]  # (N, R) -> (N,)
        return found

    @cached_property
    def confidence(self) -> Array:
        """Probability of the most likely label, float64, shape (N,)."""
        return np.asarray(self.predictions.posterior.max(1).astype(np.float64))

    @cached_property
    def error(self) -> Array:
        """Point estimate minus true value in the unit, float64, shape (N,)."""
        return errors(self.predictions)

    @cached_property
    def absolute_error(self) -> Array:
        """Absolute error in the unit, float64, shape (N,)."""
        return np.asarray(np.abs(self.error))

    @cached_property
    def by_error(self) -> Array:
        """Indices of the images in ascending order of their absolute errors, int64, shape (N,)."""
        return np.argsort(self.absolute_error, kind="stable")

    @property
    def calibrated(self) -> "Images":
        """The images with their calibrated posteriors. Only for calibrated predictions."""
        return Images(replace(self.predictions, posterior=self._calibrated.posterior))

    def covered(self, *, calibrated: bool) -> Array:
        """Return whether the set of each image contains the true label, bool, shape (N,)."""
        return np.asarray(self._sets(calibrated)[np.arange(len(self.target)), self.target])

    def set_sizes(self, *, calibrated: bool) -> Array:
        """Return the number of labels in the set of each image, int64, shape (N,)."""
        return np.asarray(self._sets(calibrated).sum(1))

    def range_widths(self, *, calibrated: bool) -> Array:
        """Return the highest minus the lowest value in the set of each image, in the unit, float64, shape (N,)."""
        low, high = ends_of(self._sets(calibrated))
        values = np.asarray(self.predictions.values, dtype=np.float64)
        return np.asarray(values[high] - values[low])

    def _sets(self, calibrated: bool) -> Array:
        return self._calibrated.sets if calibrated else self._calibrated.uncalibrated_sets

    @property
    def _calibrated(self) -> Calibrated:
        if self.predictions.calibrated is None:
            raise ValueError("the predictions are not calibrated")
        return self.predictions.calibrated
