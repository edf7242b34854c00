"""Predictions and targets of all images of one part."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Outcome:
    """Predictions of N images for R labels.

    Args:
        names: Image names, str, shape (N,).
        target: True label indices in [0, R), int64, shape (N,).
        posterior: Probability of each label, float, shape (N, R).
        point: Point estimate in the target's unit, float, shape (N,).
        values: Value of each label in that unit (years, decades 1 to 6; 0 to R-1 if nominal), float, shape (R,).
        label_names: Names of the R labels, such as `30s` or `あ`.
        ordered: Whether the labels have an order.
        unit: `years`, `decades`, or empty for nominal labels.
        note: A warning for the figures, such as a leak between train and test.
        lookup_mae: MAE of an identity lookup, in the target's unit, if the split leaks.
        people: Identity of each image, shape (N,), over which intervals are computed; None if unknown.

    Raises:
        ValueError: If the shapes do not match.
    """

    names: Array
    target: Array
    posterior: Array
    point: Array
    values: Array
    label_names: tuple[str, ...]
    ordered: bool
    unit: str
    note: str = ""
    lookup_mae: float | None = None
    people: Array | None = None

    def __post_init__(self) -> None:
        images, labels = len(self.names), len(self.label_names)
        needed = {"target": (images,), "posterior": (images, labels), "point": (images,), "values": (labels,)}
        for name, shape in needed.items():
            actual = getattr(self, name).shape
            if actual != shape:
                raise ValueError(f"{images} names and {labels} labels need {name} of shape {shape}, got {actual}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def predicted(self) -> Array:
        """The most likely label of each image, int64, shape (N,)."""
        return np.asarray(np.argmax(self.posterior, axis=1))
