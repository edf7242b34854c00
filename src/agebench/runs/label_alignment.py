"""Test ordered predictions on data with other labels, such as a model of the ages 0 to 69 on ages of 1 to 110."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agebench.data.plan import Plan
from agebench.data.target import Target, names_of
from agebench.metrics.age_limit import AgeLimit
from agebench.metrics.compute import summarise
from agebench.metrics.predictions import Array, LabelledPredictions, Predictions


@dataclass(frozen=True)
class OrderedLabels:
    """Ordered labels of ages.

    Args:
        values: The value of each label in the unit, ascending, shape (R,).
        unit: `years`, `decades` or `bins`.
        bins: Lower edges in years of all bins except the first; only for bins.
    """

    values: Array
    unit: str
    bins: tuple[float, ...] = ()

    @property
    def ages(self) -> tuple[float, float]:
        """The lowest and the highest age in years that has a label. Bins have no limits."""
        if self.unit == "bins":
            return float("-inf"), float("inf")
        step = 10 if self.unit == "decades" else 1
        return float(self.values[0]) * step, float(self.values[-1]) * step + step - 1

    def to_years(self, points: Array) -> Array:
        """Return estimates in years, float64, from estimates in the unit. A decade or a bin is its middle age.

        The first bin starts at 0. The last one, which has no end, counts as wide as the one before it.
        """
        if self.unit == "years":
            return points.astype(np.float64)
        if self.unit == "decades":
            return points.astype(np.float64) * 10 + 4.5
        starts = np.array([0.0, *self.bins])
        starts = np.append(starts, 2 * starts[-1] - starts[-2])
        middles = (starts[:-1] + starts[1:] - 1) / 2
        return np.asarray(np.interp(points, np.arange(len(middles)), middles))

    def from_years(self, years: Array) -> Array:
        """Return values in the unit, float64, of ages in years: a decade or a bin by its edges."""
        if self.unit == "years":
            return years.astype(np.float64)
        if self.unit == "decades":
            return np.floor(years / 10)
        return np.searchsorted(np.array(self.bins), years, side="right").astype(np.float64)


@dataclass(frozen=True)
class Alignment:
    """The labels under which predictions are tested on data with other labels.

    Args:
        target: The labels of the data, extended by those of the model if both have the same unit.
        model: The labels of the model.
        data: The labels of the data.
        columns: The index in the target of each label of the model, int64, shape (K,); None if the units differ.
        complete: Whether the model can predict every label of the data. Then every metric is defined.
    """

    target: Target
    model: OrderedLabels
    data: OrderedLabels
    columns: Array | None
    complete: bool

    @property
    def data_labels(self) -> OrderedLabels:
        """The labels under which the predictions are tested."""
        return replace(self.data, values=self.target.values)

    def spread(self, posterior: Array) -> Array:
        """Return the posterior over the labels of the target, shape (N, R), from that of the model, shape (N, K)."""
        if self.columns is None:
            return np.broadcast_to(posterior.dtype.type(0), (len(posterior), self.target.num_labels))
        found = np.zeros((len(posterior), self.target.num_labels), dtype=posterior.dtype)
        found[:, self.columns] = posterior
        return found

    def convert(self, points: Array) -> Array:
        """Return point estimates in the unit of the data."""
        same = self.model.unit == self.data.unit and self.model.bins == self.data.bins
        return points if same else self.data.from_years(self.model.to_years(points))


def align_labels(target: Target, model: OrderedLabels, *, bins: Sequence[float] | None) -> Alignment | None:
    """Return how predictions of a model are tested on data with other labels; None for classes.

    Args:
        target: The labels of the data.
        model: The labels of the model.
        bins: The edges of the data's bins.
    """
    if not (target.ordered and target.unit and model.unit):
        return None
    data = OrderedLabels(target.values, target.unit, tuple(bins or ()) if target.unit == "bins" else ())
    if data.unit != model.unit or data.unit == "bins":
        return Alignment(target, model, data, None, complete=False)
    low, high = (end(model.values[i], data.values[i]) for end, i in ((min, 0), (max, -1)))
    values = np.arange(low, high + 1, dtype=np.float64)
    union = replace(
        target,
        labels=target.labels + int(data.values[0] - low),
        label_names=names_of(values, data.unit),
        values=values,
    )
    return Alignment(
        union,
        model,
        data,
        np.arange(len(model.values)) + int(model.values[0] - low),
        complete=len(values) == len(model.values),
    )


def label_predictions(
    plan: Plan,
    rows: Array,
    point: Array,
    posterior: Array | None,
    *,
    alignment: Alignment | None = None,
    age_limit: AgeLimit | None = None,
) -> Predictions:
    """Return the predictions for images of the test part with their metrics, without the loss.

    Args:
        plan: The plan, whose target is that of the alignment.
        rows: Rows of the test part, int64, shape (N,).
        point: Point estimates in the unit of the model, shape (N,); for classes indices of labels.
        posterior: Probability of each label of the model, shape (N, K); None if it is unknown.
        alignment: The alignment of the model's labels; None if the data has the same labels.
        age_limit: The limit of decisions, for the labels of the plan, or None.
    """
    target, known = plan.target, posterior is not None
    if posterior is None:
        posterior = np.broadcast_to(np.float32(0), (len(rows), target.num_labels))
        if not target.ordered:
            posterior = np.eye(target.num_labels, dtype=np.float32)[point.astype(np.int64)]
    elif alignment is not None:
        posterior, known = alignment.spread(posterior), alignment.columns is not None
    labelled = LabelledPredictions(
        posterior=posterior,
        point=point if alignment is None else alignment.convert(point),
        target=target.labels[plan.split.test[rows]],
        values=target.values,
        ordered=target.ordered,
        unit=target.unit,
        has_posterior=known,
        same_labels=alignment is None or alignment.complete,
        age_limit=age_limit,
    )
    metrics = {f"test/{name}": value for name, value in summarise(labelled).items()}
    return Predictions(**vars(labelled), rows=rows, losses=None, weights=None, metrics=metrics)
