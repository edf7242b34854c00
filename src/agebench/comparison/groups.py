"""Runs that differ in the seed alone, taken together: mean and standard deviation over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agebench.comparison.parameters import Parameters, short_names, tell
from agebench.runs.read import Run


@dataclass(frozen=True)
class Group:
    """Completed runs of one config on the same test images, one a seed.

    Args:
        runs: In the order of their seeds.
        params: In what the config differs from those of the other groups of its table.
    """

    runs: tuple[Run, ...]
    params: Parameters

    def values(self, metric: str) -> list[float]:
        """Return a metric of each run; NaN where a run has none, or has diverged."""
        found = [run.metrics.get(metric) for run in self.runs]
        return [float("nan") if value is None else value for value in found]

    def mean(self, metric: str) -> float:
        """Return the mean over seeds, NaN if a single one is."""
        return float(np.mean(self.values(metric)))

    def std(self, metric: str) -> float | None:
        """Return the standard deviation over seeds (of the sample, n - 1), None of a single one."""
        values = self.values(metric)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def interval(self, metric: str) -> tuple[float, float] | None:
        """Return the 95% interval of a single run, None if there are more, or it has none."""
        found = self.runs[0].told("intervals", metric) if len(self.runs) == 1 else None
        if not isinstance(found, list) or len(found) != 2 or not all(isinstance(x, int | float) for x in found):
            return None
        return float(found[0]), float(found[1])

    def average(self, *keys: str) -> float | None:
        """Return the mean over runs of a number in results.json, None if not all have it."""
        found = [run.told(*keys) for run in self.runs]
        if not all(isinstance(value, int | float) for value in found):
            return None
        return float(np.mean(found))

    @property
    def diverged(self) -> int:
        """How many of the runs have a test metric that is no number."""
        return sum(None in run.metrics.values() for run in self.runs)


def alike(runs: Sequence[Run]) -> tuple[list[list[Run]], list[str]]:
    """Sort completed runs into groups that differ only in the seed, and say which runs were left out.

    Of several runs of the same config and seed only the newest counts, because the same run twice is not two seeds. A
    run takes precedence over its evaluations, which repeat its test.

    Returns:
        The groups in the order of their first run, each sorted by seed; and a sentence for each reason to leave runs
        out.
    """
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(run.same, []).append(run)
    repeats = again = 0
    kept = []
    for group in groups.values():
        by_seed: dict[str, list[Run]] = {}
        for run in group:
            by_seed.setdefault(repr(run.seed), []).append(run)
        chosen = []
        for same in by_seed.values():
            newest = max(same, key=lambda run: (run.evaluated is None, run.written))
            chosen.append(newest)
            again += sum(run.evaluated is not None for run in same if run is not newest)
            repeats += sum(run.evaluated is None for run in same if run is not newest)
        kept.append(sorted(chosen, key=_by_seed))
    notes = []
    if repeats:
        notes.append(f"{count(repeats, 'run')} left out: only the newest run of a config and seed counts")
    if again:
        repeated = "it repeats the test of a run" if again == 1 else "they repeat the tests of runs"
        notes.append(f"{count(again, 'evaluation')} left out: {repeated} in the table")
    return kept, notes


def _by_seed(run: Run) -> tuple[int, str]:
    return (run.seed, "") if isinstance(run.seed, int) else (0, str(run.seed))


def count(times: int, what: str) -> str:
    """Return `1 run` or `2 runs`."""
    return f"{times:,} {what}{'' if times == 1 else 's'}"


def name_of(group: Group) -> str:
    """Return the name of a group outside of its table."""
    choices = group.runs[0].choices
    if all(value is None for value in group.params.values()):
        return "-".join(choices[name] for name in ("model", "head") if name in choices) or group.runs[0].folder.name
    names = short_names(list(group.params))
    told = {key: tell(value) for key, value in group.params.items()}
    return " ".join(text if key in choices else f"{names[key]}={text}" for key, text in told.items())
