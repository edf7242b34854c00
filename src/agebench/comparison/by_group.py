"""The runs of a comparison, tested on one group of the test images at a time, such as one sex."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from agebench.comparison.predictions_csv import NoPairsError, calibrate, read_labelled
from agebench.errors import UserError, did_you_mean
from agebench.files import read_csv
from agebench.identity_groups import group_codes
from agebench.metrics.age_limit import make_age_limit
from agebench.metrics.bootstrap import intervals, resamples_for
from agebench.metrics.by_group import BETWEEN, LEAST, members
from agebench.metrics.compute import summarise
from agebench.metrics.predictions import Array, take
from agebench.runs.description import SEED
from agebench.runs.predictions_csv import unit_of
from agebench.runs.read import Run, mapping

ABOUT_SPLIT = ("test_identity_in_train", "images")  # of `leak`; the other entries are scores on all test images
Columns = Mapping[str, Mapping[str, str]]  # the group of each test image by column and name


def by_group(
    runs: Sequence[Run], columns: Sequence[str], *, grouped: Sequence[Run] = ()
) -> tuple[list[Run], list[str]]:
    """Return the completed runs once per group of test images, with the metrics of the group, and a note for each gap.

    The groups are those of the run's groups.csv, or else of another run on the same test images. All other runs are
    returned unchanged.

    Args:
        runs: The runs, finished or not.
        columns: A column of groups.csv, or several, whose combinations are the groups.
        grouped: Further runs whose groups.csv is read.

    Raises:
        UserError: If no run has the columns, or no group is large enough.
    """
    columns_of = read_columns([*runs, *grouped], columns)
    found: list[Run] = []
    notes: list[str] = []
    for run in runs:
        if run.status != "completed":
            found.append(run)
            continue
        try:
            found += _split(run, columns_of(run), columns, notes)
        except NoPairsError as error:
            notes.append(f"not ranked by {', '.join(columns)}: {error}")
    if not any(run.group for run in found):
        raise UserError(f"nothing to rank by {', '.join(columns)}: {'; '.join(dict.fromkeys(notes))}")
    return sorted(found, key=lambda run: not run.group), list(dict.fromkeys(notes))


def read_columns(runs: Sequence[Run], needed: Sequence[str]) -> Callable[[Run], Columns]:
    """Return a function that gives the groups of the test images of each run.

    They are those of the run's groups.csv, or else of another run on the same test images.

    Raises:
        UserError: If no run has one of the needed columns.
    """
    known = {run.folder: _read_groups(run) for run in runs}
    of_images: dict[Any, Columns] = {}
    for run in runs:
        of_images[_tested(run)] = {**known[run.folder], **of_images.get(_tested(run), {})}
    offered = list(dict.fromkeys(column for each in of_images.values() for column in each))
    for column in needed:
        if column not in offered:
            have = f"columns: {', '.join(offered)}" if offered else "groups: evaluate run=FOLDER data.groups=[COLUMN]"
            raise UserError(f"no run here has groups by {column!r}{did_you_mean(column, offered)}; {have}")
    return lambda run: {**of_images[_tested(run)], **known[run.folder]}


def _tested(run: Run) -> tuple[str, str]:
    return str(run.result("protocol")), str(run.result("split_sha"))


def _read_groups(run: Run) -> Columns:
    if run.folds:
        of_folds = [_read_groups(fold) for fold in run.folds]
        columns = [column for column in of_folds[0] if all(column in each for each in of_folds)]
        return {c: {name: group for each in of_folds for name, group in each[c].items()} for c in columns}
    try:
        rows = read_csv(run.folder / "groups.csv")
        columns = [column for column in rows[0] if column != "name"]
        return {column: {row["name"]: row[column] for row in rows} for column in columns}
    except (OSError, ValueError, KeyError, IndexError, csv.Error):
        return {}


def _split(run: Run, groups: Columns, columns: Sequence[str], notes: list[str]) -> Iterator[Run]:
    """Yield the run once per group of at least LEAST people, and add a note for each smaller group."""
    missing = [column for column in columns if column not in groups]
    if missing:
        raise NoPairsError(f"{run.folder.name} has no groups by {missing[0]!r}")
    unit = unit_of(str(run.result("protocol")))
    names, people, predictions = read_labelled(run, unit)
    if decision := mapping(run.results.get("decision")):
        limit = make_age_limit(
            decision, values=predictions.values.tolist(), unit=unit, bins=run.config.get("data.bins")
        )
        predictions = replace(predictions, age_limit=limit)
    if run.result("calibration"):
        predictions = replace(predictions, calibrated=calibrate(run, predictions))
    try:
        labels = [BETWEEN.join(each) for each in zip(*([groups[c][n] for n in names] for c in columns), strict=True)]
    except KeyError as error:
        raise NoPairsError(f"the groups of {run.folder.name} lack the image {error}") from error
    by = BETWEEN.join(columns)
    for name, rows in members(np.array(labels)):
        identities = np.array(people)[rows] if any(people) else None
        count, units = group_codes(identities, len(rows))[1], "people" if any(people) else "images"
        if count < LEAST:
            notes.append(f"not ranked: {by} = {name}, {count} {units} (fewer than {LEAST})")
            continue
        part = take(predictions, rows)
        bounds = intervals(part, identities, seed=SEED)
        about = {"over": "identity" if any(people) else "image", "groups": count, "resamples": resamples_for(count)}
        yield replace(
            run,
            group=f"{by} = {name}",
            tested=frozenset(np.array(names)[rows].tolist()),
            results=_results(run, summarise(part), bounds, images=len(rows)) | {"bootstrap": about},
        )


def _results(run: Run, metrics: Mapping[str, float], bounds: Mapping[str, Array], *, images: int) -> dict[str, Any]:
    """Return the results of a run with the metrics of a group. The loss is left out."""
    leak = run.result("leak")
    return {
        **run.results,
        "data": {**mapping(run.results.get("data")), "test": images},
        "leak": {key: leak[key] for key in ABOUT_SPLIT if key in leak} if isinstance(leak, Mapping) else leak,
        "metrics": {f"test/{name}": value for name, value in metrics.items()},
        "intervals": {f"test/{name}": bounds[name].tolist() for name in metrics},
    }
