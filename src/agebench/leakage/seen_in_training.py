"""Whom a model was trained on: what a figure is told beside, and who may not be tested on it."""

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
from agebench.leakage.audit import audit, leak

log = logging.getLogger(__name__)

COLUMNS = ("name", "part", "identity", "label")  # of a run's split.csv
NUMBER = re.compile(r"[0-9]+")


def audit_tested(data: Plan, rows: Array) -> dict[str, Any]:
    """Audit a plan's own split, of its test part the given rows alone, int64, shape (n,)."""
    return audit(data.records, data.target, replace(data.split, test=data.split.test[rows]))


def tell_leak(found: Mapping[str, Any]) -> str:
    """Say what a test figure must be compared with, from the block `leak` of a results.json."""
    figures = []
    if found.get("lookup_mae") is not None:
        figures.append(f"MAE {found['lookup_mae']:.2f} {found['unit']} (the median: {found['median_mae']:.2f})")
    if found.get("lookup_accuracy") is not None and found["unit"] != "years":  # an exact year is too much to ask
        right, most = found["lookup_accuracy"], found["majority_accuracy"]
        figures.append(f"accuracy {right:.3f} (the most common label: {most:.3f})")
    if not figures:
        return f"for comparison: {found['images']:,} of the test images are images that the model was trained on"
    return (
        f"for comparison: looking up the identity, without seeing a pixel, scores {' and '.join(figures)}; "
        f"{found['test_identity_in_train']:.1%} of the test images are of one that is in train"
    )


def read_split(run_dir: Path) -> dict[str, Array] | None:
    """Return the COLUMNS of a run's split.csv, str, shape (N,) each, or None if it cannot be read."""
    try:
        with (run_dir / "split.csv").open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
        return {column: np.array([row[column] for row in rows], dtype=np.str_) for column in COLUMNS}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError):
        return None


def check_people(trained: dict[str, Array], data: Plan, *, same_data: bool, allow: bool) -> dict[str, Any] | None:
    """Refuse to test on images, or on people, that a run was trained on.

    People of the run's val part chose its epoch but taught it nothing: they are told of, not refused. Other data name
    people in their own way, so whoever is a bare number there is nobody here.

    Args:
        trained: The run's split, see read_split; its labels are among those of the data.
        data: What is to be tested.
        same_data: Whether it is the data set that the run was trained on: then image names and numbers mean the same.
        allow: Go on all the same.

    Returns:
        The block `leak` of results.json: `images` and `identities` of test that were trained on, and, where both say
        who is in their images, what `agebench.leakage.audit.leak` has, of looking them up in the run's train part. None
        if there are none.

    Raises:
        UserError: If there are any, and `allow` is false.
    """
    rows = data.split.test
    names, people = data.records.names[rows], _people(data.records, same_data=same_data)[rows]
    theirs = _keys(trained["identity"], same_data=same_data)
    if not same_data:
        _tell_same_names(names, trained["name"][trained["part"] == "train"])
        if not tells_people(trained, data):
            log.warning("nothing says whether these images, or who is in them, were among those the run was trained on")
    shown, by_person = {}, {}
    for part in ("train", "val"):
        of_part = trained["part"] == part
        by_person[part] = (people != "") & np.isin(people, theirs[of_part])
        shown[part] = by_person[part] | (same_data & np.isin(names, trained["name"][of_part]))
    images, count = int(shown["train"].sum()), len(np.unique(people[by_person["train"]]))
    if chose := int((shown["val"] & ~shown["train"]).sum()):
        seen = f"{chose:,} of the {len(rows):,} test images"
        log.warning("%s are, or show who is, in the val part that chose the run's epoch", seen)
    if images == 0:
        return None
    of = f"{images:,} of the {len(rows):,} test images"
    if data.target.ordered and count:
        told = f"{of} show people ({count:,} of them) whom the model was trained on"
    elif count:
        told = f"{of} are of identities ({count:,} of them) that the model was trained on"
    else:
        told = f"{of} are images that the model was trained on"
    if not allow:
        raise UserError(f"{told}: test it on others, or set allow_leak=true to have the figure all the same")
    log.warning("%s: the figure is not one of what it has never seen", told)
    found = _look_up(trained, theirs, data, people)
    return {"images": images, "identities": count, **(leak(found) or {})}


def tells_people(trained: dict[str, Array], data: Plan) -> bool:
    """Return whether both a run and another data set say by name who is in their images."""
    people = _people(data.records, same_data=False)[data.split.test]
    return bool((people != "").any() and (_keys(trained["identity"], same_data=False) != "").any())


def _tell_same_names(tested: Array, trained: Array) -> None:
    """Warn if images of another data set are called as those of train, in whatever folders: they may be the same."""
    known = {name.rpartition("/")[2] for name in trained.tolist()}
    count = sum(name.rpartition("/")[2] in known for name in tested.tolist())
    if count:
        of = f"{count:,} of the {len(tested):,} test images"
        log.warning("%s are called as images that the model was trained on: make sure that they are others", of)


def is_own_test(trained: dict[str, Array], data: Plan, *, same_data: bool) -> bool:
    """Return whether data tests the very images that a run tests itself."""
    own = trained["name"][trained["part"] == "test"]
    return same_data and set(own.tolist()) == set(data.records.names[data.split.test].tolist())


def own_leak(trained: dict[str, Array], data: Plan) -> dict[str, Any] | None:
    """Return the block `leak` of a run's own test images, by the train part that it really had."""
    people = _people(data.records, same_data=True)[data.split.test]
    return leak(_look_up(trained, trained["identity"], data, people))


def _look_up(trained: dict[str, Array], theirs: Array, data: Plan, people: Array) -> dict[str, Any]:
    """Audit the split whose train and val are the run's and whose test is the data's."""
    label = {name: i for i, name in enumerate(data.target.label_names)}
    known, rows = np.isin(trained["part"], ("train", "val")), data.split.test
    labels = [np.array([label[name] for name in trained["label"][known]], dtype=np.int64), data.target.labels[rows]]
    who = np.concatenate([theirs[known], people])
    # Two images of which nobody is known show no two of the same person.
    who = np.where(who == "", np.char.add("\0", np.arange(len(who)).astype(np.str_)), who)
    part = np.concatenate([trained["part"][known], np.full(len(rows), "test")])
    records = Records(np.concatenate([trained["name"][known], data.records.names[rows]]), {"identity": who})
    train, val, test = (np.flatnonzero(part == name) for name in PARTS)
    return audit(records, replace(data.target, labels=np.concatenate(labels)), Split("", train, val, test))


def _people(records: Records, *, same_data: bool) -> Array:
    known = records.columns.get("identity")
    return np.full(len(records), "") if known is None else _keys(known.astype(np.str_), same_data=same_data)


def _keys(people: Array, *, same_data: bool) -> Array:
    """Return what people are compared by, str, shape (N,); empty for nobody."""
    if same_data:
        return people
    found, codes = np.unique(people, return_inverse=True)
    keys = ["" if NUMBER.fullmatch(name) else nfc(name).casefold().replace("_", " ") for name in found.tolist()]
    return np.array(keys, dtype=np.str_)[codes]
