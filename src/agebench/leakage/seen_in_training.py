"""Find images and identities in a test set on which a run was trained."""

import csv
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agebench.data.plan import Plan
from agebench.data.readers.folders import nfc
from agebench.data.records import Array, Records, Source
from agebench.data.split import PARTS, Split
from agebench.errors import UserError
from agebench.files import read_csv
from agebench.identity_groups import factorize
from agebench.leakage.audit import audit, leak
from agebench.leakage.duplicates import find_copies

log = logging.getLogger(__name__)

COLUMNS = ("name", "part", "identity", "target")  # columns of a run's split.csv
NUMBER = re.compile(r"[0-9]+")
KINDS = {"identity": "identity", "name": "file name", "file": "content"}  # what is compared
SEEN_COLUMNS = ("name", *(f"by_{kind}" for kind in KINDS))  # of seen_in_training.csv
SEEN_IN = ("train", "val")  # parts of a run; val only selected the epoch


@dataclass(frozen=True)
class Seen:
    """The test images that a run has seen: those that are also in its train or val part.

    Args:
        parts: For each kind of comparison, the part of the run (`train`, else `val`) by the name of each seen image.
        unknown: The reason for each kind that could not be compared, or not with all images.
    """

    parts: Mapping[str, Mapping[str, str]]
    unknown: Mapping[str, str]

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """Return `seen_in_training` of results.json: numbers of images by kind and part, and what is `unknown`."""
        counts = {
            kind: {part: list(found.values()).count(part) for part in SEEN_IN} for kind, found in self.parts.items()
        }
        reasons = {kind: {"unknown": reason} for kind, reason in self.unknown.items()}
        return {kind: {**counts.get(kind, {}), **reasons.get(kind, {})} for kind in KINDS}

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Return the rows of seen_in_training.csv: the name of each seen image, and its part by each kind."""
        names = sorted(set().union(*self.parts.values()))
        return [(name, *(self.parts.get(kind, {}).get(name, "") for kind in KINDS)) for name in names]

    def surely_in(self, part: str, *, same_data: bool) -> set[str]:
        """Return the names of the images that are in a part. In another data set, an equal name does not count."""
        kinds = ("identity", "file", "name") if same_data else ("identity", "file")
        return {name for kind in kinds for name, where in self.parts.get(kind, {}).items() if where == part}

    def __or__(self, other: "Seen") -> "Seen":
        """Return the images that one of two runs has seen."""
        parts = {
            kind: {**other.parts.get(kind, {}), **self.parts.get(kind, {}), **_in_train(other.parts.get(kind, {}))}
            for kind in (*self.parts, *other.parts)
        }
        return Seen(parts, {**other.unknown, **self.unknown})


def _in_train(parts: Mapping[str, str]) -> dict[str, str]:
    return {name: part for name, part in parts.items() if part == "train"}


def seen_sentence(seen: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one sentence about `seen_in_training` of results.json."""
    shown = []
    for kind, name in KINDS.items():
        found = seen[kind]
        counts = " and ".join(f"{found[part]:,} in {part}" for part in SEEN_IN if part in found)
        unknown = f"({found['unknown']})" if "unknown" in found else ""
        shown.append(" ".join(each for each in (f"by {name}", counts or "unknown", unknown) if each))
    return f"test images that the run has seen: {'; '.join(shown)}"


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


def find_seen(trained: Mapping[str, Array], data: Plan, *, same_data: bool) -> Seen:
    """Return the test images whose identity or name is in the train or val part of a run. No image is opened.

    Between two data sets, the name of the file is compared without its folder. It is only a hint: other images may have
    it too. A number identifies a person only within one data set.

    Args:
        trained: The run's split, see read_split.
        data: The data to test on.
        same_data: Whether the data is the data set of the run. Then equal names and numbers mean the same image or
            identity.
    """
    names = data.records.names[data.split.test].tolist()
    people = _people(data.records, same_data=same_data)[data.split.test]
    trained_people = _keys(trained["identity"], same_data=same_data)
    keys = names if same_data else list(map(_base, names))
    by_identity: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for part in reversed(SEEN_IN):  # train replaces val
        of_part = trained["part"] == part
        seen = (people != "") & np.isin(people, trained_people[of_part])
        by_identity |= {names[i]: part for i in np.flatnonzero(seen).tolist()}
        known = trained["name"][of_part].tolist()
        known = set(known if same_data else map(_base, known))
        by_name |= {name: part for name, key in zip(names, keys, strict=True) if key in known}
    reason = _no_identities(trained, data, same_data=same_data)
    if reason:
        return Seen({"name": by_name}, {"identity": reason})
    return Seen({"identity": by_identity, "name": by_name}, {})


def add_copies(seen: Seen, trained: Mapping[str, Array], data: Plan, *, tested: Source, trained_on: Source) -> Seen:
    """Return the result of find_seen with the test images that are identical to an image in train or val of the run.

    Args:
        seen: The result of find_seen.
        trained: The run's split, see read_split.
        data: The data to test on.
        tested: The source of the test images.
        trained_on: The source of the images of the run.
    """
    try:
        row_of = {
            name: row
            for row, (name, there) in enumerate(
                zip(trained_on.records().names.tolist(), trained_on.present().tolist(), strict=True)
            )
            if there
        }
    except UserError as error:
        return replace(seen, unknown={**seen.unknown, "file": f"the images of the run are not available: {error}"})
    # Of a val and a train image with the same content, find_copies takes the last one.
    listed = [(name, part) for part in reversed(SEEN_IN) for name in trained["name"][trained["part"] == part].tolist()]
    there = [(row_of[name], part) for name, part in listed if name in row_of]
    unknown, missing = dict(seen.unknown), len(listed) - len(there)
    if missing:
        unknown["file"] = f"{missing:,} of the {len(listed):,} train and val images of the run are not available"
    if not there:
        return replace(seen, unknown=unknown)
    rows = np.array([row for row, _ in there], dtype=np.int64)
    copies = find_copies(tested, data.rows[data.split.test], trained_on, rows).tolist()
    names = data.records.names[data.split.test].tolist()
    found = {name: there[at][1] for name, at in zip(names, copies, strict=True) if at >= 0}
    return Seen({**seen.parts, "file": found}, unknown)


def check_people(
    trained: dict[str, Array],
    data: Plan,
    seen: Seen,
    *,
    same_data: bool,
    allow: bool,
    model: str = "the model",
    advice: str = "test on other images, or set allow_leak=true to test anyway",
) -> dict[str, Any] | None:
    """Raise an error if a test set contains images or identities on which a run was trained.

    Identities and images of the run's val part only selected the epoch, so they cause a warning, as equal file names in
    two data sets do.

    Args:
        trained: The run's split, see read_split.
        data: The data to test on.
        seen: The test images that the run has seen.
        same_data: Whether the data is the data set of the run.
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
    if not same_data:
        _warn_of_same_names(len(rows), list(seen.parts["name"].values()).count("train"))
        if reason := seen.unknown.get("identity"):
            log.warning("unknown whether the run was trained on these identities: %s", reason)
    images = seen.surely_in("train", same_data=same_data)
    in_val = len(seen.surely_in("val", same_data=same_data) - images)
    if in_val:
        count = f"{in_val:,} of the {len(rows):,} test images"
        log.warning("%s, or their identities, are in the val part that selected the run's epoch", count)
    if not images:
        return None
    by_person = [name for name, part in seen.parts.get("identity", {}).items() if part == "train"]
    identities = len(np.unique(people[np.isin(names, by_person)]))
    kind = "people" if data.target.ordered else "identities"
    what = f"show {kind} ({identities:,} of them)" if identities else "are images"
    if identities and len(by_person) < len(images):
        what += " or are images"
    sentence = f"{len(images):,} of the {len(rows):,} test images {what} that {model} was trained on"
    if not allow:
        raise UserError(f"{sentence}: {advice}")
    log.warning("%s: the metrics are not those of unseen data", sentence)
    found = _audit_with(trained, _keys(trained["identity"], same_data=same_data), data, people)
    return {"images": len(images), "identities": identities, **(leak(found) or {} if found else {})}


def _warn_of_same_names(images: int, count: int) -> None:
    """Warn if images of another data set have the same file names as train images."""
    if count:
        log.warning(
            "%s have the file names of images that the model was trained on: make sure that the images differ",
            f"{count:,} of the {images:,} test images",
        )


def _no_identities(trained: Mapping[str, Array], data: Plan, *, same_data: bool) -> str:
    """Return why the identities of a run and of test images cannot be compared; empty if they can."""
    identities = data.records.columns.get("identity", np.full(len(data.records), ""))[data.split.test].astype(np.str_)
    for whose, people in (("the tested data", identities), ("the data of the run", trained["identity"])):
        if not (_keys(people, same_data=same_data) != "").any():
            numbers = bool((people != "").any())
            return f"{whose} has {'only numbers as' if numbers else 'no'} identities"
    return ""


def _base(name: str) -> str:
    return name.rpartition("/")[2]


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
