"""The CSV files of a run: its split, predictions and metrics by class, decade and tolerance."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np

from agebench.data.plan import Plan
from agebench.data.split import PARTS
from agebench.files import write_csv
from agebench.metrics import breakdown
from agebench.metrics.decision_summary import decision_table
from agebench.metrics.predictions import Array, Predictions, is_finite
from agebench.runs.description import decision_curves


def write_split(folder: Path, plan: Plan) -> None:
    """Write split.csv (the part of each image), and missing.csv and broken.csv if such images exist."""
    rows = chain.from_iterable(_split_rows(plan, part) for part in PARTS)
    write_csv(folder / "split.csv", ("name", "part", "identity", "target"), rows)
    write_missing_and_broken(folder, plan)


def _split_rows(plan: Plan, part: str) -> Iterator[tuple[Any, ...]]:
    """Yield name, part, identity and true label of each image of a part."""
    rows, identities = plan.split.part(part), plan.records.columns.get("identity")
    label_names = np.array(plan.target.label_names, dtype=object)
    return zip(
        plan.records.names[rows].tolist(),
        repeat(part, len(rows)),
        repeat("", len(rows)) if identities is None else identities[rows].tolist(),
        label_names[plan.target.labels[rows]].tolist(),
        strict=True,
    )


def write_layers(folder: Path, layers: Iterable[tuple[str, str, str, int]]) -> None:
    """Write layers.csv: name, type, output shape and number of parameters of each layer of the network."""
    write_csv(folder / "layers.csv", ("layer", "type", "output_shape", "parameters"), layers)


def write_missing_and_broken(folder: Path, plan: Plan) -> None:
    """Write missing.csv (listed images that do not exist) and broken.csv (images that cannot be decoded, and why).

    If there are none, the file of an earlier run is removed.
    """
    for file, columns, rows in (
        ("missing.csv", ("name",), [(name,) for name in plan.missing]),
        ("broken.csv", ("name", "reason"), list(plan.broken.items())),
    ):
        write_table(folder / file, columns, rows)


def write_table(file: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a CSV file. Without rows, an earlier file is removed."""
    if rows:
        write_csv(file, columns, rows)
    else:
        file.unlink(missing_ok=True)


def write_predictions(folder: Path, plan: Plan, predictions: Predictions) -> None:
    """Write predictions.csv: name, identity, true label, point estimate, posterior and protocol of each test image.

    Numbers have as many digits as it takes to read the same float32. An unknown posterior is empty.
    """
    rows = plan.split.test[predictions.rows]
    identities = plan.records.columns.get("identity")
    names = plan.target.label_names
    columns = ("name", "identity", "target", "point", *(f"p({name})" for name in names), "protocol")
    point = predictions.point if plan.target.ordered else [names[int(p)] for p in predictions.point]
    unknown = [""] * len(names)
    body = (
        (
            plan.records.names[row],
            "" if identities is None else identities[row],
            names[predictions.target[i]],
            point[i],
            *(map(str, predictions.posterior[i]) if predictions.has_posterior else unknown),
            plan.protocol,
        )
        for i, row in enumerate(rows)
    )
    write_csv(folder / "predictions.csv", columns, body)


def write_breakdown(folder: Path, plan: Plan, predictions: Predictions, *, bounds: dict[str, Array]) -> None:
    """Write per_class.csv; for ages also error_by_decade.csv; for years also cs_curve.csv; with a limit decision.csv.

    Calibrated predictions of ordered labels also have coverage_by_decade.csv. Nothing is written if the predictions are
    not finite. per_class.csv needs the most likely labels.
    """
    if not is_finite(predictions):
        return
    if not (predictions.ordered and predictions.points_only):
        write_csv(folder / "per_class.csv", *breakdown.per_class(predictions, plan.target.label_names, bounds))
    if predictions.unit in ("years", "decades"):
        write_csv(folder / "error_by_decade.csv", *breakdown.error_by_decade(predictions, bounds))
    if predictions.unit == "years":
        write_csv(folder / "cs_curve.csv", *breakdown.cs_curve(predictions, bounds))
    if (curves := decision_curves(plan, predictions, bounds)) is not None:
        write_csv(folder / "decision.csv", *decision_table(curves))
    write_coverage(folder, plan, predictions, bounds=bounds)


def write_coverage(folder: Path, plan: Plan, predictions: Predictions, *, bounds: dict[str, Array]) -> None:
    """Write coverage_by_decade.csv, if the predictions are finite and calibrated and the labels have an order."""
    if predictions.calibrated is not None and predictions.ordered and is_finite(predictions):
        table = breakdown.coverage_by_decade(predictions, plan.target.label_names, bounds)
        write_csv(folder / "coverage_by_decade.csv", *table)
