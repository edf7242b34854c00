"""Groups of runs that differ only in the seed, with mean and standard deviation over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agebench.comparison.parameters import Parameters, format_value, short_name, short_names
from agebench.metrics.table import is_decision
from agebench.runs.identity import SHOWN
from agebench.runs.read import Run

MAX_NAMED = 3  # excluded runs that a note names


@dataclass(frozen=True)
class Group:
    """Completed runs of one config on the same test images, one run per seed.

    Args:
        runs: The runs in the order of their seeds.
        params: The parameters in which the groups of the table differ.
    """

    runs: tuple[Run, ...]
    params: Parameters

    def values(self, metric: str) -> list[float]:
        """Return a metric of each run, or NaN if a run does not have it or has diverged."""
        found = [run.metrics.get(metric) for run in self.runs]
        return [float("nan") if value is None else value for value in found]

    def mean(self, metric: str) -> float:
        """Return the mean over seeds, or NaN if any value is NaN."""
        return float(np.mean(self.values(metric)))

    def std(self, metric: str) -> float | None:
        """Return the sample standard deviation (n - 1) over seeds, or None for a single seed."""
        values = self.values(metric)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def interval(self, metric: str) -> tuple[float, float] | None:
        """Return the 95% interval of a single run, or None if there are several runs or no interval."""
        found = self.runs[0].result("intervals", metric) if len(self.runs) == 1 else None
        if not isinstance(found, list) or len(found) != 2:
            return None
        if not all(isinstance(x, int | float) and math.isfinite(x) for x in found):
            return None
        return float(found[0]), float(found[1])

    def by_fold(self, metric: str) -> list[float]:
        """Return a metric of each fold, averaged over seeds, or nothing if the runs are not pooled.

        Nothing is returned for groups of test images either, because the metrics of a fold are those of all its images.
        """
        if self.runs[0].group or not all(run.folds for run in self.runs):
            return []
        of_runs = [Group(run.folds, {}).values(metric) for run in self.runs]
        return [float(np.mean(values)) for values in zip(*of_runs, strict=True)]

    def average(self, *keys: str) -> float | None:
        """Return the mean over runs of a number in results.json, or None if a run does not have it."""
        found = [run.result(*keys) for run in self.runs]
        if not all(isinstance(value, int | float) for value in found):
            return None
        return float(np.mean(found))

    @property
    def diverged(self) -> int:
        """Number of runs with a null test metric. Metrics of decisions may be undefined for other reasons."""
        nulls = [{name for name, value in run.metrics.items() if value is None} for run in self.runs]
        return sum(any(not is_decision(name) for name in names) for names in nulls)


def group_runs(runs: Sequence[Run]) -> tuple[list[list[Run]], list[str]]:
    """Group completed runs that differ only in the seed.

    Of several runs with the same config and seed, only the newest is kept. A run has priority over its evaluations,
    which repeat its test. Runs that differ in `on_nan` are a group if none of them has the same seed.

    Returns:
        The groups in the order of their first run, each sorted by seed; and a sentence for each reason why runs were
        excluded.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.same, []).append(run)
    repeated_runs: list[Run] = []
    repeated_tests = 0
    kept = []
    for group in (part for same in groups.values() for part in split_by_shown(same)):
        by_seed: dict[str, list[Run]] = {}
        for run in group:
            by_seed.setdefault(repr(run.seed), []).append(run)
        chosen = []
        for same in by_seed.values():
            newest = max(same, key=lambda run: (run.evaluated is None, run.written))
            chosen.append(newest)
            repeated_tests += sum(run.evaluated is not None for run in same if run is not newest)
            repeated_runs += [run for run in same if run.evaluated is None and run is not newest]
        kept.append(sorted(chosen, key=_by_seed))
    notes = []
    if repeated_runs:
        names = ", ".join(str(run.folder) for run in repeated_runs[:MAX_NAMED])
        names += ", ..." if len(repeated_runs) > MAX_NAMED else ""
        reason = "only the newest run of a config and seed counts"
        notes.append(f"{count(len(repeated_runs), 'run')} excluded: {reason} ({names})")
    if repeated_tests:
        reason = "it repeats the test of a run" if repeated_tests == 1 else "they repeat the tests of runs"
        notes.append(f"{count(repeated_tests, 'evaluation')} excluded: {reason} in the table")
    return kept, notes


def split_by_shown(runs: list[Run]) -> list[list[Run]]:
    """Return the runs of a config in one list, or by their values of SHOWN if runs of the same seed differ in them."""
    parts: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        parts.setdefault(tuple(repr(run.config.get(key, default)) for key, default in SHOWN.items()), []).append(run)
    seeds = [seed for part in parts.values() for seed in {repr(run.seed) for run in part}]
    return list(parts.values()) if len(seeds) > len(set(seeds)) else [runs]


def _by_seed(run: Run) -> tuple[int, str]:
    return (run.seed, "") if isinstance(run.seed, int) else (0, str(run.seed))


def count(times: int, what: str) -> str:
    """Return a number with its noun, such as `1 run` or `2 runs`."""
    return f"{times:,} {what}{'' if times == 1 else 's'}"


def name_of(group: Group) -> str:
    """Return the name of a group for notes and figures."""
    if group.runs[0].scored:
        return group.runs[0].scored
    params = {key: value for key, value in group.params.items() if key != "name"}  # that of another run
    choices = group.runs[0].choices
    if all(value is None for value in params.values()):
        return short_name(group.runs[0])
    names = short_names(list(params))
    texts = {key: format_value(value) for key, value in params.items()}
    return " ".join(text if key in choices else f"{names[key]}={text}" for key, text in texts.items())
