"""A table of groups for each protocol and each list of test images: what may be ranked together, and what not."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agebench.comparison.baselines import score_blind
from agebench.comparison.groups import Group, alike, count, goodness
from agebench.comparison.pairs import Paired, can_pair, compare_with_best
from agebench.comparison.parameters import differing, short_names, tell
from agebench.errors import UserError, did_you_mean
from agebench.metrics.bootstrap import Difference
from agebench.metrics.compute import HEADLINE
from agebench.runs.read import Run, mapping

UNITS = {"age": "years", "decade": "decades", "bins": "bins"}  # of errors, by the target in a protocol
NO_PAIRS = {
    "loss": "the loss of an image is not in predictions.csv; --metric nll is compared image by image",
    "bias": "groups are ranked by the size of their bias, which is no mean over images",
}


@dataclass(frozen=True)
class Row:
    """A group in its table.

    Args:
        group: Its runs.
        rank: From 1, equal means sharing one; None if it cannot be ranked.
        difference: Its mean less that of the best, on the same images; None where there is none.
        adjusted: The p-value of that after Holm.
    """

    group: Group
    rank: int | None
    difference: Difference | None = None
    adjusted: float | None = None


@dataclass(frozen=True)
class Baseline:
    """What scores without a model, or by a leak alone.

    Args:
        name: In words.
        figures: Test metrics by name.
    """

    name: str
    figures: dict[str, float]


@dataclass(frozen=True)
class Table:
    """Groups that were tested under one protocol on the same images.

    Args:
        protocol: `dataset/split/target`.
        split_sha: Of the list of test images.
        metric: That ranks, such as `test/mae`.
        unit: Of the target's errors, empty for classes.
        parameters: In what the groups differ.
        rows: Best first, those without a rank at the end.
        baselines: Without rank.
        paired: What came of the comparison with the best, None if there was none.
        notes: What else a reader must know, a sentence each.
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

    @property
    def runs(self) -> list[Run]:
        """Of all groups."""
        return [run for row in self.rows for run in row.group.runs]

    @property
    def images(self) -> int | None:
        """How many test images there are."""
        found = self.rows[0].group.average("data", "test")
        return None if found is None else int(found)


@dataclass(frozen=True)
class Comparison:
    """Tables, and what stands in none.

    Args:
        tables: One each protocol and list of test images.
        unranked: Runs that are not completed.
        apart: Why there are several tables, in a sentence; empty if there are not.
    """

    tables: tuple[Table, ...]
    unranked: tuple[Run, ...]
    apart: str


def compare(runs: Sequence[Run], metric: str | None = None) -> Comparison:
    """Group runs over their seeds and rank the groups, those of different protocols or test images apart.

    Args:
        runs: Finished or not.
        metric: That ranks, with or without `test/`; None is the MAE for ages in years, else the accuracy.

    Raises:
        UserError: If no run has such a metric.
    """
    completed = [run for run in runs if run.status == "completed"]
    wanted = _wanted(metric, completed)
    apart: dict[tuple[str, str], list[Run]] = {}
    for run in completed:
        apart.setdefault((str(run.told("protocol")), str(run.told("split_sha"))), []).append(run)
    tables = tuple(_table(of_one, protocol, sha, wanted) for (protocol, sha), of_one in apart.items())
    unranked = tuple(run for run in runs if run.status != "completed")
    return Comparison(tables, unranked, _why_apart(tables))


def unit_of(protocol: str) -> str:
    """Return the unit of the errors under a protocol, empty for classes."""
    return UNITS.get(protocol.rpartition("/")[2].partition("-")[0], "")


def shown_metrics(table: Table) -> list[str]:
    """Return the further metrics worth a column: the headline ones, less the loss, which heads do not share."""
    known = {name for run in table.runs for name in run.metrics}
    names = [f"test/{name}" for name in HEADLINE if name != "loss" and not (table.unit and name == "macro_f1")]
    return [name for name in names if name in known and name != table.metric]


def name_of(group: Group) -> str:
    """Return what to call a group where there is no table around it."""
    choices = group.runs[0].choices
    if all(value is None for value in group.params.values()):
        return "-".join(choices[name] for name in ("model", "head") if name in choices) or group.runs[0].folder.name
    names = short_names(list(group.params))
    told = {key: tell(value) for key, value in group.params.items()}
    return " ".join(text if key in choices else f"{names[key]}={text}" for key, text in told.items())


def _wanted(metric: str | None, completed: Sequence[Run]) -> str | None:
    if metric is None or not completed:
        return None
    wanted = f"test/{metric.removeprefix('test/')}"
    known = sorted({name.removeprefix("test/") for run in completed for name in run.metrics})
    wanted = wanted if wanted.removeprefix("test/") in known else wanted.lower()
    if wanted.removeprefix("test/") not in known:
        hint = did_you_mean(wanted.removeprefix("test/"), known)
        raise UserError(f"no run here has the metric {metric!r}{hint}; known: {', '.join(known)}")
    return wanted


def _table(runs: Sequence[Run], protocol: str, split_sha: str, wanted: str | None) -> Table:
    sorted_runs, notes = alike(runs)
    params = differing([group[0] for group in sorted_runs], images=True)
    groups = [Group(tuple(group), each) for group, each in zip(sorted_runs, params, strict=True)]
    unit = unit_of(protocol)
    own = "test/mae" if unit == "years" else "test/accuracy"
    known = {name for run in runs for name in run.metrics}
    metric = own if wanted is None or wanted not in known else wanted
    if wanted is not None and metric != wanted:
        notes.append(f"no run of this table has {wanted.removeprefix('test/')}: it is ranked by {_short(metric)}")

    def order(group: Group) -> float:
        return goodness(metric, group.mean(metric))

    # Each head, and each way of one, has a loss of its own.
    unlike = metric == "test/loss" and any(key.partition(".")[0] == "head" for each in params for key in each)
    can_rank = [not unlike and math.isfinite(group.mean(metric)) for group in groups]
    ranked = sorted((group for group, can in zip(groups, can_rank, strict=True) if can), key=order)
    others = [group for group, can in zip(groups, can_rank, strict=True) if not can]
    if unlike:
        notes.append("not ranked: the losses of different heads cannot be compared; --metric nll is the same for all")
    paired = compare_with_best(ranked, 0, metric=metric, unit=unit) if can_pair(metric) else None
    ranks: list[int] = []
    for i, group in enumerate(ranked):
        ties = i > 0 and math.isclose(order(group), order(ranked[i - 1]), rel_tol=1e-12, abs_tol=1e-15)
        ranks.append(ranks[-1] if ties else i + 1)
    rows = [
        Row(group, ranks[i], paired.differences.get(i), paired.adjusted.get(i)) if paired else Row(group, ranks[i])
        for i, group in enumerate(ranked)
    ]
    rows += [Row(group, None) for group in others]
    if len(ranked) > 1 and not can_pair(metric):
        why = NO_PAIRS.get(_short(metric), f"{_short(metric)} is no mean over images")
        notes.append(f"no paired differences: {why}")
    kept = [run for group in groups for run in group.runs]
    notes += [*(paired.notes if paired else ()), *_notes(groups, kept, metric)]
    columns = tuple(params[0]) if params else ()
    baselines, leaks = _baselines(groups, unit)
    if not baselines and (blind := score_blind(groups[0].runs[0], unit)):
        key, name = ("test/mae", "always the median") if unit == "years" else ("test/accuracy", "most common label")
        baselines = [Baseline(name, {key: blind[key]})]
    return Table(
        protocol,
        split_sha,
        metric,
        unit,
        columns,
        tuple(rows),
        tuple(baselines),
        paired,
        tuple(dict.fromkeys([*leaks, *notes])),
    )


def _notes(groups: Sequence[Group], runs: Sequence[Run], metric: str) -> list[str]:
    """Say what else differs between runs that are ranked together, and which have no figure."""
    notes = []
    if any(run.told("data", "val_is_test") for run in runs):
        notes.append("val is the test part: the epoch was chosen on the very images of the test, which flatters")
    trained = {str(run.results["data_sha"]) for run in runs if run.results.get("data_sha")}
    if len(trained) > 1:
        notes.append(f"not all were trained and validated on the same images: data_sha is {_listed(trained)}")
    for group in groups:
        if group.diverged:
            of = count(len(group.runs), "run")
            notes.append(f"{name_of(group)}: {group.diverged} of {of} diverged (null metrics), so there is no mean")
        elif not math.isfinite(group.mean(metric)):
            notes.append(f"{name_of(group)}: not every run has {_short(metric)}")
    facts = {name: [run.told("versions", name) for run in runs] for name in _version_names(runs)}
    facts |= {name: [run.told(name) for run in runs] for name in ("device", "threads", "git")}
    unlike = []
    for name, values in facts.items():
        found = {str(value) for value in values if value is not None}
        if len(found) > 1:
            unlike.append(f"{name} {_listed(found)}")
    if unlike:
        notes.append(f"not all were computed alike: {'; '.join(unlike)}")
    return notes


def _baselines(groups: Sequence[Group], unit: str) -> tuple[list[Baseline], list[str]]:
    """Return what looking up the identity scores where a split leaks, and a sentence about each leak."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        for run in group.runs:
            if leak := mapping(run.results.get("leak")):
                told = found.setdefault(json.dumps(leak, sort_keys=True, default=str), [])
                if group not in told:
                    told.append(group)
    baselines, notes = [], []
    for text, whose in found.items():
        leak = json.loads(text)
        of = "" if len(whose) == len(groups) else f" ({', '.join(name_of(group) for group in whose)})"
        # An exact year is too much to ask of a lookup.
        accuracy = None if unit == "years" else leak.get("lookup_accuracy")
        majority = None if accuracy is None else leak.get("majority_accuracy")
        for name, figures in (
            ("identity looked up", {"test/mae": leak.get("lookup_mae"), "test/accuracy": accuracy}),
            ("always the median", {"test/mae": leak.get("median_mae")}),
            ("most common label", {"test/accuracy": majority}),
        ):
            if kept := {key: float(value) for key, value in figures.items() if isinstance(value, int | float)}:
                baselines.append(Baseline(name + of, kept))
        share, images = leak.get("test_identity_in_train"), leak.get("images")
        if isinstance(share, int | float):
            told_share = f"{share:.1%} of the test images are of an identity that is in train"
            notes.append(f"the split leaks{of}: {told_share}; looking it up sees no pixel")
        elif isinstance(images, int):
            notes.append(f"the test leaks{of}: {images:,} of its images are images that the model was trained on")
    return baselines, notes


def _why_apart(tables: Sequence[Table]) -> str:
    if len(tables) < 2:
        return ""
    protocols = list(dict.fromkeys(table.protocol for table in tables))
    why = []
    if len(protocols) > 1:
        why.append(f"under different protocols ({', '.join(protocols)})")
    for protocol in protocols:
        shas = [table.split_sha for table in tables if table.protocol == protocol]
        if len(shas) > 1:
            why.append(f"on different test images ({protocol}: split_sha {', '.join(sha[:8] for sha in shas)})")
    return f"these runs are not comparable with one another: they were tested {' and '.join(why)}; each has its table"


def _version_names(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in mapping(run.results.get("versions"))))


def _listed(values: Iterable[str]) -> str:
    found = sorted(values)
    return f"{', '.join(found[:-1])} and {found[-1]}" if len(found) <= 4 else f"{', '.join(found[:3])} and others"


def _short(metric: str) -> str:
    return metric.removeprefix("test/")
