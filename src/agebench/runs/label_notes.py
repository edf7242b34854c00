"""What results.json and the log say about labels that a model cannot predict, and about an unknown posterior."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from agebench.data.target import names_of
from agebench.metrics.compute import summarise
from agebench.metrics.predictions import Array, LabelledPredictions, Predictions
from agebench.metrics.table import metrics_of
from agebench.runs.label_alignment import Alignment, OrderedLabels


def describe_labels(predictions: Predictions, alignment: Alignment | None) -> dict[str, Any]:
    """Return `left_out` and `model_range` of results.json, as far as they apply.

    `left_out` has the metrics that these predictions do not have, the reason, and whether the posterior is known.
    `model_range` has the lowest and the highest age that the model can predict, the number of test images beyond it,
    and the metrics `within` and `beyond` it.
    """
    found: dict[str, Any] = {}
    if predictions.points_only:
        unit, ordered = predictions.unit, predictions.ordered
        rows = metrics_of(num_labels=len(predictions.values), ordered=ordered, unit=unit)
        why = "they need the probability of each label, and only point estimates are known"
        if alignment is not None:
            why = f"they need equal labels: {_sentence(alignment)}"
        left = [
            row.name
            for row in rows
            if row.computed and not row.calibrated and f"test/{row.name}" not in predictions.metrics
        ]
        found["left_out"] = {"metrics": left, "reason": why, "has_posterior": predictions.has_posterior}
    if alignment is not None and not alignment.complete and np.isfinite(alignment.model.ages).all():
        found["model_range"] = _describe_range(predictions, alignment)
    return found


def label_messages(found: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each fact of describe_labels."""
    messages = []
    if left := found.get("left_out"):
        messages.append(f"metrics left out ({', '.join(left['metrics'])}): {left['reason']}")
    if (about := found.get("model_range")) and about["images"]:
        parts = [f"MAE {about[part]['mae']:.2f} {about['unit']} {part}" for part in ("within", "beyond") if about[part]]
        low, high = about["ages"]
        messages.append(
            f"{about['images']:,} test images are beyond the ages {low:g} to {high:g} that the model can predict: "
            f"{', '.join(parts)}"
        )
    return messages


def _sentence(alignment: Alignment) -> str:
    model, data = (_describe(labels) for labels in (alignment.model, alignment.data))
    return f"the model predicts {model}, the data has {data}"


def _describe(labels: OrderedLabels) -> str:
    if labels.unit == "bins":
        return f"bins with the edges {', '.join(f'{edge:g}' for edge in labels.bins)}"
    names = names_of(labels.values[[0, -1]], labels.unit)
    return f"{'decades' if labels.unit == 'decades' else 'ages'} {names[0]} to {names[1]}"


def _describe_range(predictions: Predictions, alignment: Alignment) -> dict[str, Any]:
    low, high = alignment.data.from_years(np.array(alignment.model.ages))
    true = predictions.values[predictions.target]
    beyond = (true < low) | (true > high)
    parts = {"within": ~beyond, "beyond": beyond}
    metrics = {
        part: summarise(_select(predictions, images)) if images.any() else None for part, images in parts.items()
    }
    return {
        "ages": list(alignment.model.ages),
        "images": int(beyond.sum()),
        "unit": predictions.unit,
        **metrics,
    }


def _select(predictions: Predictions, images: Array) -> LabelledPredictions:
    """Return the predictions of some images, bool, shape (N,)."""
    return replace(
        predictions,
        posterior=predictions.posterior[images],
        point=predictions.point[images],
        target=predictions.target[images],
    )
