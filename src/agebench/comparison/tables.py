"""Tables of ranked groups: one for each protocol and list of test images."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from agebench.comparison.baselines import Baseline, find_baselines
from agebench.comparison.groups import Group, group_runs
from agebench.comparison.notes import notes_on, why_not_comparable
from agebench.comparison.paired_differences import Difference, Paired, compare_with_best
from agebench.comparison.parameters import Parameters, differing
from agebench.errors import UserError, did_you_mean
from agebench.metrics.by_group import Gap
from agebench.metrics.table import DECISIONS, METRICS, find, is_decision, main_metric
from agebench.runs.predictions_csv import unit_of
from agebench.runs.read import Run


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        group: The group of runs.
        rank: The rank, from 1. Equal means have the same rank. None if the group cannot be ranked.
        difference: The paired difference to the best group, or None if there is none.
        adjusted: The p-value of the difference after Holm's correction.
        interval: The 95% interval of the metric, or of its mean over seeds; None if it is unknown.
        gaps: The gap between groups of test images, by metric and column of the groups; None where there is none.
        standardised: The age-standardised gap of the metric of the ranks, by column of the groups.
    """

    group: Group
    rank: int | None
    difference: Difference | None = None
    adjusted: float | None = None
    interval: tuple[float, float] | None = None
    gaps: Mapping[tuple[str, str], Gap | None] = field(default_factory=dict)
    standardised: Mapping[str, Gap | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Groups that were tested under one protocol on the same images.

    Args:
        protocol: `dataset/split/target`.
        split_sha: The hash of the list of test images.
        metric: The metric of the ranks, such as `test/mae`.
        unit: The unit of the errors, empty for classes.
        parameters: The parameters in which the groups differ.
        rows: The best group first; groups without a rank last.
        baselines: The baselines, which have no rank.
        paired: The comparison with the best group, or None if there is none.
        notes: Sentences about the limits of the comparison.
        group: The group of test images, such as `sex = female`; empty for all.
        columns: Names of further metrics to show, or patterns such as `false_adult_rate*`. None shows the usual ones.
    """

    protocol: str
    split_sha: str
    metric: str
    unit: str
    parameters: tuple[str, ...]
    rows: tuple[Row, ...]
    baselines: tuple[Baseline, ...]
    paired: Paired | None
    notes: tuple[str, ...]
    group: str = ""
    columns: tuple[str, ...] | None = None

    @property
    def runs(self) -> list[Run]:
        """The runs of all groups."""
        return [run for row in self.rows for run in row.group.runs]

    @property
    def images(self) -> int | None:
        """The number of test images."""
        found = self.rows[0].group.average("data", "test")
        return None if found is None else int(found)


@dataclass(frozen=True)
class Comparison:
    """The tables of a comparison, and the runs that are in no table.

    Args:
        tables: One table for each protocol and list of test images.
        unranked: Runs that are not completed.
        not_comparable: The reason why there are several tables, or an empty string.
    """

    tables: tuple[Table, ...]
    unranked: tuple[Run, ...]
    not_comparable: str


def compare(runs: Sequence[Run], metric: str | None = None, *, columns: Sequence[str] | None = None) -> Comparison:
    """Return tables of runs, grouped by config and ranked. Different protocols or test images have separate tables.

    Args:
        runs: The runs, finished or not.
        metric: The metric of the ranks, with or without `test/`. None is main_metric of the unit.
        columns: Names of the further metrics to show, or patterns such as `false_adult_rate*`. None is the usual ones.

    Raises:
        UserError: If no run has the metric or the metric of a column.
    """
    completed = [run for run in runs if run.status == "completed"]
    requested = _find_metric(metric, completed)
    _check_columns(columns or (), completed)
    tested: dict[tuple[str, str, str], list[Run]] = {}
    for run in completed:
        tested.setdefault((str(run.result("protocol")), str(run.result("split_sha")), run.group), []).append(run)
    tables = tuple(
        replace(_table(members, protocol, sha, requested), columns=None if columns is None else tuple(columns))
        for (protocol, sha, _), members in tested.items()
    )
    unranked = tuple(run for run in runs if run.status != "completed")
    return Comparison(tables, unranked, why_not_comparable(list(dict.fromkeys(each[:2] for each in tested))))


def shown_metrics(table: Table) -> list[str]:
    """Return the further metrics with a column, such as `test/nll`."""
    known = {name: None for run in table.runs for name in run.metrics}
    if table.columns is not None:
        found = [f"test/{name}" for pattern in table.columns for name in _matching(pattern, known)]
        return list(dict.fromkeys(name for name in found if name != table.metric))
    columns = ("always",) if table.unit else ("always", "classes")
    rows = (*METRICS, *(DECISIONS.values() if _has_one_limit(table.runs) else ()))
    shown = [metric for metric in rows if (metric.headline or metric.calibrated) and metric.column in columns]
    names = [f"test/{metric.name}" for metric in shown]
    return [name for name in names if name in known and name != table.metric]


def _has_one_limit(runs: Sequence[Run]) -> bool:
    """Return whether the runs that have an age limit have the same one."""
    return len({run.result("decision", "age_limit") for run in runs} - {None}) <= 1


def _matching(pattern: str, metrics: Iterable[str]) -> list[str]:
    """Return the metrics without `test/` that match a name or a pattern."""
    names = (name.removeprefix("test/") for name in metrics)
    return [name for name in names if fnmatchcase(name, pattern.removeprefix("test/").lower())]


def _check_columns(columns: Sequence[str], completed: Sequence[Run]) -> None:
    known = sorted({name for run in completed for name in run.metrics})
    for pattern in columns:
        if completed and not _matching(pattern, known):
            names = [name.removeprefix("test/") for name in known]
            hint = did_you_mean(pattern, names)
            raise UserError(f"no run here has the metric {pattern!r}{hint}; known: {', '.join(names)}")


def _find_metric(metric: str | None, completed: Sequence[Run]) -> str | None:
    """Return the metric with `test/`, also if it was given without it or in capital letters."""
    if metric is None or not completed:
        return None
    name = metric.removeprefix("test/")
    known = sorted({key.removeprefix("test/") for run in completed for key in run.metrics})
    name = name if name in known else name.lower()
    if name not in known:
        hint = did_you_mean(name, known)
        raise UserError(f"no run here has the metric {metric!r}{hint}; known: {', '.join(known)}")
    return f"test/{name}"


def _table(runs: Sequence[Run], protocol: str, split_sha: str, requested: str | None) -> Table:
    sorted_runs, notes = group_runs(runs)
    params = differing([group[0] for group in sorted_runs], images=True)
    groups = [Group(tuple(group), each) for group, each in zip(sorted_runs, params, strict=True)]
    unit = unit_of(protocol)
    known = {name for run in runs for name in run.metrics}
    metric = f"test/{main_metric(unit)}" if requested is None or requested not in known else requested
    if metric not in known and "test/mae" in known:
        metric = "test/mae"  # only estimates are known, or labels differ
    if not _has_one_limit(runs):
        limits = sorted({str(run.result("decision", "age_limit")) for run in runs if run.result("decision")})
        notes.append(f"decisions are not compared: the age limits are {', '.join(limits)}; --age-limit N sets one")
        if is_decision(metric):
            metric, requested = f"test/{main_metric(unit)}", None
    if requested is not None and metric != requested:
        notes.append(f"no run of this table has {find(requested).name}: it is ranked by {find(metric).name}")

    rankable = not _has_own_losses(metric, params)
    if not rankable:
        notes.append("not ranked: the losses of different heads are not comparable; --metric nll is the same for all")
    finite = [rankable and math.isfinite(group.mean(metric)) for group in groups]
    ranked = [group for group, can in zip(groups, finite, strict=True) if can]
    ranked.sort(key=lambda group: find(metric).cost(group.mean(metric)))
    paired = compare_with_best(ranked, 0, metric=metric, unit=unit) if find(metric).can_pair else None
    if len(ranked) > 1 and not find(metric).can_pair:
        notes.append(f"no paired differences: {why_no_pairs(metric)}")
    others = [group for group, can in zip(groups, finite, strict=True) if not can]
    baselines, leaks = find_baselines(groups, unit)
    return Table(
        protocol,
        split_sha,
        metric,
        unit,
        tuple(params[0]) if params else (),
        (*_rows(ranked, metric, paired), *(Row(group, None, interval=group.interval(metric)) for group in others)),
        tuple(baselines),
        paired,
        tuple(dict.fromkeys([*leaks, *notes, *(paired.notes if paired else ()), *notes_on(groups, metric)])),
        runs[0].group,
    )


def _rows(ranked: Sequence[Group], metric: str, paired: Paired | None) -> list[Row]:
    """Return the rows of sorted groups. Equal means have the same rank."""
    rows: list[Row] = []
    costs = [find(metric).cost(group.mean(metric)) for group in ranked]
    for i, group in enumerate(ranked):
        ties = i > 0 and math.isclose(costs[i], costs[i - 1], rel_tol=1e-12, abs_tol=1e-15)
        rank = rows[-1].rank if ties else i + 1
        row = Row(group, rank, interval=group.interval(metric))
        if paired:
            interval = row.interval or paired.intervals.get(i)
            row = Row(group, rank, paired.differences.get(i), paired.adjusted.get(i), interval)
        rows.append(row)
    return rows


def _has_own_losses(metric: str, params: Sequence[Parameters]) -> bool:
    """Return whether the heads compute the metric, and the heads, their settings or what is averaged differ."""
    return find(metric).by_head and any(
        key.partition(".")[0] in ("head", "ensemble", "tta") for each in params for key in each
    )


def why_no_pairs(metric: str) -> str:
    """Return why there is no value of a metric for each image that can be averaged."""
    row = find(metric)
    if row.by_head:
        return f"predictions.csv does not have the {row.name} of each image; --metric nll has paired differences"
    if row.better == "nearest to zero":
        return f"groups are ranked by their absolute {row.name}, which is not a mean over images"
    if row.calibrated:
        return f"predictions.csv does not have the {row.name} of each image"
    return f"{row.name} is not a mean over images"
