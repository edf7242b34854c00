"""Read runs from their folders. The content of a folder is not trusted: any file may be missing or damaged."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # PyYAML has no type information

from agebench.config import flatten
from agebench.errors import UserError
from agebench.progress import Bar
from agebench.runs.folder import CRASHED, actual_status
from agebench.runs.identity import SHOWN, config_hash, has_effect, path_is_identity

# Folders inside a run that may contain many files but no other run.
SKIPPED = {".hydra", "checkpoints", "report"}
SEED_MEANS = "* (mean of *)"  # folders in a sweep with curves for TensorBoard, which are no runs
# Keys that decide how a checkpoint is stored, not which one is tested.
STORAGE_KEYS = ("dirpath", "filename", "save_last", "enable_version_counter", "auto_insert_metric_name", "verbose")
CODE = ("code", "earlier_code")
SAME_MODEL = ("seed", *(f"callbacks.checkpoint.{key}" for key in STORAGE_KEYS))


@dataclass(frozen=True)
class Run:
    """One run, or one evaluation of a run, read from its folder.

    Args:
        folder: The folder.
        status: `completed`, `running`, `failed`, `interrupted`, `crashed` (its process ended without a final status),
            `unreadable`, or `not started`.
        results: The content of results.json. For an evaluation, the keys that only its run has (seed, params, epochs,
            timing) are added.
        config: The composed config with dotted keys, without keys that have no effect and are not shown; empty if it
            cannot be read.
        choices: The choice of each config group.
        typed: The keys and groups that the user set on the command line.
        same: A hash that is equal for runs that differ only in the seed.
        written: Time of the last change of results.json, in seconds since the epoch.
        evaluated: The folder of the run that an evaluation tested again; None for a run.
        group: The group of test images that the results are about, such as `sex = female`; empty for all.
        tested: The names of the images of the group; None for all.
        folds: The runs of the k folds that a pooled run consists of, see agebench.comparison.folds; else empty.
    """

    folder: Path
    status: str
    results: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)
    typed: frozenset[str] = frozenset()
    same: tuple[str, ...] = ()
    written: float = 0.0
    evaluated: Path | None = None
    group: str = ""
    tested: frozenset[str] | None = None
    folds: tuple["Run", ...] = ()

    @property
    def seed(self) -> Any:
        """Return the seed of the training."""
        return self.results.get("seed")

    @property
    def scored(self) -> str:
        """Return the name of a model that was trained elsewhere and whose predictions were scored, else nothing."""
        return str(mapping(self.results.get("scored")).get("name") or "")

    @property
    def error(self) -> str:
        """Return the first line of the error message; empty without an error."""
        return next(iter(str(self.results.get("error") or "").strip().splitlines()), "")

    @property
    def metrics(self) -> dict[str, float | None]:
        """Return the test metrics by name (`test/mae`). The value is None if the network diverged."""
        found = mapping(self.results.get("metrics")).items()
        known = {str(name): number(value) for name, value in found if value is None or number(value) is not None}
        return {name: value if value is not None and math.isfinite(value) else None for name, value in known.items()}

    def result(self, *keys: str) -> Any:
        """Return the value of nested keys in results.json; None if a key is absent."""
        found: Any = self.results
        for key in keys:
            found = mapping(found).get(key)
        return found


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping unchanged, and anything else as an empty mapping."""
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """Return a number as a float, and anything else as None."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """Return every run in or below the folders once, in the order of the folders, then of names.

    Raises:
        UserError: If a folder does not exist, or no run is in or below it.
    """
    found: dict[Path, Path] = {}
    has_others = not all(fnmatch(folder.name, SEED_MEANS) for folder in folders)
    for folder in folders:
        if not os.path.isdir(folder):  # noqa: PTH112  # Path.is_dir raises for a name that is too long
            hint = ", without run=" if str(folder).startswith("run=") else ""
            raise UserError(f"there is no folder {folder}: give folders that train, a sweep or evaluate wrote{hint}")
        below = []
        for place, inside, files in os.walk(folder):
            inside[:] = [name for name in inside if name not in SKIPPED]
            if "results.json" in files:
                below.append(Path(place))
        if not below and has_others and fnmatch(folder.name, SEED_MEANS):
            continue  # such as one of sweep/*mlp*
        if not below:
            raise UserError(f"there is no run in or below {folder}: a run is a folder with a results.json")
        for place_of_run in sorted(below):
            found.setdefault(place_of_run.resolve(), place_of_run)
    runs = []
    with Bar("reading runs", total=len(found), unit="runs") as bar:
        for run in found.values():
            runs.append(read_run(run))
            bar.update()
    return runs


def points_of(sweep: Path) -> list[Run]:
    """Return the runs directly inside a sweep's folder, including those without results."""
    marks = ("results.json", ".hydra", "train.log")
    inside = sorted(path for path in sweep.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [read_run(path) for path in inside if any((path / mark).exists() for mark in marks)]


def read_run(folder: Path) -> Run:
    """Return the run in a folder. Attributes whose file is missing or unreadable are empty."""
    results, status, written = _results(folder)
    evaluated, started = None, ""
    checkpoint: tuple[str, ...] = ()
    if isinstance(tested := results.get("run"), str):  # an evaluation: its run is in another folder
        started = str(mapping(_hydra(folder).get("runtime")).get("cwd", ""))
        evaluated = _run_of(folder, tested, started)
        results, checkpoint = _add_training(results, _results(evaluated)[0])
    trained_in = evaluated or folder
    overrides, config = (read_yaml(trained_in / ".hydra" / f"{name}.yaml") for name in ("overrides", "config"))
    flat = flatten(mapping(config))
    kept_flat = {key: value for key, value in flat.items() if not _has_no_effect(key, flat)}
    choices = _choices(trained_in)
    members = members_of(results) if evaluated else []
    if members:  # settings that differ between the members are no settings of the ensemble
        others = [_run_of(folder, str(member.get("run")), started) for member in members[1:]]
        configs = [flatten(mapping(read_yaml(other / ".hydra" / "config.yaml"))) for other in others]
        kept_flat = _common(kept_flat, configs) | _describe_ensemble(results, members)
        choices = _common(choices, list(map(_choices, others)))
    if checkpoint:
        kept_flat["checkpoint"] = checkpoint[0]
    if scored := mapping(results.get("scored")):  # trained elsewhere: the config says nothing about the training
        kept_flat, choices, overrides = {}, {}, []
    # A run whose config cannot be read is a separate group.
    decides = config_hash(kept_flat) if kept_flat else str(folder.resolve())
    if scored:
        decides = f"scored {scored.get('name')} {scored.get('sha')}"
    return Run(
        folder=folder,
        status=status,
        results=results,
        config=kept_flat,
        choices={str(k): str(v) for k, v in choices.items() if v is not None},
        typed=frozenset(
            str(each).partition("=")[0].lstrip("+~") for each in (overrides if isinstance(overrides, list) else [])
        ),
        same=(decides, str(results.get("data_sha") or ""), *checkpoint, *_shas(members)),
        written=written,
        evaluated=evaluated,
    )


def _add_training(results: Mapping[str, Any], trained: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Add the results that only the run has to those of its evaluation.

    Args:
        results: results.json of the evaluation.
        trained: results.json of the run.

    Returns:
        The results, and the name of the tested checkpoint if it is not the one that the run tested, else nothing.
    """
    own = f"{mapping(trained.get('best')).get('tested', 'best')}.ckpt"
    other = results.get("checkpoint") not in (None, own)
    several = len(members_of(results)) > 1  # no seed or training time is that of an ensemble
    kept = ("device", "threads", "git") + (() if several else ("seed", "params", "epochs", "timing", "best", *CODE))
    added = {key: trained[key] for key in kept if key in trained}
    always = {"seed": None if several else trained.get("seed"), "data_sha": trained.get("data_sha")}
    return {**added, **results, **always}, (str(results["checkpoint"]),) if other else ()


def members_of(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return `ensemble.members` of results.json: an entry for each averaged run; empty if nothing is averaged."""
    found = mapping(results.get("ensemble")).get("members")
    return [mapping(member) for member in found] if isinstance(found, list) else []


def _describe_ensemble(results: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the columns of a comparison that distinguish averaged predictions from those of a run."""
    ensemble = mapping(results.get("ensemble"))
    found = {"tta": str(ensemble["tta"])} if ensemble.get("tta") else {}
    if len(members) > 1:
        used = sum(member.get("used", True) is True for member in members)
        of = f"{used} of {len(members)}" if used < len(members) else str(used)
        found["ensemble"] = f"{ensemble.get('average')} of {of}"
    return found


def _shas(members: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the weights of several members in a fixed order. Ensembles of other members are not the same."""
    return sorted(str(member.get("weights_sha")) for member in members) if len(members) > 1 else []


def _common(own: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in own.items() if all(other.get(key) == value for other in others)}


def _choices(folder: Path) -> Mapping[str, Any]:
    return mapping(mapping(_hydra(folder).get("runtime")).get("choices"))


def _hydra(folder: Path) -> Mapping[str, Any]:
    """Return Hydra's own config of a run or an evaluation."""
    return mapping(mapping(read_yaml(folder / ".hydra" / "hydra.yaml")).get("hydra"))


def _results(folder: Path) -> tuple[dict[str, Any], str, float]:
    path = folder / "results.json"
    try:
        read, written = json.loads(path.read_text(encoding="utf-8")), path.stat().st_mtime
    except FileNotFoundError:
        return {}, "not started", 0.0
    except (OSError, ValueError):
        return {}, "unreadable", 0.0
    if not isinstance(read, dict) or not isinstance(read.get("status"), str):
        return {}, "unreadable", written
    status = actual_status(folder, read)
    return read | ({"error": CRASHED} if status == "crashed" else {}), status, written


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; None if it cannot be read."""
    # About 14 times as fast as the loader in Python, which matters for 500 runs.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), loader)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _run_of(folder: Path, tested: str, started: str) -> Path:
    """Return the folder of the run that an evaluation tested. By default it contains the evaluation's folder."""
    for place in (Path(started) / tested, Path(tested), folder.parent.parent):
        if (place / "results.json").is_file():
            return place
    return Path(tested)


def _has_no_effect(key: str, flat: Mapping[str, Any]) -> bool:
    if key in SAME_MODEL or not (has_effect(key) or key in SHOWN):
        return True
    return key in ("data.root", "data.source.root") and not path_is_identity(str(flat.get("data.source._target_", "")))
