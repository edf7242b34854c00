"""Score the predictions of another program on a test list, and write a run folder."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agebench.data.plan import Plan
from agebench.data.split import test_sha
from agebench.files import write_csv
from agebench.metrics.age_limit import DEFAULTS
from agebench.metrics.predictions import Predictions
from agebench.metrics.table import find
from agebench.runs.by_group import group_results
from agebench.runs.description import describe_test, log_decision
from agebench.runs.folder import check_folder, write_config
from agebench.runs.foreign_predictions import predictions_of
from agebench.runs.foreign_sheet import Matches, Sheet, match_sheet
from agebench.runs.identity import versions
from agebench.runs.label_notes import describe_labels, label_messages
from agebench.runs.tables import write_breakdown, write_predictions, write_split
from agebench.runs.writer import RunWriter

log = logging.getLogger(__name__)

LISTED = 20  # names of each kind in results.json; unmatched.csv has all


def score_sheet(cfg: Any, sheet: Sheet, plan: Plan, folder: Path, *, name: str) -> dict[str, Any]:
    """Write the folder of a scored file: results.json, predictions.csv, split.csv and the tables of a test.

    Args:
        cfg: The composed config, which is stored.
        sheet: The predictions.
        plan: The data, whose test part is scored.
        folder: Folder to write into; created if it does not exist.
        name: The name of the model.

    Returns:
        The content of results.json.

    Raises:
        UserError: If the predictions do not fit the data, or the folder has other content.
    """
    check_folder(folder, "score")
    matches = match_sheet(sheet, plan)
    for message in match_messages(sheet, matches, plan):
        log.warning("%s", message)
    plan, predictions, alignment = predictions_of(
        sheet, matches, plan, settings={key: cfg.get(key) for key in DEFAULTS}, bins=cfg.data.get("bins")
    )
    labels = describe_labels(predictions, alignment)
    tested, bounds = describe_test(plan, predictions)
    results = {
        "status": "completed",
        "scored": {"name": name, "file": str(sheet.file.absolute()), **describe_matches(sheet, matches, plan)},
        "protocol": plan.protocol,
        "split_sha": test_sha(plan.records, plan.split.test[matches.rows]),
        "data": {"test": len(matches.rows), "missing": len(plan.missing), "broken": len(plan.broken)},
        "leak": None,
        "leak_checked": False,
        **tested,
        **labels,
        "versions": versions(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    if (grouped := group_results(plan, predictions)) is not None:
        results["groups"] = grouped.facts
        grouped.write(folder)
        grouped.draw(folder / "report")
    write_config(folder, cfg)
    write_split(folder, plan)
    write_predictions(folder, plan, predictions)
    write_breakdown(folder, plan, predictions, bounds=bounds)
    _write_unmatched(folder, matches)
    RunWriter(folder).update(results)
    _log(name, predictions, labels, folder)
    log_decision(results)
    if grouped is not None:
        grouped.log()
    return results


def describe_matches(sheet: Sheet, matches: Matches, plan: Plan) -> dict[str, Any]:
    """Return the numbers of rows and of test images by how they match, for results.json, with examples.

    The test is complete if `matched` is `test_images`.
    """
    kinds = {"missing": matches.missing, "doubled": matches.doubled, "unknown": matches.unknown}
    return {
        "sha": _hash(sheet),
        "rows": len(sheet.names),
        "test_images": len(plan.split.test),
        "matched": len(matches.rows),
        "elsewhere": matches.elsewhere,
        **{kind: len(names) for kind, names in kinds.items()},
        "examples": {kind: names[:LISTED] for kind, names in kinds.items() if names},
    }


def match_messages(sheet: Sheet, matches: Matches, plan: Plan) -> list[str]:
    """Return one sentence for each kind of rows that do not match the test list one to one."""
    images, rows, messages = len(plan.split.test), len(sheet.names), []
    for names, what, total, so in (
        (matches.missing, "test images without a row", images, "the metrics are those of the others"),
        (matches.doubled, "test images with several rows", images, "equal rows count once, others are left out"),
        (matches.unknown, f"rows that are no image of data={plan.name}", rows, "they are ignored"),
    ):
        if names:
            examples = ", ".join(name[:80] for name in names[:3])
            messages.append(f"{what}: {len(names):,} of {total:,} (such as {examples}; see unmatched.csv); {so}")
    if matches.elsewhere:
        messages.append(f"rows that are images of train or val: {matches.elsewhere:,} of {rows:,}; they are ignored")
    return messages


def _hash(sheet: Sheet) -> str:
    return hashlib.sha256(sheet.file.read_bytes()).hexdigest()[:16]


def _write_unmatched(folder: Path, matches: Matches) -> None:
    """Write unmatched.csv: every missing, doubled and unknown name. Without any, an earlier file is removed."""
    kinds = {"missing": matches.missing, "doubled": matches.doubled, "unknown": matches.unknown}
    rows = [(name, kind) for kind, names in kinds.items() for name in names]
    if rows:
        write_csv(folder / "unmatched.csv", ("name", "reason"), rows)
    else:
        (folder / "unmatched.csv").unlink(missing_ok=True)


def _log(name: str, predictions: Predictions, labels: Mapping[str, Any], folder: Path) -> None:
    log.info("%s: %s test images", name, f"{len(predictions.rows):,}")
    for metric, value in predictions.metrics.items():
        if find(metric).headline:
            log.info("%-16s %.6f", metric, value)
    for message in label_messages(labels):
        log.info("%s", message)
    log.info("leak unknown: %s was trained elsewhere, maybe on these people", name)
    log.info("written to %s", folder)
