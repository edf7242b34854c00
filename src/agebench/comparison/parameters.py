"""The config choices and keys in which runs differ, which are the columns of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from agebench.runs.identity import SHOWN, WITH_GROUP
from agebench.runs.read import Run

FIRST = ("data", "data/split", "model", "head", "recipe", "optim", "scheduler", "augment")  # before the other groups
# Config groups that only set keys of other groups, or have no effect.
NEVER = ("experiment", "debug", "paths", "logger")
HIDDEN = ("_target_", "_partial_")

Parameters = dict[str, Any]


def differing(runs: Sequence[Run], *, images: bool = False) -> list[Parameters]:
    """Return the parameters in which runs differ. All runs have the same keys in the same order.

    If a model was trained elsewhere, the first parameter is the name. Other runs have one if nothing else differs.

    A config group is represented by its choice. A key inside a group is a parameter only if it differs between runs of
    the same choice, or if it is an override on the command line. Missing values are None, as are all values of a run
    without a config.

    Args:
        runs: One run of each group, or all runs of a sweep.
        images: Whether to add the hash of the training images if all other parameters of two runs are equal.
    """
    known = [run for run in runs if run.config]
    columns = _columns(known)
    rows = iter([{key: values[i] for key, values in columns.items()} for i in range(len(known))])
    params = [next(rows) if run.config else dict.fromkeys(columns) for run in runs]
    if any(run.scored for run in runs):
        params = [
            {"name": run.scored or (None if columns else short_name(run)), **each}
            for run, each in zip(runs, params, strict=True)
        ]
    if images and len({repr(each) for each in params}) < len(params):
        shas = [str(run.results.get("data_sha") or "unknown")[:7] for run in runs]
        if _count(shas) > 1:
            params = [{**each, "images": sha} for each, sha in zip(params, shas, strict=True)]
    return params


def _columns(runs: Sequence[Run]) -> dict[str, list[Any]]:
    labels = [_labels(run) for run in runs]
    _use_class_names(runs, labels)
    groups = [name for name in FIRST if any(name in each for each in labels)]
    groups += sorted({name for each in labels for name in each} - set(groups))
    columns: dict[str, list[Any]] = {}
    for name in groups:
        values: list[Any] = [each.get(name) for each in labels]
        if _count(values) > 1:
            columns[name] = values
    user_keys = frozenset[str]().union(*(run.typed for run in runs))
    for key in dict.fromkeys(key for run in runs for key in run.config):
        if key.rpartition(".")[2] in HIDDEN:
            continue
        values = [run.config.get(key, SHOWN.get(key)) for run in runs]
        if _count(values) > 1 and (key in user_keys or _differs_within(key, values, labels, groups)):
            columns[key] = values
    return columns


def short_name(run: Run) -> str:
    """Return a name for a run by its model and head. For `model=timm` it has the name of the network."""
    names = {name: run.choices[name] for name in ("model", "head") if name in run.choices}
    if names.get("model") == "timm":
        names["model"] = str(run.config.get("model.model_name") or "timm")
    return "-".join(names.values()) or run.folder.name


def short_names(columns: Sequence[str]) -> dict[str, str]:
    """Return the column headers: the last component of each key, or the full key if the component says too little."""
    ends = [name.replace("/", ".").rpartition(".")[2] for name in columns]
    full = {name for name in columns if name.partition(".")[0] in WITH_GROUP}
    return {
        name: end if ends.count(end) == 1 and name not in full else name
        for name, end in zip(columns, ends, strict=True)
    }


def format_value(value: Any) -> str:
    """Return a value as short text."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "[" + ",".join(format_value(each) for each in value) + "]"
    return " ".join(str(value).split())


def _labels(run: Run) -> dict[str, str]:
    """Return the label of each config group of a run: its choice, or the class if `_target_` is an override."""
    names = {n: choice for n, choice in run.choices.items() if n not in NEVER and not n.startswith("hydra/")}
    # No group of its own: recipe@optim is a part of a recipe. Older runs have no recipe, which is the same as none.
    names = {n: choice for n, choice in names.items() if "@" not in n and (n, choice) != ("recipe", "none")}
    for name in names:
        key = f"{name.replace('/', '.')}._target_"
        if key in run.typed and key in run.config:
            names[name] = str(run.config[key]).rpartition(".")[2]
    return names


def _use_class_names(runs: Sequence[Run], labels: Sequence[dict[str, str]]) -> None:
    """Replace the label by the class if runs with the same choice have different classes, as an experiment can set."""
    for name in {name for each in labels for name in each}:
        key = f"{name.replace('/', '.')}._target_"
        targets: dict[str, set[str]] = {}
        for run, each in zip(runs, labels, strict=True):
            targets.setdefault(each.get(name, ""), set()).add(str(run.config.get(key)))
        for run, each in zip(runs, labels, strict=True):
            if name in each and len(targets[each[name]]) > 1:
                each[name] = str(run.config.get(key)).rpartition(".")[2]


def _differs_within(key: str, values: list[Any], labels: Sequence[Mapping[str, str]], groups: Sequence[str]) -> bool:
    """Return whether a key differs between runs that have the same choice for every group that contains it."""
    owners = [name for name in groups if key.startswith(f"{name.replace('/', '.')}.")]
    seen: dict[tuple[str | None, ...], list[Any]] = {}
    for value, each in zip(values, labels, strict=True):
        seen.setdefault(tuple(each.get(name) for name in owners), []).append(value)
    return any(_count(of_choice) > 1 for of_choice in seen.values())


def _count(values: Sequence[Any]) -> int:
    return len({repr(value) for value in values})
