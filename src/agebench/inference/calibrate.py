"""Calibrate a trained run on its val part, and measure the calibration on its test part."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from agebench.build.checkpoint import read_checkpoint
from agebench.build.module import build_trained
from agebench.calibration.calibration import FILE, Calibration, fit
from agebench.data.plan import Plan
from agebench.data.split import test_sha
from agebench.errors import UserError
from agebench.inference.evaluate import log_calibrated_metrics, test
from agebench.inference.evaluation_data import prepare
from agebench.metrics.predictions import Predictions
from agebench.metrics.table import find
from agebench.report.calibration import write_calibration
from agebench.runs.by_group import group_results
from agebench.runs.description import describe_calibration, describe_test, identities_of
from agebench.runs.folder import read_results
from agebench.runs.tables import write_coverage
from agebench.runs.writer import RunWriter

log = logging.getLogger(__name__)


def calibrate_run(cfg: DictConfig) -> Calibration:
    """Fit a calibration on val, write it into the run, and add its test metrics to results.json.

    Args:
        cfg: The composed config of the command: `run`, `coverage`, `checkpoint`, `accelerator`, `precision`, `trust`.

    Returns:
        The calibration.

    Raises:
        UserError: If the folder is not a completed run, val and test are the same images, or val has too few people.
    """
    run_dir = Path(str(cfg.run)).expanduser()
    results = read_results(run_dir)
    if results.get("status") != "completed":
        raise UserError(
            f"calibrate needs a completed run, but {run_dir} is {results.get('status')}: train it to the end"
        )
    if results.get("data", {}).get("val_is_test"):
        raise UserError(
            "calibrate needs a val part that is not the test part, but this split has val = test: train with another "
            "data/split"
        )
    path, stored, config = read_checkpoint(run_dir, cfg.checkpoint, results, trust=cfg.trust)
    evaluation = prepare(cfg, config, stored["agebench"], run_dir=run_dir, user_keys=())
    module = build_trained(config, stored)
    plan, weights_sha = evaluation.images.plan, stored["agebench"]["weights_sha"]
    on_val = test(cfg, config, evaluation, module, run_dir, part="val")
    identities = identities_of(plan, on_val, part="val")
    calibration = fit(on_val, identities, coverage=cfg.coverage, weights_sha=weights_sha)
    predictions = calibration.apply(test(cfg, config, evaluation, module, run_dir, part="test"))
    if weights_sha == results.get("weights_sha"):
        write_results(run_dir, plan, calibration, predictions)
    else:
        log.info("results.json describes another checkpoint than %s, and is not changed", path.name)
    calibration.write(run_dir)
    log_calibration(calibration, predictions)
    log.info("written to %s", run_dir / FILE)
    return calibration


def write_results(run_dir: Path, plan: Plan, calibration: Calibration, predictions: Predictions) -> None:
    """Add the test metrics of a calibration to results.json, and write coverage_by_decade.csv and by_group.csv.

    The metrics and gaps that training wrote into results.json are not changed.

    Raises:
        UserError: If the test images are not those of the run.
    """
    writer = RunWriter.reopen(run_dir)
    if test_sha(plan.records, plan.split.test[predictions.rows]) != writer.results.get("split_sha"):
        raise UserError(
            f"the test images of {run_dir} have changed since it was trained: restore the data, or train again"
        )
    tested, bounds = describe_test(plan, predictions)
    added = {
        key: {**writer.results[key], **{name: value for name, value in tested[key].items() if find(name).calibrated}}
        for key in ("metrics", "intervals")
    }
    described = describe_calibration(plan, calibration, predictions, bounds)
    writer.update({**added, "calibration": described})
    write_coverage(run_dir, plan, predictions, bounds=bounds)
    if (grouped := group_results(plan, predictions)) is not None:
        before = writer.results.get("groups", {}).get("gaps", [])
        kept = [gap for gap in before if not find(gap["metric"]).calibrated]
        added_gaps = [gap for gap in grouped.facts["gaps"] if find(gap["metric"]).calibrated]
        writer.update({"groups": {**grouped.facts, "gaps": [*kept, *added_gaps]}})
        grouped.write(run_dir)
    if predictions.calibrated is not None:
        write_calibration(
            run_dir / "report" / "calibration.png",
            (predictions.posterior, predictions.calibrated.posterior),
            predictions.target,
            by_decade=described.get("by_decade", {}),
            coverage=calibration.coverage,
            title=plan.protocol,
        )


def log_calibration(calibration: Calibration, predictions: Predictions) -> None:
    """Log the temperature, and each test metric before and after the calibration."""
    before, after = calibration.nll
    if calibration.over == "image" and calibration.ordered:
        log.warning(
            "the identities of the people are unknown: the coverage holds for further images of these people, and "
            "may be lower for new people"
        )
    people = f" of {calibration.groups:,} people" if calibration.over == "identity" else ""
    log.info("temperature %.3f, from %s val images%s", calibration.temperature, f"{calibration.images:,}", people)
    log.info("val/nll           %.4f -> %.4f", before, after)
    log_calibrated_metrics(predictions)
