"""What a training and a test leave: who was in which part, what was predicted, and how good that was."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agebench.data.plan import Plan
from agebench.data.split import PARTS, test_sha
from agebench.files import write_csv
from agebench.leakage.audit import leak
from agebench.leakage.seen_in_training import audit_tested
from agebench.metrics import breakdown
from agebench.metrics.bootstrap import group_codes, intervals, resamples_for
from agebench.metrics.compute import is_finite
from agebench.metrics.predictions import Predictions

Array = npt.NDArray[Any]
SEED = 0  # of the resamples, whatever the run's: intervals of the same answers are the same


def write_split(folder: Path, plan: Plan) -> None:
    """Write split.csv (who is in which part), and missing.csv and broken.csv if there is need."""
    people = plan.records.columns.get("identity")
    rows = [
        (plan.records.names[row], part, "" if people is None else people[row], plan.target.label_names[label])
        for part in PARTS
        for row, label in zip(plan.split.part(part), plan.target.labels[plan.split.part(part)], strict=True)
    ]
    write_csv(folder / "split.csv", ("name", "part", "identity", "label"), rows)
    write_losses(folder, plan)


def write_losses(folder: Path, plan: Plan) -> None:
    """Write missing.csv (images that the data set lists and that are not there) and broken.csv, if there are any.

    Lists of an earlier time go if there are none.
    """
    for file, columns, rows in (
        ("missing.csv", ("name",), [(name,) for name in plan.missing]),
        ("broken.csv", ("name", "reason"), list(plan.broken.items())),
    ):
        if rows:
            write_csv(folder / file, columns, rows)
        else:
            (folder / file).unlink(missing_ok=True)


def write_predictions(folder: Path, plan: Plan, predictions: Predictions) -> None:
    """Write predictions.csv: one row a test image with its name, person, label, estimate, posterior and protocol."""
    rows = plan.split.test[predictions.rows]
    people = plan.records.columns.get("identity")
    names = plan.target.label_names
    columns = ("name", "identity", "target", "point", *(f"p({name})" for name in names), "protocol")
    point = predictions.point if plan.target.ordered else [names[int(p)] for p in predictions.point]
    body = (
        (
            plan.records.names[row],
            "" if people is None else people[row],
            names[predictions.target[i]],
            point[i],
            *(f"{p:.6g}" for p in predictions.posterior[i]),
            plan.protocol,
        )
        for i, row in enumerate(rows)
    )
    write_csv(folder / "predictions.csv", columns, body)


def describe_test(plan: Plan, predictions: Predictions) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return what results.json says of a test, and the intervals in it as `agebench.metrics.bootstrap` has them.

    The former holds `metrics`, their 95% `intervals`, and `bootstrap`: over what was resampled, and how often. A loss
    that is no mean over images under the head's own weights has no interval.
    """
    people = who_is_in(plan, predictions)
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


def write_breakdown(folder: Path, plan: Plan, predictions: Predictions, *, bounds: dict[str, Array]) -> None:
    """Write per_class.csv, for ages error_by_decade.csv, and for ages in years cs_curve.csv.

    None is written of a network that has diverged.
    """
    if not is_finite(predictions):
        return
    write_csv(folder / "per_class.csv", *breakdown.per_class(predictions, plan.target.label_names, bounds))
    if predictions.unit in ("years", "decades"):
        write_csv(folder / "error_by_decade.csv", *breakdown.error_by_decade(predictions, bounds))
    if predictions.unit == "years":
        write_csv(folder / "cs_curve.csv", *breakdown.cs_curve(predictions, bounds))


def data_sha(plan: Plan) -> str:
    """Return 16 hex digits that stand for every image of every part with its label: of all that a run works on.

    Images that are missing or broken, lists and labels that somebody edits change it, though the config is the same.
    """
    rows = [plan.split.part(part) for part in PARTS]
    lines = [
        f"{part}|{name}|{label}"
        for part, each in zip(PARTS, rows, strict=True)
        for name, label in zip(plan.records.names[each], plan.target.labels[each], strict=True)
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def describe_data(plan: Plan, predictions: Predictions | None = None) -> dict[str, Any]:
    """Return what results.json says of the data, and of what it leaks about the images that are tested.

    Args:
        plan: Of the data.
        predictions: Of the images that were really tested: a trainer limit leaves some out. None before the test.
    """
    rows = np.arange(len(plan.split.test)) if predictions is None else predictions.rows
    return {
        "data_sha": data_sha(plan),
        "split_sha": test_sha(plan.records, plan.split.test[rows]),
        "data": {
            **plan.counts,
            "test": len(rows),
            "val_is_test": plan.split.val_is_test,
            "missing": len(plan.missing),
            "broken": len(plan.broken),
        },
        "leak": leak(audit_tested(plan, rows)),
    }


def who_is_in(plan: Plan, predictions: Predictions) -> Any:
    """Return whose each predicted image is, shape (N,), or None if the data does not say."""
    people = plan.records.columns.get("identity")
    return None if people is None else people[plan.split.test[predictions.rows]]
