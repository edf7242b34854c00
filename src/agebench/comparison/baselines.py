"""Baselines of a table, which use no pixels: the median, the most common label, and an identity lookup."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agebench.comparison.groups import Group, name_of
from agebench.comparison.predictions_csv import Numbers, read_tested
from agebench.files import read_csv
from agebench.metrics.by_group import Gap
from agebench.metrics.predictions import Array
from agebench.metrics.table import main_metric
from agebench.runs.predictions_csv import label_values
from agebench.runs.read import Run, mapping

UNREADABLE = (OSError, ValueError, KeyError, IndexError, csv.Error)  # what reading damaged files raises
NAMES = {"mae": "always the median", "accuracy": "most common label"}


@dataclass(frozen=True)
class Baseline:
    """A baseline that uses no pixels.

    Args:
        name: The name in the table.
        metrics: Test metrics by name.
        gaps: The gap between groups of test images, as in agebench.comparison.tables.Row.
        standardised: The age-standardised gaps, as in agebench.comparison.tables.Row.
    """

    name: str
    metrics: dict[str, float]
    gaps: Mapping[tuple[str, str], Gap | None] = field(default_factory=dict)
    standardised: Mapping[str, Gap | None] = field(default_factory=dict)


def find_baselines(groups: Sequence[Group], unit: str) -> tuple[list[Baseline], list[str]]:
    """Return the baselines of a table, and a sentence about each leak.

    Args:
        groups: All groups of the table.
        unit: The unit of the target, empty for classes.
    """
    baselines, notes = [], []
    for leak, leaking in _leaks(groups):
        of = "" if len(leaking) == len(groups) else f" ({', '.join(name_of(group) for group in leaking)})"
        baselines += [Baseline(name + of, metrics) for name, metrics in _leak_baselines(leak, unit).items() if metrics]
        notes += [note] if (note := _leak_note(leak, of)) else []
    if not baselines and (blind := score_blind(groups[0].runs[0], unit)):
        metric = main_metric(unit)
        baselines = [Baseline(NAMES[metric], {f"test/{metric}": blind[f"test/{metric}"]})]
    return baselines, notes


def score_blind(run: Run, unit: str) -> dict[str, float]:
    """Return the test MAE of the train median, and the test accuracy of the most common train label.

    Args:
        run: A run with split.csv and predictions.csv.
        unit: The unit of the target, empty for classes.

    Returns:
        `test/mae` (not for classes) and `test/accuracy`, or nothing if the files cannot be read. Each fold of a pooled
        run is scored by its own train part.
    """
    try:
        return {name: float(each.mean()) for name, each in _score_images(run, unit)[1].items()}
    except UNREADABLE:
        return {}


def blind_numbers(run: Run, metric: str, unit: str) -> Numbers | None:
    """Return the value of a metric of score_blind for each test image; None if the files cannot be read."""
    try:
        leading, scores = _score_images(run, unit)
    except UNREADABLE:
        return None
    names, people, *_ = (list(column) for column in zip(*leading, strict=True))
    return Numbers(names, people, scores[metric])


def _score_images(run: Run, unit: str) -> tuple[list[list[str]], dict[str, Array]]:
    """Return the rows of predictions.csv, and the scores of score_blind for each image, float64, shape (N,)."""
    if run.folds:
        parts = [_score_images(replace(fold, tested=run.tested), unit) for fold in run.folds]
        scores = {name: np.concatenate([each[name] for _, each in parts]) for name in parts[0][1]}
        return [row for rows, _ in parts for row in rows], scores
    labels, leading, _ = read_tested(run, posterior=False)
    index = {label: i for i, label in enumerate(labels)}
    train = np.array([index[row["target"]] for row in read_csv(run.folder / "split.csv") if row["part"] == "train"])
    if not len(train):
        raise ValueError("no train image")
    test = np.array([index[row[2]] for row in leading], dtype=np.int64)
    found = {"test/accuracy": (test == np.bincount(train, minlength=len(labels)).argmax()).astype(np.float64)}
    if unit:
        values = np.array(label_values(labels, unit))
        found["test/mae"] = np.abs(values[test] - np.median(values[train]))
    return leading, found


def _leaks(groups: Sequence[Group]) -> list[tuple[dict[str, Any], list[Group]]]:
    """Return each distinct leak in results.json, with the groups that have it."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        for run in group.runs:
            if leak := mapping(run.results.get("leak")):
                leaking = found.setdefault(json.dumps(leak, sort_keys=True, default=str), [])
                if group not in leaking:
                    leaking.append(group)
    return [(json.loads(text), leaking) for text, leaking in found.items()]


def _leak_baselines(leak: Mapping[str, Any], unit: str) -> dict[str, dict[str, float]]:
    """Return the test metrics of each baseline of an audit."""
    # An identity lookup rarely predicts the exact year.
    accuracy = None if unit == "years" else leak.get("lookup_accuracy")
    majority = None if accuracy is None else leak.get("majority_accuracy")
    found = {
        "identity looked up": {"test/mae": leak.get("lookup_mae"), "test/accuracy": accuracy},
        NAMES["mae"]: {"test/mae": leak.get("median_mae")},
        NAMES["accuracy"]: {"test/accuracy": majority},
    }
    return {
        name: {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}
        for name, metrics in found.items()
    }


def _leak_note(leak: Mapping[str, Any], of: str) -> str:
    share, images = leak.get("test_identity_in_train"), leak.get("images")
    if isinstance(share, int | float):
        return (
            f"the split leaks{of}: {share:.1%} of the test images show an identity that is also in train; "
            "an identity lookup uses no pixels"
        )
    if isinstance(images, int):
        return f"the test set leaks{of}: {images:,} of its images were used to train the model"
    return ""
