"""Metrics of decisions at one age limit for all runs of a comparison, computed from predictions.csv."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from agebench.comparison.predictions_csv import NoPairsError, read_numbers, read_tested
from agebench.errors import UserError
from agebench.metrics.age_limit import make_age_limit
from agebench.metrics.bootstrap import intervals
from agebench.metrics.compute import summarise
from agebench.metrics.table import is_decision
from agebench.runs.description import SEED
from agebench.runs.predictions_csv import label_values, labelled_predictions, unit_of
from agebench.runs.read import Run, mapping


def at_age_limit(runs: Sequence[Run], limit: int) -> tuple[list[Run], list[str]]:
    """Return the runs with the metrics of decisions at an age limit, and a note for each run that cannot have them.

    Metrics at other limits are removed.

    Raises:
        UserError: If no completed run can have them.
    """
    found, notes, last = [without_decisions(run) for run in runs], list[str](), UserError("no run is completed")
    for i, run in enumerate(found):
        if run.status != "completed":
            continue
        try:
            found[i] = _at_age_limit(run, limit)
        except (UserError, NoPairsError) as error:
            last = UserError(f"{run.folder.name}: {error}")
            notes.append(str(last))
    if not any(run.result("decision") for run in found):
        raise last
    return found, notes


def without_decisions(run: Run) -> Run:
    """Return a run without its metrics of decisions at an age limit."""
    kept = {
        key: {name: value for name, value in mapping(run.results.get(key)).items() if not is_decision(str(name))}
        for key in ("metrics", "intervals")
    }
    folds = tuple(without_decisions(fold) for fold in run.folds)
    return replace(run, results={**run.results, **kept, "decision": None}, folds=folds)


def _at_age_limit(run: Run, limit: int, *, is_fold: bool = False) -> Run:
    """Return a run with the metrics of decisions, and with their intervals unless it is a fold of a pooled run."""
    unit = unit_of(str(run.result("protocol")))
    people = np.array(read_numbers(run, "test/mae", unit).people if unit else [], dtype=np.str_)
    known = run.result("left_out", "has_posterior") is not False  # else its cells are empty
    labels, leading, posterior = read_tested(run, posterior=known)
    values, bins = label_values(labels, unit), run.config.get("data.bins")
    age_limit = make_age_limit({"age_limit": limit}, values=values, unit=unit, bins=bins)
    targets, points = [row[2] for row in leading], [row[3] for row in leading]
    predictions = replace(
        labelled_predictions(labels, targets, points, posterior=posterior, unit=unit),
        age_limit=age_limit,
        has_posterior=known,
    )
    metrics = {f"test/{name}": value for name, value in summarise(predictions).items() if is_decision(name)}
    bounds = {} if is_fold else intervals(predictions, people, seed=SEED)
    results: dict[str, Any] = {
        **run.results,
        "metrics": {**mapping(run.results.get("metrics")), **metrics},
        "intervals": {
            **mapping(run.results.get("intervals")),
            **{name: bounds[name.removeprefix("test/")].tolist() for name in metrics if bounds},
        },
        "decision": {"age_limit": float(limit)},
    }
    return replace(run, results=results, folds=tuple(_at_age_limit(fold, limit, is_fold=True) for fold in run.folds))
