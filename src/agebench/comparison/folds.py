"""Pool the runs of the k folds of a split: one result over all images, each tested once."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np

from agebench.comparison.groups import Group, count, group_runs, name_of
from agebench.comparison.parameters import differing
from agebench.comparison.predictions_csv import NoPairsError, calibrate, read_labelled, read_numbers
from agebench.data.protocol import is_capped, without_fold
from agebench.data.split import names_sha
from agebench.errors import UserError
from agebench.identity_groups import group_codes
from agebench.metrics.age_limit import DEFAULTS, AgeLimit, make_age_limit
from agebench.metrics.bootstrap import METHOD, intervals, resamples_for
from agebench.metrics.compute import summarise
from agebench.metrics.predictions import Array, LabelledPredictions
from agebench.metrics.table import main_metric
from agebench.runs.description import SEED
from agebench.runs.identity import config_hash
from agebench.runs.predictions_csv import unit_of
from agebench.runs.read import Run, mapping, number

FOLD, FOLDS = "data.split.fold", "data.split.k"
NAMED = 5  # groups or folds that a note names


@dataclass(frozen=True)
class Folds:
    """The runs of one config, seed and protocol that differ only in the fold.

    Args:
        protocol: The protocol without the number of the fold.
        same: A hash that is equal for runs that differ only in the fold and the seed.
        runs: The completed runs of each fold.
        k: The number of folds of the split.
        unfinished: The status of runs that are not completed, by fold.
    """

    protocol: str
    same: tuple[str, ...]
    runs: Mapping[int, Sequence[Run]]
    k: int
    unfinished: Mapping[int, str]

    @property
    def members(self) -> list[Run]:
        """All completed runs, in the order of the folds."""
        return [run for fold in sorted(self.runs) for run in self.runs[fold]]


def pool_folds(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Replace the runs of all k folds of a split, which differ only in the fold, by one pooled run per seed.

    Metrics and intervals of a pooled run are computed from the predictions of all folds, as those of a run are from
    its predictions. The posterior in predictions.csv has six digits, so metrics of the posterior have about six too.
    The loss and results by group are left out.

    Args:
        runs: The runs, finished or not.

    Returns:
        The runs, with each pooled run in the place of its first fold; and a sentence for each reason why folds are not
        pooled or runs were excluded. Runs that are not pooled are returned unchanged.
    """
    found, notes = _find_folds(runs)
    pooled: dict[int, Run] = {}  # by the id of the run of the first fold
    hidden: set[int] = {id(run) for run in runs if _fold(run) is not None and run.status == "completed"}
    refused: dict[str, list[Folds]] = {}
    done: set[tuple[str, ...]] = set()
    repeated = 0
    for folds in sorted(found, key=lambda each: each.members[0].evaluated is not None):
        seed = repr(folds.members[0].seed)
        try:
            pooled[id(folds.members[0])] = _pool(folds)
            done.add((folds.protocol, *folds.same, seed))
        except NoPairsError as error:
            if folds.members[0].evaluated is not None and (folds.protocol, *folds.same, seed) in done:
                repeated += len(folds.members)
                continue
            refused.setdefault(str(error), []).append(folds)
            hidden -= {id(run) for run in folds.members}
    if repeated:
        notes.append(f"{count(repeated, 'evaluation')} excluded: the tests of pooled runs are repeated")
    notes += [f"folds not pooled: {_named(each, found)}: {reason}" for reason, each in refused.items()]
    return [pooled.get(id(run), run) for run in runs if id(run) in pooled or id(run) not in hidden], notes


def _fold(run: Run) -> int | None:
    """Return the fold that a run was trained for, and tested on if it is completed; None without folds."""
    fold, k = run.config.get(FOLD), run.config.get(FOLDS)
    if not (isinstance(fold, int) and isinstance(k, int)):
        return None
    return fold if run.status != "completed" or without_fold(str(run.result("protocol")))[1] == fold else None


def _find_folds(runs: Sequence[Run]) -> tuple[list[Folds], list[str]]:
    """Return all groups of completed runs that differ only in the fold, and a note about excluded repetitions."""
    kept, notes = list[Run](), list[str]()
    completed = [run for run in runs if run.status == "completed" and _fold(run) is not None]
    for evaluated in (False, True):  # an evaluation may know groups that its run does not know
        groups, excluded = group_runs([run for run in completed if (run.evaluated is not None) == evaluated])
        kept, notes = [*kept, *chain.from_iterable(groups)], [*notes, *excluded]
    unfinished: dict[tuple[str, ...], dict[int, str]] = {}
    for run in runs:
        if run.status != "completed" and (fold := _fold(run)) is not None:
            unfinished.setdefault((*_same(run), repr(run.seed)), {})[fold] = run.status
    found: dict[tuple[Any, ...], dict[int, list[Run]]] = {}
    for run in kept:
        protocol, fold = without_fold(str(run.result("protocol")))
        key = (protocol, run.evaluated is not None, repr(run.seed), *_same(run))
        found.setdefault(key, {}).setdefault(fold or 0, []).append(run)
    groups_of_folds = [
        Folds(protocol, tuple(same), each, each[min(each)][0].config[FOLDS], unfinished.get((*same, seed), {}))
        for (protocol, _, seed, *same), each in found.items()
    ]
    return groups_of_folds, list(dict.fromkeys(notes))


def _same(run: Run) -> tuple[str, ...]:
    """Return a hash that is equal for runs that differ only in the fold and the seed, and the tested checkpoint."""
    return config_hash(_without_fold(run.config)), *run.same[2:]


def _without_fold(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != FOLD}


def _named(refused: Sequence[Folds], found: Sequence[Folds]) -> str:
    """Return the names of groups of folds, which say how they differ from all other groups."""
    firsts = [replace(folds.members[0], config=_without_fold(folds.members[0].config)) for folds in found]
    names = [name_of(Group((run,), params)) for run, params in zip(firsts, differing(firsts), strict=True)]
    if len({repr(run.seed) for run in firsts}) > 1:
        names = [f"{name} seed={run.seed}" for name, run in zip(names, firsts, strict=True)]
    ids = set(map(id, refused))
    chosen = list(dict.fromkeys(name for name, folds in zip(names, found, strict=True) if id(folds) in ids))
    return ", ".join(chosen[:NAMED]) + (f" and {len(chosen) - NAMED} more" if len(chosen) > NAMED else "")


def _pool(folds: Folds) -> Run:
    """Return the pooled run.

    Raises:
        NoPairsError: If a fold is missing or cannot be used, or the folds do not fit together.
    """
    _check_complete(folds)
    unit, members, first = unit_of(folds.protocol), folds.members, folds.members[0]
    main = f"test/{main_metric(unit)}"
    for fold, run in enumerate(members):
        if main in run.metrics and run.metrics[main] is None:
            raise NoPairsError(f"fold {fold} diverged (null metrics)")
        if run.result("leak"):
            raise NoPairsError(f"fold {fold} was tested on people or images of its train part")
        # This also checks that predictions.csv belongs to results.json.
        read_numbers(run, main, unit)
    facts = _facts(folds)
    pool = replace(
        first,
        config=_without_fold(first.config),
        typed=frozenset().union(*(run.typed for run in members)) - {FOLD},
        same=(folds.same[0], facts["data_sha"], *folds.same[1:]),
        results={**first.results, **facts},
        folds=tuple(members),
        written=max(run.written for run in members),
    )
    names, people, predictions = read_labelled(pool, unit)
    _check_names(folds, names)
    if facts["decision"]:
        predictions = replace(predictions, age_limit=_age_limit(pool, predictions))
    if facts["calibration"]:
        predictions = replace(predictions, calibrated=calibrate(pool, predictions))
    measured = _measure(predictions, np.array(people) if any(people) else None)
    return replace(pool, results={**pool.results, "split_sha": names_sha(names), **measured})


def _measure(predictions: LabelledPredictions, identities: Array | None) -> dict[str, Any]:
    """Return the entries of results.json that are computed from the predictions of N images."""
    groups = group_codes(identities, len(predictions.target))[1]
    metrics, bounds = summarise(predictions), intervals(predictions, identities, seed=SEED)
    return {
        "data": {"test": len(predictions.target), "val_is_test": False},
        "metrics": {f"test/{name}": value for name, value in metrics.items()},
        "intervals": {f"test/{name}": bounds[name].tolist() for name in metrics},
        "bootstrap": {
            "over": "image" if identities is None else "identity",
            "groups": groups,
            "resamples": resamples_for(groups),
            "seed": SEED,
            "method": METHOD,
        },
    }


def _check_complete(folds: Folds) -> None:
    """Raise NoPairsError unless there is one completed run of each fold."""
    absent = list(islice((fold for fold in range(folds.k) if fold not in folds.runs), NAMED))
    if absent or len(folds.runs) != folds.k:
        named = [f"{fold} ({folds.unfinished.get(fold, 'missing')})" for fold in absent]
        named += ["..."] if len(folds.runs) + NAMED < folds.k else []
        raise NoPairsError(f"{len(folds.runs)} of {folds.k} folds are completed; needed: {', '.join(named)}")
    twice = next((fold for fold, runs in folds.runs.items() if len(runs) > 1), None)
    if twice is not None:
        paths = " and ".join(str(run.folder) for run in folds.runs[twice])
        raise NoPairsError(f"fold {twice} was run on different data ({paths}): leave one of them out")


def _check_names(folds: Folds, names: Sequence[str]) -> None:
    """Raise NoPairsError unless each image is tested once."""
    if len(set(names)) < len(names):
        shared = Counter(names).most_common(1)[0][0]
        raise NoPairsError(f"two folds test the same image, such as {shared}, because the data has changed")
    parts = [mapping(run.results.get("data")) for run in folds.members]
    images = {sum(number(each.get(part)) or 0 for part in ("train", "val", "test")) for each in parts}
    if images != {len(names)} and not is_capped(folds.protocol):
        raise NoPairsError(
            f"the folds test {len(names):,} images, and the data of each fold has "
            f"{' or '.join(f'{each:,.0f}' for each in sorted(images))}"
        )


def _facts(folds: Folds) -> dict[str, Any]:
    """Return the entries of results.json of a pooled run that are not computed from the predictions."""
    members = folds.members
    shas = [str(run.result("data_sha")) for run in members]
    decisions = [{key: run.result("decision", key) for key in DEFAULTS} for run in members]
    coverages = {number(run.result("calibration", "coverage")) for run in members}
    all_runs = Group(tuple(members), {})
    seconds, speed = (all_runs.average("timing", key) for key in ("fit_s", "train_images_per_s"))
    return {
        "protocol": folds.protocol,
        "data_sha": hashlib.sha256("\n".join(shas).encode()).hexdigest()[:16],
        "leak": None,
        "decision": decisions[0] if decisions[0]["age_limit"] and decisions.count(decisions[0]) == folds.k else None,
        "calibration": {"coverage": coverages.pop()} if len(coverages) == 1 and None not in coverages else None,
        "groups": None,
        "params": {key: all_runs.average("params", key) for key in ("total", "trainable")},
        "epochs": all_runs.average("epochs"),
        "timing": {"fit_s": None if seconds is None else seconds * folds.k, "train_images_per_s": speed},
    }


def _age_limit(pool: Run, predictions: LabelledPredictions) -> AgeLimit | None:
    """Return the age limit in the results of a pooled run.

    Raises:
        NoPairsError: If the labels cannot be divided at it, or results.json is damaged.
    """
    settings, bins = mapping(pool.result("decision")), pool.config.get("data.bins")
    try:
        return make_age_limit(settings, values=predictions.values.tolist(), unit=predictions.unit, bins=bins)
    except (UserError, TypeError, ValueError) as error:
        raise NoPairsError(f"the age limit in {pool.folder.name} cannot be used: {error}") from error
