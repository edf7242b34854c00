"""A calibration: fitted on the val part of a run, stored as calibration.json, applied to any predictions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agebench.calibration.conformal import (
    HIGHEST,
    conformities,
    hierarchical_threshold,
    most_probable,
    needed_groups,
)
from agebench.calibration.temperature import fit_temperature, mean_nll, temper
from agebench.errors import UserError
from agebench.files import read_json, write_json
from agebench.identity_groups import group_codes
from agebench.metrics.compute import summarise
from agebench.metrics.predictions import Array, Calibrated, LabelledPredictions, Predictions, ends_of

FILE = "calibration.json"
METHOD = "hierarchical conformal prediction (Lee, Barber, Willett 2023, arXiv:2306.06342)"


@dataclass(frozen=True)
class Calibration:
    """A temperature, and the threshold of conformal sets.

    Args:
        coverage: Promised probability that a set contains the true label of an image of a new person.
        temperature: The logarithm of the posterior is divided by it.
        threshold: Conformity from which a label belongs to a set, see agebench.calibration.conformal.
        ordered: Whether the labels have an order.
        values: The value of each label in the unit; for classes the index of each label, length R.
        over: `identity` if people are known, else `image`.
        groups: Number of people or images in val.
        images: Number of images in val.
        nll: Mean negative log-likelihood on val, before and after temperature scaling.
        weights_sha: Hash of the weights of the calibrated checkpoint.
        method: The name of the method.
    """

    coverage: float
    temperature: float
    threshold: float
    ordered: bool
    values: tuple[float, ...]
    over: str
    groups: int
    images: int
    nll: tuple[float, float]
    weights_sha: str
    method: str = METHOD

    @property
    def facts(self) -> dict[str, Any]:
        """Return the content of `calibration` in results.json."""
        kept = ("coverage", "temperature", "threshold", "method", "over", "groups", "images", "nll")
        return {key: value for key, value in asdict(self).items() if key in kept}

    def temper(self, posterior: Array) -> Array:
        """Return the posterior after temperature scaling, float64, shape (N, R)."""
        return temper(posterior, self.temperature)

    def sets(self, tempered: Array, point: Array) -> Array:
        """Return whether each label belongs to the set of an image, bool, shape (N, R); contiguous for ordered labels.

        Args:
            tempered: The result of `temper`, shape (N, R).
            point: Point estimates of the uncalibrated posterior, shape (N,).
        """
        found: Array = conformities(tempered, point, np.array(self.values), ordered=self.ordered) >= self.threshold
        return found

    def columns(self, sets: Array, label_names: Sequence[str]) -> dict[str, list[str]]:
        """Return the sets as columns of a table: `low` and `high` in the unit, or `label_set` with names.

        Args:
            sets: The result of `sets`, shape (N, R).
            label_names: Length R. In `label_set` the names are separated by `|`.
        """
        if not self.ordered:
            return {"label_set": ["|".join(label_names[i] for i in np.flatnonzero(row).tolist()) for row in sets]}
        ends = zip(("low", "high"), ends_of(sets), strict=True)
        return {name: [f"{self.values[i]:.6g}" for i in each] for name, each in ends}

    def apply(self, predictions: Predictions) -> Predictions:
        """Return the predictions with calibrated posteriors and sets, and with the metrics of these."""
        found = replace(predictions, calibrated=self.calibrated(predictions))
        metrics = {f"test/{name}": value for name, value in summarise(found).items()}
        return replace(found, metrics={**metrics, **predictions.metrics})

    def calibrated(self, predictions: LabelledPredictions) -> Calibrated:
        """Return the calibrated posteriors and sets of predictions."""
        tempered = self.temper(predictions.posterior)
        return Calibrated(tempered, self.sets(tempered, predictions.point), self._uncalibrated_sets(predictions))

    def _uncalibrated_sets(self, predictions: LabelledPredictions) -> Array:
        posterior = predictions.posterior.astype(np.float64)
        if not self.ordered:
            return most_probable(posterior, self.coverage)
        conformity = conformities(posterior, predictions.point, np.array(self.values), ordered=True)
        return np.asarray(conformity >= (1 - self.coverage) / 2)

    def write(self, run_dir: Path) -> None:
        """Write calibration.json into a run."""
        write_json(run_dir / FILE, asdict(self))

    @classmethod
    def read(cls, run_dir: Path, weights_sha: str, *, use: bool) -> "Calibration | None":
        """Return the calibration of a run, or None if it has none or `use` is false.

        Args:
            run_dir: The folder of the run.
            weights_sha: Hash of the weights to which the calibration must belong.
            use: The value of the key `calibration`.

        Raises:
            UserError: If the file is damaged or belongs to another checkpoint.
        """
        path = run_dir / FILE
        if not use or not path.exists():
            return None
        stored = read_json(path)
        if stored.get("weights_sha") not in (None, weights_sha):
            raise UserError(
                f"{path} belongs to another checkpoint of this run: calibrate this one (python -m agebench.calibrate "
                "run=... checkpoint=...), or set calibration=false"
            )
        try:
            return cls(**stored | {"values": tuple(map(float, stored["values"])), "nll": tuple(stored["nll"])})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged: calibrate the run again, or set calibration=false") from error


def fit(
    predictions: LabelledPredictions, identities: Array | None, *, coverage: float, weights_sha: str
) -> Calibration:
    """Return the calibration of a model from its predictions for the val part.

    Args:
        predictions: N images.
        identities: The identity of each image, shape (N,). None: each image is a group.
        coverage: Promised coverage, above 0 and below 1.
        weights_sha: Hash of the weights of the model.

    Raises:
        UserError: If there are too few people or images for this coverage.
    """
    codes, groups = group_codes(identities, len(predictions.target))
    what, needed = ("images" if identities is None else "people"), needed_groups(coverage)
    if groups < needed:
        raise UserError(
            f"coverage={coverage:g} needs at least {needed} {what} in val, got {groups}: set a lower coverage, or "
            "train with a split that has more of them"
        )
    if not np.isfinite(predictions.posterior).all():
        raise UserError(
            "the predictions for val are not finite, because training diverged: train with a lower optim.lr"
        )
    rows = np.arange(len(predictions.target))
    temperature = fit_temperature(predictions.posterior, predictions.target)
    tempered = temper(predictions.posterior, temperature)
    conformity = conformities(tempered, predictions.point, predictions.values, ordered=predictions.ordered)
    threshold = hierarchical_threshold(conformity[rows, predictions.target], codes, groups, coverage=coverage)
    return Calibration(
        coverage=coverage,
        temperature=temperature,
        threshold=min(threshold, HIGHEST) if predictions.ordered else threshold,
        ordered=predictions.ordered,
        values=tuple(np.asarray(predictions.values, dtype=np.float64).tolist()),
        over="image" if identities is None else "identity",
        groups=groups,
        images=len(rows),
        nll=(mean_nll(predictions.posterior, predictions.target), mean_nll(tempered, predictions.target)),
        weights_sha=weights_sha,
    )
