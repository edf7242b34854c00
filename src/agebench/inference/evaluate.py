"""Test a trained run again, on its own test images or on those of another data set or split."""

import logging
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agebench.build.checkpoint import changed_network, is_same_data
from agebench.build.data import LOADED, build_source
from agebench.build.limit import build_age_limit
from agebench.data.datamodule import ImageDataModule
from agebench.data.plan import Plan
from agebench.errors import UserError
from agebench.inference.ensemble import Member, Model, load_model
from agebench.inference.evaluation_data import Evaluation, leak_of_other, prepare
from agebench.inference.load import make_trainer
from agebench.leakage.seen_in_training import SEEN_COLUMNS, Seen, leak_sentence, seen_sentence
from agebench.metrics.age_limit import DEFAULTS
from agebench.metrics.predictions import Array, Predictions
from agebench.metrics.table import find, is_decision
from agebench.module import ImageModule
from agebench.runs.by_group import group_results
from agebench.runs.description import (
    DataDescription,
    decision_curves,
    describe_calibration,
    describe_test,
    log_decision,
    no_better_than_guessing,
    unknown_people,
)
from agebench.runs.folder import check_folder, is_first_process, write_config
from agebench.runs.identity import versions
from agebench.runs.label_alignment import label_predictions
from agebench.runs.label_notes import describe_labels, label_messages
from agebench.runs.tables import write_breakdown, write_predictions, write_split, write_table
from agebench.runs.writer import RunWriter

log = logging.getLogger(__name__)

REPRODUCED_WITHIN = 1e-4  # tolerance of each metric: other kernels sum in another order


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
    _log_share(evaluation)
    leak, seen = _leak_of_members(cfg, model, evaluation)
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
        **({} if seen is None else {"seen_in_training": seen.facts}),
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
        write(cfg, folder, evaluation.plan, predictions, bounds=bounds, results=results, seen=seen)
        if grouped is not None:
            grouped.log()
        log_evaluation(
            predictions,
            _reported({} if model.facts else trained, evaluation, results),
            warn=cfg.checkpoint == "tested",
            changed=changed_network(trained, config),
        )
        if sentence := no_better_than_guessing(results):
            log.warning("%s", sentence)
        log_decision(results)
        for message in label_messages(labels):
            log.info("%s", message)
        if calibration is not None:
            log_calibrated_metrics(predictions)
        if results["leak"]:
            log.info("%s", leak_sentence(results["leak"]))
        elif sentence := unknown_people(results):
            log.warning("%s", sentence)
        if seen is not None and seen.parts:
            log.info("%s", seen_sentence(seen.facts))
        log.info("written to %s", folder)
    return results


def _log_share(evaluation: Evaluation) -> None:
    """Say how many images of another data set are not tested, because they are in another part of its split."""
    plan = evaluation.images.plan
    tested = len(plan.split.test)
    others = len(plan.rows) - len(plan.broken) - tested
    if evaluation.other and others:
        log.info(
            "testing %s of %s images of data=%s: those in the test part of data/split=%s; data/split=test_only tests "
            "all of them",
            f"{tested:,}",
            f"{tested + others:,}",
            plan.name,
            plan.split.name,
        )


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
    seen: Seen | None,
) -> None:
    """Write the folder of an evaluation, results.json last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, cfg)
    write_split(folder, plan)
    write_predictions(folder, plan, predictions)
    write_table(folder / "seen_in_training.csv", SEEN_COLUMNS, seen.rows if seen else ())
    write_breakdown(folder, plan, predictions, bounds=bounds)
    if (curves := decision_curves(plan, predictions, bounds)) is not None:
        from agebench.report.decisions import write_decisions

        write_decisions(folder / "report", curves, results["decision"], title=plan.protocol)
    RunWriter(folder).update(results)


def log_evaluation(predictions: Predictions, reported: Mapping[str, Any], *, warn: bool, changed: str) -> None:
    """Log the main metrics, each with the value that training reported.

    Args:
        predictions: The predictions and their metrics.
        reported: Metrics in the run's results.json; empty for another test set.
        warn: Whether to warn if a metric differs from the reported one.
        changed: The user's own code that has changed since the training; empty if none has.
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
            "%s differ from those that train reported: %s changed since then%s",
            ", ".join(differing),
            "the code has" if changed else "the data or the versions have",
            f" ({changed})" if changed else "",
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


def _leak_of_members(cfg: DictConfig, model: Model, evaluation: Evaluation) -> tuple[Mapping[str, Any], Seen | None]:
    """Return `leak` and `leak_checked` of results.json for all runs of an ensemble: the largest leak of a run.

    The second value is the test images that any of the runs has seen; None if all test images are a run's own.

    Raises:
        UserError: If a run was trained on images or people of the test part and `allow_leak` is false, or it was
            trained on another data set than the first and the command names no data set.
    """
    first, plan = model.first, evaluation.images.plan
    found, seen = [evaluation.leak], evaluation.seen
    for member in model.members[1:]:
        same_data = is_same_data(member.config, first.config)  # the config of the first has the tested data
        if not (evaluation.other or same_data):
            raise UserError(
                f"{first.folder} and {member.folder} were trained on different data sets: add data=NAME to test on"
            )
        same = all(member.results.get(key) == first.results.get(key) for key in ("protocol", "split_sha"))
        if evaluation.other or not same:
            log.info("checking what %s was trained on", member.folder)
            source = evaluation.images.source
            sources = (source, source if same_data else build_source(member.config))
            leak, also = leak_of_other(member.folder, plan, sources, same_data=same_data, allow=cfg.allow_leak)
            found.append(leak)
            seen = also if seen is None else seen | also
    leaks = [each for each in found if each and (evaluation.other or each["leak"])]
    if not leaks:
        return {}, seen  # that of the first run's own split
    largest = max(leaks, key=lambda each: (each["leak"] or {}).get("images", 0))
    return {"leak": largest["leak"], "leak_checked": all(each["leak_checked"] for each in leaks)}, seen
