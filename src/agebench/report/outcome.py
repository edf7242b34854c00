"""What a trained model said about every image of one part, beside what was true."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Outcome:
    """One row an image, one column a label.

    Args:
        names: Image names, str, shape (N,).
        target: Actual label indices in [0, R), int64, shape (N,).
        posterior: Probability of each label, float, shape (N, R).
        point: Point estimate in the target's unit, float, shape (N,).
        values: What each label stands for in that unit (years, decades 1 to 6; 0 to R-1 if nominal), float, shape (R,).
        label_names: R names to print, such as `30s` or `あ`.
        ordered: Whether the labels have an order.
        unit: `years`, `decades`, or empty for nominal labels.
        note: What nobody may overlook who reads its figures, such as a leak.
        lookup_mae: The mean absolute error of those who know whom an image shows and never see it, if that leaks.

    Raises:
        ValueError: If the shapes disagree.
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

    def __post_init__(self) -> None:
        images, labels = len(self.names), len(self.label_names)
        needed = {"target": (images,), "posterior": (images, labels), "point": (images,), "values": (labels,)}
        for name, shape in needed.items():
            came = getattr(self, name).shape
            if came != shape:
                raise ValueError(f"{images} names and {labels} labels need {name} of shape {shape}, got {came}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def predicted(self) -> Array:
        """The most probable label of each image, int64, shape (N,)."""
        return np.asarray(np.argmax(self.posterior, axis=1))
