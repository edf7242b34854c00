"""What a training and a test leave: who was in which part, what was predicted, and how good that was."""

import hashlib
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agebench.data.datamodule import ImageDataModule
from agebench.data.split import PARTS, test_sha
from agebench.groups import group_codes
from agebench.leakage.audit import leak
from agebench.leakage.seen_in_training import audit_tested
from agebench.metrics import breakdown
from agebench.metrics.bootstrap import intervals, resamples_for
from agebench.metrics.compute import is_finite
from agebench.module import Predictions
from agebench.runs import identity as run

Array = npt.NDArray[Any]
SEED = 0  # of the resamples, whatever the run's: intervals of the same answers are the same


def write_split(folder: Path, data: ImageDataModule) -> None:
    """Write split.csv, one row per image of each part, and missing.csv and broken.csv if images are."""
    rows = chain.from_iterable(_split_rows(data, part) for part in PARTS)
    run.write_csv(folder / "split.csv", ("name", "part", "identity", "label"), rows)
    write_losses(folder, data)


def _split_rows(data: ImageDataModule, part: str) -> Iterator[tuple[Any, ...]]:
    """Return name, part, identity and label of each image of a part."""
    rows, identities = data.split.part(part), data.records.columns.get("identity")
    label_names = np.array(data.target.label_names, dtype=object)
    return zip(
        data.records.names[rows].tolist(),
        repeat(part, len(rows)),
        repeat("", len(rows)) if identities is None else identities[rows].tolist(),
        label_names[data.target.labels[rows]].tolist(),
        strict=True,
    )


def write_losses(folder: Path, data: ImageDataModule) -> None:
    """Write missing.csv (images that the data set lists and that are not there) and broken.csv, if there are any.

    Lists of an earlier time go if there are none.
    """
    for file, columns, rows in (
        ("missing.csv", ("name",), [(name,) for name in data.missing]),
        ("broken.csv", ("name", "reason"), list(data.broken.items())),
    ):
        if rows:
            run.write_csv(folder / file, columns, rows)
        else:
            (folder / file).unlink(missing_ok=True)


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


def describe_test(data: ImageDataModule, predictions: Predictions) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return what results.json says of a test, and the intervals in it as `agebench.metrics.bootstrap` has them.

    The former holds `metrics`, their 95% `intervals`, and `bootstrap`: over what was resampled, and how often. A loss
    that is no mean over images under the head's own weights has no interval.
    """
    people = who_is_in(data, predictions)
    groups = group_codes(people, len(predictions.rows))[1]
    resamples = resamples_for(groups)
    losses, weights = predictions.losses, predictions.weights
    whole = np.average(losses, weights=weights)
    known = np.isclose(whole, predictions.metrics["test/loss"], rtol=1e-4, equal_nan=True)
    means = {"loss": (losses, weights)} if known else {}
    bounds = intervals(predictions, people, means=means, resamples=resamples, seed=SEED)
    told = {name: bounds[short].tolist() for name in predictions.metrics if (short := name[len("test/") :]) in bounds}
    over = "image" if people is None else "identity"
    about = {"over": over, "groups": groups, "resamples": resamples, "seed": SEED}
    return {"metrics": predictions.metrics, "intervals": told, "bootstrap": about}, bounds


def write_breakdown(folder: Path, data: ImageDataModule, predictions: Predictions, *, bounds: dict[str, Array]) -> None:
    """Write per_class.csv, for ages error_by_decade.csv, and for ages in years cs_curve.csv.

    None is written of a network that has diverged.
    """
    if not is_finite(predictions):
        return
    run.write_csv(folder / "per_class.csv", *breakdown.per_class(predictions, data.target.label_names, bounds))
    if predictions.unit in ("years", "decades"):
        run.write_csv(folder / "error_by_decade.csv", *breakdown.error_by_decade(predictions, bounds))
    if predictions.unit == "years":
        run.write_csv(folder / "cs_curve.csv", *breakdown.cs_curve(predictions, bounds))


def data_sha(data: ImageDataModule) -> str:
    """Return 16 hex digits that stand for every image of every part with its label: of all that a run works on.

    Images that are missing or broken, lists and labels that somebody edits change it, though the config is the same.
    """
    rows = [data.split.part(part) for part in PARTS]
    lines = [
        f"{part}|{name}|{label}"
        for part, each in zip(PARTS, rows, strict=True)
        for name, label in zip(data.records.names[each], data.target.labels[each], strict=True)
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def describe_data(data: ImageDataModule, predictions: Predictions | None = None) -> dict[str, Any]:
    """Return what results.json says of the data, and of what it leaks about the images that are tested.

    Args:
        data: Set up.
        predictions: Of the images that were really tested: a trainer limit leaves some out. None before the test.
    """
    rows = np.arange(len(data.split.test)) if predictions is None else predictions.rows
    return {
        "data_sha": data_sha(data),
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
