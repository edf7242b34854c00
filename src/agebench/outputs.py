"""The tables that a training and a test leave: who was in which part, what was predicted, and for how many images."""

from pathlib import Path
from typing import Any

import numpy as np

from agebench import run
from agebench.data.audit import leak
from agebench.data.datamodule import ImageDataModule
from agebench.data.split import PARTS, test_sha
from agebench.leaks import audit_tested
from agebench.module import Predictions


def write_split(folder: Path, data: ImageDataModule) -> None:
    """Write split.csv (who is in which part), and missing.csv and broken.csv if there is need."""
    people = data.records.columns.get("identity")
    rows = [
        (data.records.names[row], part, "" if people is None else people[row], data.target.label_names[label])
        for part in PARTS
        for row, label in zip(data.split.part(part), data.target.labels[data.split.part(part)], strict=True)
    ]
    run.write_csv(folder / "split.csv", ("name", "part", "identity", "label"), rows)
    write_losses(folder, data)


def write_losses(folder: Path, data: ImageDataModule) -> None:
    """Write missing.csv (images that the data set lists and that are not there) and broken.csv, if there are any."""
    if len(data.missing):
        run.write_csv(folder / "missing.csv", ("name",), [(name,) for name in data.missing])
    if data.broken:
        run.write_csv(folder / "broken.csv", ("name", "reason"), data.broken.items())


def write_predictions(folder: Path, data: ImageDataModule, predictions: Predictions) -> None:
    """Write predictions.csv: one row a test image with its name, person, label, estimate, posterior and protocol."""
    rows = data.split.test[predictions.rows]
    people = data.records.columns.get("identity")
    names = data.target.label_names
    columns = ("name", "identity", "target", "point", *(f"p({name})" for name in names), "protocol")
    point = predictions.point if data.target.ordered else [names[int(p)] for p in predictions.point]
    body = (
        (
            data.records.names[row],
            "" if people is None else people[row],
            names[predictions.target[i]],
            point[i],
            *(f"{p:.6g}" for p in predictions.posterior[i]),
            data.protocol,
        )
        for i, row in enumerate(rows)
    )
    run.write_csv(folder / "predictions.csv", columns, body)


def describe_data(data: ImageDataModule, predictions: Predictions | None = None) -> dict[str, Any]:
    """Return what results.json says of the data, and of what it leaks about the images that are tested.

    Args:
        data: Set up.
        predictions: Of the images that were really tested: a trainer limit leaves some out. None before the test.
    """
    rows = np.arange(len(data.split.test)) if predictions is None else predictions.rows
    return {
        "split_sha": test_sha(data.records, data.split.test[rows]),
        "data": {
            **data.counts,
            "test": len(rows),
            "val_is_test": data.split.val_is_test,
            "missing": len(data.missing),
            "broken": len(data.broken),
        },
        "leak": leak(audit_tested(data, rows)),
    }


def who_is_in(data: ImageDataModule, predictions: Predictions) -> Any:
    """Return whose each predicted image is, shape (N,), or None if the data does not say."""
    people = data.records.columns.get("identity")
    return None if people is None else people[data.split.test[predictions.rows]]
