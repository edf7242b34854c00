"""Test a trained run again, on its own test images or on those of another data set or split."""

import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf, open_dict

from agebench.build.checkpoint import is_same_data
from agebench.build.data import LOADED, build_planner, pack_plan
from agebench.build.limit import build_age_limit
from agebench.data import split as splits
from agebench.data.datamodule import ImageDataModule
from agebench.data.packed import PackedImages
from agebench.data.plan import Plan, Planner
from agebench.errors import UserError
from agebench.inference.ensemble import Member, Model, load_model
from agebench.inference.load import make_trainer
from agebench.leakage.seen_in_training import (
    check_people,
    has_named_identities,
    is_own_test,
    leak_sentence,
    own_leak,
    read_split,
)
from agebench.metrics.age_limit import DEFAULTS
from agebench.metrics.predictions import Array, Predictions
from agebench.metrics.table import UNITS, find, is_decision
from agebench.module import ImageModule
from agebench.process import set_up_process
from agebench.runs.by_group import group_results
from agebench.runs.description import (
    DataDescription,
    decision_curves,
    describe_calibration,
    describe_test,
    log_decision,
)
from agebench.runs.folder import check_folder, is_first_process, write_config
from agebench.runs.identity import path_is_identity, versions
from agebench.runs.label_alignment import (
    Alignment,
    OrderedLabels,
    align_labels,
    label_predictions,
)
from agebench.runs.label_notes import describe_labels, label_messages
from agebench.runs.tables import write_breakdown, write_predictions, write_split
from agebench.runs.writer import RunWriter

log = logging.getLogger(__name__)

REPRODUCED_WITHIN = 1e-4  # tolerance of each metric: other kernels sum in another order
# Keys of the data that must be the same in training and test.
TRAINED_FOR = ("image_size", "channels", "crop_mode", "crop_pct", "interpolation", "target", "bins")


def evaluate_run(cfg: DictConfig, folder: Path, *, user_keys: Collection[str] = ()) -> dict[str, Any]:
    """Test a run's weights, and write results.json, predictions.csv and split.csv to a folder.

    Args:
        cfg: The composed config of the command: `run`, `checkpoint`, `average`, `tta`, `devices`, `groups`,
            `allow_leak`, `trust`, and `data` for another data set.
        folder: Folder to write into; created if it does not exist.
        user_keys: Keys that the user set. All other keys of the run's own data set are taken from the run.

    Returns:
        The content of results.json.

    Raises:
        UserError: If the folder is not a trained run, the labels are classes that differ from those of the training, or
            another test set contains images or identities of the train part and `allow_leak` is false.
    """
    if is_first_process():
        check_folder(folder, "evaluation")
    model = load_model(cfg, partial(on_val, cfg))
    run_dir, trained, config, stamp = model.first.folder, model.first.results, model.first.config, model.first.stamp
    evaluation = prepare(cfg, config, stamp, run_dir=run_dir, user_keys=user_keys)
    leak = _leak_of_members(cfg, model, evaluation)
    predictions = test(cfg, config, evaluation, model.module, folder, part="test")
    # The sets of a calibration are of the run's own labels.
    calibration = model.calibration(use=cfg.calibration and evaluation.alignment is None)
    if calibration is not None:
        predictions = calibration.apply(predictions)
    description = DataDescription.of(evaluation.plan).limited_to(predictions)
    tested, bounds = describe_test(evaluation.plan, predictions)
    labels = describe_labels(predictions, evaluation.alignment)
    results = {
        "status": "completed",
        "run": str(run_dir),
        "checkpoint": model.first.path.name,
        "protocol": evaluation.plan.protocol,
        "trained_protocol": stamp["protocol"],
        **description.facts,
        **leak,
        **tested,
        **labels,
        "versions": versions(),
    }
    if model.facts:
        results |= {"ensemble": model.facts, "params": model.parameters}
    if calibration is not None:
        plan = evaluation.plan
        results["calibration"] = describe_calibration(plan, calibration, predictions, bounds)
    if is_first_process():
        grouped = group_results(evaluation.plan, predictions)
        if grouped is not None:
            results["groups"] = grouped.facts
            grouped.write(folder)
            grouped.draw(folder / "report")
        write(cfg, folder, evaluation.plan, predictions, bounds=bounds, results=results)
        if grouped is not None:
            grouped.log()
        log_evaluation(
            predictions, _reported({} if model.facts else trained, evaluation, results), warn=cfg.checkpoint == "tested"
        )
        log_decision(results)
        for message in label_messages(labels):
            log.info("%s", message)
        if calibration is not None:
            log_calibrated_metrics(predictions)
        if results["leak"]:
            log.info("%s", leak_sentence(results["leak"]))
        log.info("written to %s", folder)
    return results


@dataclass(frozen=True)
class Evaluation:
    """The data of an evaluation.

    Args:
        images: Packed images of the data set to test on, with labels of the run.
        other: Whether the data set or split is not the run's own.
        leak: `leak` and `leak_checked` of results.json for another test set; empty for the run's own.
        alignment: The labels of the data, if they are ordered and the run cannot predict all of them, else None.
    """

    images: PackedImages
    other: bool
    leak: Mapping[str, Any]
    alignment: Alignment | None = None

    @property
    def plan(self) -> Plan:
        """The plan with the labels under which the predictions are tested."""
        plan = self.images.plan
        return plan if self.alignment is None else replace(plan, target=self.alignment.target)


def on_val(cfg: DictConfig, member: Member) -> Callable[[ImageModule], Mapping[str, float]]:
    """Return a function that tests a module on the val part of a run, and returns the metrics as those of a test.

    Args:
        cfg: The composed config of the command.
        member: The run.
    """
    own = OmegaConf.create({"accelerator": cfg.get("accelerator", "auto"), "precision": cfg.get("precision")})
    config = member.config.copy()
    evaluation = prepare(own, config, member.stamp, run_dir=member.folder, user_keys=())

    def measure(module: ImageModule) -> Mapping[str, float]:
        return test(own, config, evaluation, module, member.folder, part="val").metrics

    return measure


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
    same_data = is_same_data(config, cfg)
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
    leak = _leak_of_other(run_dir, plan, same_data=same_data, allow=cfg.allow_leak) if other else {}
    if alignment is None or alignment.complete:
        return Evaluation(pack_plan(config, planner, plan), other, leak)
    # The head's loss needs labels of the run. It is not used, so any label is fine.
    unlabelled = replace(plan, target=replace(plan.target, labels=np.zeros_like(plan.target.labels)))
    return Evaluation(pack_plan(config, planner, unlabelled), other, leak, alignment)


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


def test(
    cfg: DictConfig,
    config: DictConfig,
    evaluation: Evaluation,
    module: ImageModule,
    folder: Path,
    *,
    part: str,
) -> Predictions:
    """Return the predictions of a trained module for the test part, or for all images of another part."""
    # The residency is auto, because this machine may not have the GPU of the run.
    loading = {key: config.data[key] for key in LOADED} | {"residency": "auto"}
    data = ImageDataModule(evaluation.images, seed=config.seed, **loading)
    module.age_limit = build_age_limit(cfg, module.stamp)
    devices = cfg.get("devices", 1)
    trainer = make_trainer(
        cfg,
        config,
        devices=devices,
        strategy="ddp" if devices not in (1, "1") else "auto",
        use_distributed_sampler=False,
        default_root_dir=str(folder),
        limit_test_batches=None if evaluation.other or part != "test" else config.trainer.limit_test_batches,
    )
    if part == "test":
        trainer.test(module, datamodule=data, verbose=False)
    else:
        trainer.test(module, dataloaders=data.val_dataloader(), verbose=False)
    if module.predictions is None:
        raise RuntimeError("the test ended without predictions")
    predictions, alignment = module.predictions, evaluation.alignment
    if alignment is None:
        return predictions
    limit = build_age_limit(cfg, module.stamp, labels=alignment.data_labels)
    return label_predictions(
        evaluation.plan,
        predictions.rows,
        predictions.point,
        predictions.posterior,
        alignment=alignment,
        age_limit=limit,
    )


def write(
    cfg: DictConfig,
    folder: Path,
    plan: Plan,
    predictions: Predictions,
    *,
    bounds: dict[str, Array],
    results: Mapping[str, Any],
) -> None:
    """Write the folder of an evaluation, results.json last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, cfg)
    write_split(folder, plan)
    write_predictions(folder, plan, predictions)
    write_breakdown(folder, plan, predictions, bounds=bounds)
    if (curves := decision_curves(plan, predictions, bounds)) is not None:
        from agebench.report.decisions import write_decisions

        write_decisions(folder / "report", curves, results["decision"], title=plan.protocol)
    RunWriter(folder).update(results)


def log_evaluation(predictions: Predictions, reported: Mapping[str, Any], *, warn: bool) -> None:
    """Log the main metrics, each with the value that training reported.

    Args:
        predictions: The predictions and their metrics.
        reported: Metrics in the run's results.json; empty for another test set.
        warn: Whether to warn if a metric differs from the reported one.
    """
    for name, value in predictions.metrics.items():
        if not find(name).headline:
            continue
        before = reported.get(name)
        log.info("%-16s %.6f%s", name, value, f"  (train reported {before:.6f})" if before is not None else "")
    differing = [
        name
        for name, value in reported.items()
        if value is not None and not abs(predictions.metrics.get(name, math.nan) - value) <= REPRODUCED_WITHIN
    ]
    if differing and warn:
        log.warning(
            "%s differ from those that train reported: the data or the versions have changed since then",
            ", ".join(differing),
        )


def _reported(trained: Mapping[str, Any], evaluation: Evaluation, results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics in the run's results.json that the evaluation should reproduce."""
    if evaluation.other:
        return {}
    settings = [{key: each.get("decision", {}).get(key) for key in DEFAULTS} for each in (trained, results)]
    same_limit, calibrated = settings[0] == settings[1], "calibration" in results
    return {
        name: value
        for name, value in trained.get("metrics", {}).items()
        if (same_limit or not is_decision(name)) and (calibrated or not find(name).calibrated)
    }


def log_calibrated_metrics(predictions: Predictions) -> None:
    """Log the metrics of calibrated predictions, each without and with the calibration."""
    metrics, size = predictions.metrics, ("range_width" if predictions.ordered else "set_size")
    for name in ("nll", "ece"):
        log.info("test/%-12s %.4f -> %.4f", name, metrics[f"test/{name}"], metrics[f"test/{name}_calibrated"])
    for name in ("coverage", size):
        log.info("test/%-12s %.4f -> %.4f", name, metrics[f"test/{name}_uncalibrated"], metrics[f"test/{name}"])


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


def _leak_of_other(run_dir: Path, plan: Plan, *, same_data: bool, allow: bool) -> dict[str, Any]:
    """Return `leak` and `leak_checked` of results.json: what another test set shares with the run's train part.

    If the test images are the run's own test images, the leak is that of its own split.
    """
    trained = read_split(run_dir)
    if trained is None:
        text = f"{run_dir} has no readable split.csv, so it is unknown which people the model was trained on"
        if not allow:
            raise UserError(f"{text}: restore the file, or set allow_leak=true to test anyway")
        log.warning("%s: the test images may show people that the model was trained on", text)
        return {"leak": None, "leak_checked": False}
    if is_own_test(trained, plan, same_data=same_data):
        return {"leak": own_leak(trained, plan), "leak_checked": True}
    checked = same_data or has_named_identities(trained, plan)
    return {"leak": check_people(trained, plan, same_data=same_data, allow=allow), "leak_checked": checked}


def _leak_of_members(cfg: DictConfig, model: Model, evaluation: Evaluation) -> Mapping[str, Any]:
    """Return `leak` and `leak_checked` of results.json for all runs of an ensemble: the largest leak of a run.

    Raises:
        UserError: If a run was trained on images or people of the test part and `allow_leak` is false, or it was
            trained on another data set than the first and the command names no data set.
    """
    first, plan = model.first, evaluation.images.plan
    found = [evaluation.leak]
    for member in model.members[1:]:
        same_data = is_same_data(member.config, first.config)  # the config of the first has the tested data
        if not (evaluation.other or same_data):
            raise UserError(
                f"{first.folder} and {member.folder} were trained on different data sets: add data=NAME to test on"
            )
        same = all(member.results.get(key) == first.results.get(key) for key in ("protocol", "split_sha"))
        if evaluation.other or not same:
            log.info("checking what %s was trained on", member.folder)
            found.append(_leak_of_other(member.folder, plan, same_data=same_data, allow=cfg.allow_leak))
    leaks = [each for each in found if each and (evaluation.other or each["leak"])]
    if not leaks:
        return {}  # that of the first run's own split
    largest = max(leaks, key=lambda each: (each["leak"] or {}).get("images", 0))
    return {"leak": largest["leak"], "leak_checked": all(each["leak_checked"] for each in leaks)}


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
