"""Notes of a table: further differences between its runs, and the reason for several tables."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from agebench.comparison.groups import Group, count, name_of
from agebench.identity_groups import resampled
from agebench.metrics.bootstrap import few_in_cell
from agebench.metrics.table import find
from agebench.runs.description import unknown_people
from agebench.runs.predictions_csv import unit_of
from agebench.runs.read import Run, mapping, number


def notes_on(groups: Sequence[Group], metric: str) -> list[str]:
    """Return a sentence for each fact that limits the comparison of the groups of a table.

    Args:
        groups: All groups of the table.
        metric: The metric of the ranks.
    """
    runs = [run for group in groups for run in group.runs]
    notes = []
    if any(run.result("data", "val_is_test") and run.result("best", "tested") != "last" for run in runs):
        notes.append("val is the test part: the best epoch was selected on the test images, so results are optimistic")
    unknown = [sentence for run in runs if not run.scored and (sentence := unknown_people(run.results))]
    notes += unknown[:1]
    trained = {str(run.results["data_sha"]) for run in runs if run.results.get("data_sha")}
    if len(trained) > 1:
        notes.append(f"not all runs were trained and validated on the same images: data_sha is {_listed(trained)}")
    for group in groups:
        if group.diverged:
            of = count(len(group.runs), "run")
            notes.append(f"{name_of(group)}: {group.diverged} of {of} diverged (null metrics), so there is no mean")
        elif not math.isfinite(group.mean(metric)):
            notes.append(f"{name_of(group)}: not every run has {find(metric).name}")
    intervals = [run.result("intervals", metric) for run in runs]
    bounds = [number(bound) for found in intervals if isinstance(found, list) for bound in found]
    if find(metric).balanced and not all(bound is not None and math.isfinite(bound) for bound in bounds):
        over = runs[0].result("bootstrap", "over")
        unit = unit_of(str(runs[0].result("protocol")))
        notes.append(few_in_cell(find(metric).name, resampled(known=over == "identity", unit=unit)))
    environments = _environments([each for run in runs for each in run.folds or (run,)])
    return [*notes, *_own_code(groups), *_scored_elsewhere(groups), *environments]


def why_not_comparable(tested: Sequence[tuple[str, str]]) -> str:
    """Return the reason why there are several tables, or an empty string if there is only one.

    Args:
        tested: The protocol and the split_sha of each table.
    """
    if len(tested) < 2:
        return ""
    protocols = list(dict.fromkeys(protocol for protocol, _ in tested))
    why = []
    if len(protocols) > 1:
        why.append(f"under different protocols ({', '.join(protocols)})")
    for protocol in protocols:
        shas = [sha for each, sha in tested if each == protocol]
        if len(shas) > 1:
            why.append(f"on different test images ({protocol}: split_sha {', '.join(sha[:8] for sha in shas)})")
    return f"these runs are not comparable: they were tested {' and '.join(why)}; each has its own table"


def _scored_elsewhere(groups: Sequence[Group]) -> list[str]:
    """Return a sentence about models that were trained elsewhere, and one for each that lacks predictions."""
    scored = {name_of(group): mapping(group.runs[0].results["scored"]) for group in groups if group.runs[0].scored}
    if not scored:
        return []
    was, its = ("was", "its") if len(scored) == 1 else ("were", "their")
    unknown = f"{its} parameters, epochs, seed and training images, and so a leak, are unknown"
    notes = [f"{_listed(scored)} {was} trained elsewhere: {unknown}"]
    for name, about in scored.items():
        matched, images = about.get("matched"), about.get("test_images")
        if isinstance(matched, int) and isinstance(images, int) and matched < images:
            notes.append(
                f"{name} is incomplete: it has predictions for {matched:,} of the {images:,} test images, and is not "
                "ranked together with runs that have all"
            )
    return notes


def _own_code(groups: Sequence[Group]) -> list[str]:
    """Return a sentence about each group whose runs differ in the user's own code, and one if the groups differ."""
    found = {id(group): _codes([each for run in group.runs for each in run.folds or (run,)]) for group in groups}
    notes = [
        f"{name_of(group)}: trained with different code of {name}: {_listed(shas)}"
        for group in groups
        for name, shas in found[id(group)].items()
        if len(shas) > 1
    ]
    mixed = {name for codes in found.values() for name, shas in codes.items() if len(shas) > 1}
    for name in sorted({name for codes in found.values() for name in codes} - mixed):
        shas = {sha for codes in found.values() for sha in codes.get(name, ())}
        if len(shas) > 1:
            notes.append(f"not all runs were trained with the same code of {name}: {_listed(shas)}")
    return notes


def _codes(runs: Sequence[Run]) -> dict[str, set[str]]:
    """Return the hashes of the user's own code, by dotted name. A run that was resumed with other code has several."""
    found: dict[str, set[str]] = {}
    for run in runs:
        earlier = run.results.get("earlier_code")
        for code in (run.results.get("code"), *(earlier if isinstance(earlier, list) else ())):
            for name, sha in mapping(code).items():
                found.setdefault(str(name), set()).add(str(sha))
    return found


def _environments(runs: Sequence[Run]) -> list[str]:
    """Return a sentence if the runs differ in versions, device, threads or code."""
    versions = dict.fromkeys(name for run in runs for name in mapping(run.results.get("versions")))
    facts: dict[str, list[Any]] = {name: [run.result("versions", name) for run in runs] for name in versions}
    facts |= {name: [run.result(name) for run in runs] for name in ("device", "threads", "git")}
    differing = []
    for name, values in facts.items():
        found = {str(value) for value in values if value is not None}
        if len(found) > 1:
            differing.append(f"{name} {_listed(found)}")
    return [f"not all runs have the same environment: {'; '.join(differing)}"] if differing else []


def _listed(values: Iterable[str]) -> str:
    found = sorted(values)
    if len(found) == 1:
        return found[0]
    return f"{', '.join(found[:-1])} and {found[-1]}" if len(found) <= 4 else f"{', '.join(found[:3])} and others"
