"""The data on which a trained run is tested: its own, or another data set or split."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf, open_dict

from agebench.build.checkpoint import is_same_data
from agebench.build.data import build_planner, build_source, pack_plan
from agebench.data import split as splits
from agebench.data.packed import PackedImages
from agebench.data.plan import Plan, Planner
from agebench.data.records import Source
from agebench.errors import UserError
from agebench.leakage.seen_in_training import (
    KINDS,
    Seen,
    add_copies,
    check_people,
    find_seen,
    is_own_test,
    own_leak,
    read_split,
)
from agebench.metrics.table import UNITS
from agebench.process import set_up_process
from agebench.runs.identity import path_is_identity
from agebench.runs.label_alignment import Alignment, OrderedLabels, align_labels

log = logging.getLogger(__name__)

# Keys of the data that must be the same in training and test.
TRAINED_FOR = ("image_size", "channels", "crop_mode", "crop_pct", "interpolation", "target", "bins")


@dataclass(frozen=True)
class Evaluation:
    """The data of an evaluation.

    Args:
        images: Packed images of the data set to test on, with labels of the run.
        other: Whether the data set or split is not the run's own.
        leak: `leak` and `leak_checked` of results.json for another test set; empty for the run's own.
        seen: The images of another test set that the run has seen; None for the run's own.
        alignment: The labels of the data, if they are ordered and the run cannot predict all of them, else None.
    """

    images: PackedImages
    other: bool
    leak: Mapping[str, Any]
    seen: Seen | None
    alignment: Alignment | None = None

    @property
    def plan(self) -> Plan:
        """The plan with the labels under which the predictions are tested."""
        plan = self.images.plan
        return plan if self.alignment is None else replace(plan, target=self.alignment.target)


def prepare(
    cfg: DictConfig, config: DictConfig, stamp: Mapping[str, Any], *, run_dir: Path, user_keys: Collection[str]
) -> Evaluation:
    """Return the packed data to test, checked for images and identities of the run's train part.

    Args:
        cfg: The composed config of the command.
        config: The run's config. Another data set replaces its `data` in place.
        stamp: The metadata in the run's checkpoint.
        run_dir: The folder of the run.
        user_keys: Keys that the user set.
    """
    other = cfg.get("data") is not None
    for key in TRAINED_FOR:
        if key in ("target", "bins") and other and {cfg.data.target, config.data.target} <= UNITS.keys():
            continue  # ages are converted
        if f"data.{key}" in user_keys and other and cfg.data.get(key) != config.data.get(key):
            trained_with = f"data.{key}={config.data.get(key)}"
            raise UserError(f"the run was trained with {trained_with} and must be tested with it: remove data.{key}")
    _keep_source(config, cfg, user_keys)
    same_data, trained_on = is_same_data(config, cfg), build_source(config)
    _replace_data(config, cfg, user_keys)
    if cfg.get("groups") is not None:
        with open_dict(config):
            config.data.groups = cfg.groups
    set_up_process(seed=config.seed, matmul_precision=config.matmul_precision)
    planner = build_planner(config)
    if not other:
        _keep_split(planner, run_dir, stamp["protocol"])
    plan = planner.plan()
    alignment = _align(run_dir, plan, stamp, planner.bins)
    if alignment is not None:
        plan = replace(plan, target=alignment.target)
    leak: dict[str, Any] = {}
    seen = None
    if other:
        sources = (planner.source, planner.source if same_data else trained_on)
        leak, seen = leak_of_other(run_dir, plan, sources, same_data=same_data, allow=cfg.allow_leak)
    if alignment is None or alignment.complete:
        return Evaluation(pack_plan(config, planner, plan), other, leak, seen)
    # The head's loss needs labels of the run. It is not used, so any label is fine.
    unlabelled = replace(plan, target=replace(plan.target, labels=np.zeros_like(plan.target.labels)))
    return Evaluation(pack_plan(config, planner, unlabelled), other, leak, seen, alignment)


def _align(run_dir: Path, plan: Plan, stamp: Mapping[str, Any], bins: Any) -> Alignment | None:
    """Return the alignment of the labels of a run with those of the data; None if they are equal.

    Raises:
        UserError: If the labels differ and are no ages.
    """
    if list(plan.target.label_names) == stamp["label_names"]:
        return None
    unit, found = stamp.get("unit", ""), None  # older checkpoints have no unit
    if unit:
        edges = tuple(stamp["config"]["data"]["bins"]) if unit == "bins" else ()
        found = align_labels(plan.target, OrderedLabels(np.array(stamp["values"]), unit, edges), bins=bins)
    if found is None:
        raise UserError(
            f"{run_dir} was trained for the labels {_first_names(stamp['label_names'])}, but data={plan.name} has "
            f"{_first_names(plan.target.label_names)}: choose data and data.target with the same labels"
        )
    return found


def leak_of_other(
    run_dir: Path, plan: Plan, sources: tuple[Source, Source], *, same_data: bool, allow: bool
) -> tuple[dict[str, Any], Seen]:
    """Return `leak` and `leak_checked` of results.json, and the images of another test set that a run has seen.

    If the test images are the run's own test images, the leak is that of its own split.

    Args:
        run_dir: The folder of the run.
        plan: The plan of the test set.
        sources: The source of the test images, and that of the images of the run.
        same_data: Whether both are the same data set.
        allow: Whether people and images of train cause a warning instead of an error.
    """
    trained = read_split(run_dir)
    if trained is None:
        text = f"{run_dir} has no readable split.csv, so it is unknown which people the model was trained on"
        if not allow:
            raise UserError(f"{text}: restore the file, or set allow_leak=true to test anyway")
        log.warning("%s: the test images may show people that the model was trained on", text)
        seen = Seen({}, dict.fromkeys(KINDS, "the run has no readable split.csv"))
        return {"leak": None, "leak_checked": False}, seen
    seen = find_seen(trained, plan, same_data=same_data)
    own = is_own_test(trained, plan, same_data=same_data)
    if own or allow or not seen.surely_in("train", same_data=same_data):  # else it is refused without reading files
        seen = add_copies(seen, trained, plan, tested=sources[0], trained_on=sources[1])
    if own:
        return {"leak": own_leak(trained, plan), "leak_checked": "identity" not in seen.unknown}, seen
    found = check_people(trained, plan, seen, same_data=same_data, allow=allow)
    return {"leak": found, "leak_checked": "identity" not in seen.unknown}, seen


def _keep_split(planner: Planner, run_dir: Path, protocol: str) -> None:
    """Make the planner use the split of the run. A new draw differs if images were added or removed since training."""
    file = run_dir / "split.csv"
    if file.is_file():
        name = protocol.split("/")[1]
        planner.split = lambda *given: replace(splits.column(*given, file=str(file)), name=name)
        planner.per_class = planner.limit = None  # the file has these limits applied


def _keep_source(trained: DictConfig, cfg: DictConfig, user_keys: Collection[str]) -> None:
    """If the data set to test is the run's own, take its location from the run, unless the user sets another."""
    if cfg.get("data") is None or not _has_same_name(trained, cfg):
        return
    moved = {"data.root", "data.source.root", "paths.data"} & set(user_keys)
    if moved and _path_is_identity(cfg):
        return
    root = trained.data.root
    with open_dict(cfg):
        if not moved and (root is None or _exists(root)):
            cfg.data.root = root
        elif not moved:
            log.warning("the run's data.root=%s no longer exists: using data.root=%s", root, cfg.data.root)
        for key in ("columns", "source"):
            for name, value in (trained.data.get(key) or {}).items():
                if name not in ("root", "cache") and f"data.{key}.{name}" not in user_keys:
                    cfg.data[key][name] = value
        if "data.groups" not in user_keys:
            cfg.data.groups = trained.data.get("groups")
        if "paths.cache" not in user_keys and _exists(trained.paths.cache):
            cfg.paths.cache = trained.paths.cache  # its pixels are packed there


def _exists(path: Any) -> bool:
    return Path(str(path)).expanduser().exists()


def _has_same_name(trained: DictConfig, cfg: DictConfig) -> bool:
    return bool(trained.data.name == cfg.data.name and trained.data.source._target_ == cfg.data.source._target_)


def _path_is_identity(config: DictConfig) -> bool:
    return path_is_identity(str(config.data.source._target_))


def _replace_data(config: DictConfig, cfg: DictConfig, user_keys: Collection[str]) -> None:
    """Replace the data set in a run's config. Keys that must be the same in training and test keep their values.

    Another target or other bins of ages, set by the user, are kept.
    """
    if cfg.get("data") is None:
        return
    kept = {key: config.data[key] for key in TRAINED_FOR if key in config.data and f"data.{key}" not in user_keys}
    if "data.target" in user_keys:
        kept.pop("bins", None)
    with open_dict(config):
        config.data = OmegaConf.create(OmegaConf.to_container(cfg.data, resolve=False))
        config.paths = OmegaConf.create(OmegaConf.to_container(cfg.paths, resolve=True))
        config.data.update(kept)


def _first_names(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:6]) + (f", ... ({len(names)})" if len(names) > 6 else "")
