"""What a model answered for N images, and what every metric is computed from, each part once."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Answers:
    """What was answered for N images, and what is true.

    Args:
        posterior: Probability of each label, float, shape (N, R).
        point: One estimate an image in the target's unit, shape (N,).
        target: True label indices in [0, R), any integer type, shape (N,).
        values: What each label is worth in the unit, shape (R,).
        ordered: Whether distances between labels mean something.
        unit: `years`, `decades`, `bins`, or empty for classes.
    """

    posterior: Array
    point: Array
    target: Array
    values: Array
    ordered: bool
    unit: str


def is_finite(answers: Answers) -> bool:
    """Return whether all probabilities and estimates are numbers."""
    return bool(np.isfinite(answers.posterior).all() and np.isfinite(answers.point).all())


def errors(answers: Answers) -> Array:
    """Return estimate less true value in the unit, float64, shape (N,)."""
    # Float first: unsigned labels wrap round, |3 - 5| = 254.
    return np.asarray(answers.point, dtype=np.float64) - np.asarray(answers.values, dtype=np.float64)[answers.target]


def cells(answers: Answers) -> tuple[Array, Array]:
    """Return the cell of each label, int64, shape (R,), and the names of the C cells, shape (C,).

    A balanced metric is a mean over cells. Ages in years share the cell of their decade, named 1 for 10 to 19; any
    other label has a cell of its own.
    """
    values = np.asarray(answers.values, dtype=np.float64)
    called, cell = np.unique(values // 10 if answers.unit == "years" else values, return_inverse=True)
    return cell, called


class Images:
    """The answers image by image. Each property is computed when a metric first reads it, and then kept.

    Args:
        answers: N images of R labels.
    """

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.target = answers.target.astype(np.int64)

    @cached_property
    def predicted(self) -> Array:
        """Index of the likeliest label, the first of equally likely ones, int64, shape (N,)."""
        return np.asarray(self.answers.posterior.argmax(1))

    @cached_property
    def right(self) -> Array:
        """Whether the likeliest label is the true one, bool, shape (N,)."""
        return np.asarray(self.predicted == self.target)

    @cached_property
    def likelihood(self) -> Array:
        """Probability of the true label, shape (N,)."""
        found: Array = self.answers.posterior[np.arange(len(self.target)), self.target]  # (N, R) -> (N,)
        return found

    @cached_property
    def confidence(self) -> Array:
        """Probability of the likeliest label, float64, shape (N,)."""
        return np.asarray(self.answers.posterior.max(1).astype(np.float64))

    @cached_property
    def error(self) -> Array:
        """Estimate less true value in the unit, float64, shape (N,)."""
        return errors(self.answers)

    @cached_property
    def absolute(self) -> Array:
        """Absolute error in the unit, float64, shape (N,)."""
        return np.asarray(np.abs(self.error))

    @cached_property
    def by_error(self) -> Array:
        """Indices of the images in ascending order of their absolute errors, int64, shape (N,)."""
        return np.argsort(self.absolute, kind="stable")
