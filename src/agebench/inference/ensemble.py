"""Load the runs that a command names as one module: a run, an ensemble of runs, or a soup of their weights."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agebench.build.checkpoint import read_checkpoint
from agebench.build.ensemble import build_ensemble
from agebench.build.module import build_trained
from agebench.build.monitor import build_monitor
from agebench.build.teacher import PIXELS
from agebench.calibration.calibration import FILE, Calibration
from agebench.errors import UserError
from agebench.inference.soup import average_weights, greedy_soup
from agebench.metrics.table import absolute_values
from agebench.models.weights import hash_tensors
from agebench.module import ImageModule
from agebench.runs.folder import read_results
from agebench.runs.members import find_members, named_folders

log = logging.getLogger(__name__)

LABELS = ("label_names", "values", "unit", "ordered")  # keys of a checkpoint's metadata
INITIAL = ("pretrained", "checkpoint_path", "freeze")  # keys of the model without effect on the architecture


@dataclass(frozen=True)
class Member:
    """A trained run.

    Args:
        folder: Its folder.
        results: The content of its results.json.
        path: The path of its checkpoint.
        stored: The content of the checkpoint.
        config: The config of the training.
    """

    folder: Path
    results: dict[str, Any]
    path: Path
    stored: dict[str, Any]
    config: DictConfig

    @property
    def stamp(self) -> dict[str, Any]:
        """The metadata in the checkpoint."""
        found: dict[str, Any] = self.stored["agebench"]
        return found

    @property
    def facts(self) -> dict[str, Any]:
        """Return the entry of `ensemble.members` in results.json."""
        about = {"run": str(self.folder), "checkpoint": self.path.name, "seed": self.results.get("seed")}
        return about | {key: self.stamp[key] for key in ("protocol", "weights_sha")}


# Returns the metrics of modules on the val part of a run, which is read only once.
OnVal = Callable[[Member], Callable[[ImageModule], Mapping[str, float]]]


@dataclass(frozen=True)
class Model:
    """What a command for trained runs uses.

    Args:
        members: The runs. The config, labels and data set are those of the first.
        module: The module that predicts.
        facts: `ensemble` of results.json: how the predictions are averaged, and over what; empty for a single run.
        parameters: `params` of results.json.
    """

    members: tuple[Member, ...]
    module: ImageModule
    facts: dict[str, Any]
    parameters: dict[str, int]

    @property
    def first(self) -> Member:
        """The first run."""
        return self.members[0]

    def calibration(self, *, use: bool) -> Calibration | None:
        """Return the calibration of a single run, or None. That of a run does not hold for other posteriors.

        Args:
            use: The value of the key `calibration`.
        """
        if not self.facts:
            return Calibration.read(self.first.folder, self.first.stamp["weights_sha"], use=use)
        if use and any((member.folder / FILE).exists() for member in self.members):
            log.info("calibration.json is ignored: it belongs to the weights of one run, without averaging")
        return None


def load_model(cfg: DictConfig, on_val: OnVal) -> Model:
    """Return the model of a command.

    Args:
        cfg: The composed config of the command: `run`, `checkpoint`, `average`, `tta`, `trust`.
        on_val: Tests the candidates of a soup.

    Raises:
        UserError: If a run cannot be read, or the runs cannot be averaged.
    """
    folders = find_members(cfg.run)
    if len(folders) > 1 and cfg.checkpoint not in ("tested", "best", "last"):
        raise UserError(f"checkpoint={cfg.checkpoint} is a file of one run: use tested, best or last for several runs")
    members = _drop_repeated([_read_member(folder, cfg) for folder in folders], named_folders(cfg.run))
    if len(members) == 1 and cfg.average == "weights":
        raise UserError(f"average=weights needs several runs, got {members[0].folder}: give run=[a,b,c] or a sweep")
    check_members(members)
    facts: dict[str, Any] = {"average": cfg.average, "tta": cfg.tta, "members": [each.facts for each in members]}
    params = [each.results.get("params", {}) for each in members]
    if cfg.average == "weights":
        module, chosen = _make_soup(members, on_val)
        facts |= chosen
        return Model(members, build_ensemble([module], cfg.tta), facts, params[0])
    module = build_ensemble([build_trained(each.config, each.stored) for each in members], cfg.tta)
    total = {key: sum(each.get(key, 0) for each in params) for key in params[0]}
    return Model(members, module, facts if len(members) > 1 or cfg.tta else {}, total)


def _read_member(folder: Path, cfg: DictConfig) -> Member:
    results = read_results(folder)
    return Member(folder, results, *read_checkpoint(folder, cfg.checkpoint, results, trust=cfg.trust))


def _drop_repeated(members: Sequence[Member], named: Sequence[Path]) -> tuple[Member, ...]:
    """Return the runs without those points of a sweep that have the weights of an earlier run.

    Points that differ only in the number of epochs have the same weights if both test the same epoch.

    Args:
        members: The runs.
        named: The folders that the user named. A run that is among them is never left out.
    """
    kept: dict[str, Member] = {}  # by weights
    found = []
    for member in members:
        other = kept.setdefault(member.stamp["weights_sha"], member)
        if other is member or member.folder in named:
            found.append(member)
        else:
            log.info("%s is left out: it has the same weights as %s", member.folder, other.folder)
    return tuple(found)


def check_members(members: Sequence[Member]) -> None:
    """Raise UserError unless runs predict the same labels from the same pixels, and each has its own weights."""
    first, shas = members[0], [each.stamp["weights_sha"] for each in members]
    for i, member in enumerate(members):
        for key in LABELS:
            if member.stamp[key] != first.stamp[key]:
                _refuse("the same labels", key, first, member, of=lambda each: each.stamp)
        for key in PIXELS:
            if member.config.data[key] != first.config.data[key]:
                _refuse("the same images", f"data.{key}", first, member, of=lambda each: {"data": each.config.data})
        if member.stamp["weights_sha"] in shas[:i]:
            other = members[shas.index(member.stamp["weights_sha"])].folder
            raise UserError(f"{other} and {member.folder} have the same weights: name each run once")


def _refuse(needed: str, key: str, first: Member, other: Member, *, of: Callable[[Member], Any]) -> None:
    shown = []
    for member in (first, other):
        value: Any = OmegaConf.select(OmegaConf.create(of(member)), key)
        names = ", ".join(map(str, value[:6])) + ", ..." if OmegaConf.is_list(value) and len(value) > 6 else value
        count = f" ({len(value)})" if OmegaConf.is_list(value) else ""
        shown.append(f"{names}{count} in {member.folder}")
    raise UserError(f"runs that are averaged need {needed}, but {key} is {shown[0]}, and {shown[1]}: leave one out")


def _make_soup(members: Sequence[Member], on_val: OnVal) -> tuple[ImageModule, dict[str, Any]]:
    """Return the module with the averaged weights, and the facts about the soup for results.json."""
    first = members[0]
    for member in members[1:]:
        _check_same_network(first, member)
    if first.results.get("data", {}).get("val_is_test"):
        raise UserError(
            "average=weights chooses its members on val, but this split has val = test: use average=posteriors"
        )
    name, mode = build_monitor(first.config, unit=first.stamp["unit"])
    log.info("choosing the members of the soup by %s", name)

    test = on_val(first)

    def measure(state: dict[str, Any]) -> float:
        value = value_of(test(build_trained(first.config, {**first.stored, "state_dict": state})), name)
        return math.inf if math.isnan(value) else -value if mode == "max" else value

    chosen, costs, cost = greedy_soup([each.stored["state_dict"] for each in members], measure)
    sign = -1 if mode == "max" else 1
    for i, member in enumerate(members):
        log.info("%s  %s %.6f%s", member.folder, name, sign * costs[i], "  in the soup" if i in chosen else "")
    state = average_weights([members[i].stored["state_dict"] for i in chosen])
    log.info("soup of %d of %d runs  %s %.6f", len(chosen), len(members), name, sign * cost)
    entries = [each.facts | {"val": sign * costs[i], "used": i in chosen} for i, each in enumerate(members)]
    facts = {"members": entries, "monitor": name, "val": sign * cost, "weights_sha": hash_tensors(state)}
    return build_trained(first.config, {**first.stored, "state_dict": state}), facts


def _check_same_network(first: Member, other: Member) -> None:
    """Raise UserError unless the weights of two runs may be averaged."""
    for key, without in (("model", INITIAL), ("head", ())):
        nodes = [{k: v for k, v in each.config[key].items() if k not in without} for each in (first, other)]
        for name in dict.fromkeys([*nodes[0], *nodes[1]]):
            if nodes[0].get(name) != nodes[1].get(name):
                _refuse("the same network for average=weights", f"{key}.{name}", first, other, of=lambda m: m.config)
    shapes = [{name: each.shape for name, each in m.stored["state_dict"].items()} for m in (first, other)]
    if shapes[0] != shapes[1]:
        raise UserError(f"the weights of {first.folder} and {other.folder} differ in shape: use average=posteriors")
    if first.stamp["data_sha"] != other.stamp["data_sha"]:
        raise UserError(
            f"average=weights chooses its members on val, but {first.folder} and {other.folder} were trained on "
            "different splits: use average=posteriors"
        )
    normal = [{n: v for n, v in m.stored["state_dict"].items() if n.startswith("normalise.")} for m in (first, other)]
    if hash_tensors(normal[0]) != hash_tensors(normal[1]):
        raise UserError(
            f"{first.folder} and {other.folder} normalise images differently, so their weights cannot be averaged: use "
            "average=posteriors"
        )


def value_of(metrics: Mapping[str, float], monitor: str) -> float:
    """Return a monitored metric, such as `val/abs_bias`, from metrics of val that have the names of a test."""
    found = {name.removeprefix("test/"): value for name, value in metrics.items()}
    return {**found, **absolute_values(found)}.get(monitor.partition("/")[2], math.nan)
