"""Find images and identities in a test set on which a run was trained."""

import csv
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agebench.data.plan import Plan
from agebench.data.readers.folders import nfc
from agebench.data.records import Array, Records
from agebench.data.split import PARTS, Split
from agebench.errors import UserError
from agebench.files import read_csv
from agebench.identity_groups import factorize
from agebench.leakage.audit import audit, leak

log = logging.getLogger(__name__)

COLUMNS = ("name", "part", "identity", "target")  # columns of a run's split.csv
NUMBER = re.compile(r"[0-9]+")


def audit_tested(data: Plan, rows: Array) -> dict[str, Any]:
    """Return the audit of a plan's split with only the given rows of its test part, int64, shape (n,)."""
    return audit(data.records, data.target, replace(data.split, test=data.split.test[rows]))


def leak_sentence(found: Mapping[str, Any]) -> str:
    """Return one sentence with reference scores for the test metrics, from `leak` of results.json."""
    metrics = []
    if found.get("lookup_mae") is not None:
        metrics.append(f"MAE {found['lookup_mae']:.2f} {found['unit']} (the median: {found['median_mae']:.2f})")
    if found.get("lookup_accuracy") is not None and found["unit"] != "years":  # exact years are rarely right
        lookup, majority = found["lookup_accuracy"], found["majority_accuracy"]
        metrics.append(f"accuracy {lookup:.3f} (the most common label: {majority:.3f})")
    if not metrics:
        return f"for comparison: {found['images']:,} of the test images are images that the model was trained on"
    return (
        f"for comparison: an identity lookup, which sees no pixel, scores {' and '.join(metrics)}; "
        f"{found['test_identity_in_train']:.1%} of the test images are of an identity that is in train"
    )


def read_split(run_dir: Path) -> dict[str, Array] | None:
    """Return the COLUMNS of a run's split.csv, str, shape (N,) each, or None if the file cannot be read."""
    try:
        rows = read_csv(run_dir / "split.csv")
        return {column: np.array([row[column] for row in rows], dtype=np.str_) for column in COLUMNS}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError):
        return None


def check_people(
    trained: dict[str, Array],
    data: Plan,
    *,
    same_data: bool,
    allow: bool,
    model: str = "the model",
    advice: str = "test on other images, or set allow_leak=true to test anyway",
) -> dict[str, Any] | None:
    """Raise an error if a test set contains images or identities on which a run was trained.

    Identities of the run's val part only selected the epoch, so they cause a warning. A number identifies a person
    only within one data set, so plain numbers of another data set are unknown identities.

    Args:
        trained: The run's split, see read_split.
        data: The data to test on.
        same_data: Whether the data is the data set of the run. Then equal names and numbers mean the same image or
            identity.
        allow: Whether to log a warning instead of raising an error.
        model: What was trained, for the error.
        advice: What to do, for the error.

    Returns:
        `leak` of results.json: the `images` and `identities` of test that the run was trained on, and, if both data
        sets have identities, the result of `agebench.leakage.audit.leak` with the run's train part. None without such
        an image.

    Raises:
        UserError: If such an image exists and `allow` is false.
    """
    rows = data.split.test
    names, people = data.records.names[rows], _people(data.records, same_data=same_data)[rows]
    trained_people = _keys(trained["identity"], same_data=same_data)
    if not same_data:
        _warn_of_same_names(names, trained["name"][trained["part"] == "train"])
        if not has_named_identities(trained, data):
            log.warning("unknown whether the run was trained on these images or on their identities")
    shared, by_person = {}, {}
    for part in ("train", "val"):
        of_part = trained["part"] == part
        by_person[part] = (people != "") & np.isin(people, trained_people[of_part])
        shared[part] = by_person[part] | (same_data & np.isin(names, trained["name"][of_part]))
    in_val = int((shared["val"] & ~shared["train"]).sum())
    if in_val:
        count = f"{in_val:,} of the {len(rows):,} test images"
        log.warning("%s, or their identities, are in the val part that selected the run's epoch", count)
    images, identities = int(shared["train"].sum()), len(np.unique(people[by_person["train"]]))
    if images == 0:
        return None
    kind = "people" if data.target.ordered else "identities"
    what = f"show {kind} ({identities:,} of them)" if identities else "are images"
    sentence = f"{images:,} of the {len(rows):,} test images {what} that {model} was trained on"
    if not allow:
        raise UserError(f"{sentence}: {advice}")
    log.warning("%s: the metrics are not those of unseen data", sentence)
    found = _audit_with(trained, trained_people, data, people)
    return {"images": images, "identities": identities, **(leak(found) or {} if found else {})}


def has_named_identities(trained: dict[str, Array], data: Plan) -> bool:
    """Return whether a run and another data set both have identities that are names, not numbers."""
    people = _people(data.records, same_data=False)[data.split.test]
    return bool((people != "").any() and (_keys(trained["identity"], same_data=False) != "").any())


def _warn_of_same_names(tested: Array, trained: Array) -> None:
    """Warn if images of another data set have the same file names as train images."""
    known = {name.rpartition("/")[2] for name in trained.tolist()}
    count = sum(name.rpartition("/")[2] in known for name in tested.tolist())
    if count:
        of = f"{count:,} of the {len(tested):,} test images"
        log.warning(
            "%s have the file names of images that the model was trained on: make sure that the images differ", of
        )


def is_own_test(trained: dict[str, Array], data: Plan, *, same_data: bool) -> bool:
    """Return whether the test images of the data are exactly the run's own test images."""
    own = trained["name"][trained["part"] == "test"]
    return same_data and set(own.tolist()) == set(data.records.names[data.split.test].tolist())


def own_leak(trained: dict[str, Array], data: Plan) -> dict[str, Any] | None:
    """Return `leak` of results.json for a run's own test images."""
    people = _people(data.records, same_data=True)[data.split.test]
    found = _audit_with(trained, trained["identity"], data, people)
    return None if found is None else leak(found)


def _audit_with(trained: dict[str, Array], trained_people: Array, data: Plan, people: Array) -> dict[str, Any] | None:
    """Return the audit of a split of the run's train and val parts and the data's test part.

    It is None if the run was trained for labels in another unit.
    """
    label = {name: i for i, name in enumerate(data.target.label_names)}
    if not set(trained["target"].tolist()) <= label.keys():
        return None
    used, rows = np.isin(trained["part"], ("train", "val")), data.split.test
    labels = [np.array([label[name] for name in trained["target"][used]], dtype=np.int64), data.target.labels[rows]]
    part = np.concatenate([trained["part"][used], np.full(len(rows), "test")])
    names = np.concatenate([trained["name"][used], data.records.names[rows]])
    records = Records(names, {"identity": np.concatenate([trained_people[used], people])})
    train, val, test = (np.flatnonzero(part == name) for name in PARTS)
    return audit(records, replace(data.target, labels=np.concatenate(labels)), Split("", train, val, test))


def _people(records: Records, *, same_data: bool) -> Array:
    identities = records.columns.get("identity")
    return np.full(len(records), "") if identities is None else _keys(identities.astype(np.str_), same_data=same_data)


def _keys(people: Array, *, same_data: bool) -> Array:
    """Return the keys for comparing identities, str, shape (N,); empty for unknown identities."""
    if same_data:
        return people
    distinct, codes = factorize(people)
    keys = ["" if NUMBER.fullmatch(name) else nfc(name).casefold().replace("_", " ") for name in distinct.tolist()]
    return np.array(keys, dtype=np.str_)[codes]
