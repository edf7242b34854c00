"""Build the teacher of a config: a completed run, checked for its labels, its pixels and the people it has seen."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from agebench.build.checkpoint import is_same_data, read_checkpoint
from agebench.build.module import build_trained
from agebench.data.plan import Plan
from agebench.distillation import Teacher
from agebench.errors import UserError
from agebench.leakage.seen_in_training import check_people, find_seen, is_own_test, read_split
from agebench.runs.members import find_teacher

log = logging.getLogger(__name__)

# Keys of the data that decide which pixels a network gets. Normalisation is a part of each network.
PIXELS = ("image_size", "channels", "crop_mode", "crop_pct", "interpolation")


def build_teacher(cfg: DictConfig, plan: Plan) -> Teacher | None:
    """Return the teacher of a config, or None if there is none.

    The teacher is the tested checkpoint of its run, which is the best one unless the run had `test_checkpoint=last`.

    Args:
        cfg: The composed config.
        plan: The data of the student.

    Raises:
        UserError: If the folder is not a completed run, if it names code that is not part of agebench and `trust` is
            false, if its labels or its pixels differ from those of the student, or if it was trained on images or
            people of the student's test part.
    """
    if cfg.teacher.run is None:
        return None
    folder, results = find_teacher(cfg.teacher.run)
    path, stored, config = read_checkpoint(folder, "tested", results, trust=cfg.trust)
    stamp, target = stored["agebench"], plan.target
    _check_labels(folder, stamp, {"labels": list(target.label_names), "unit": target.unit})
    for key in PIXELS:
        if config.data[key] != cfg.data[key]:
            raise UserError(
                f"teacher.run={folder} was trained with data.{key}={config.data[key]}, and the student gets the same "
                f"images with data.{key}={cfg.data[key]}: set data.{key}={config.data[key]}"
            )
    _check_leak(folder, config, cfg, plan)
    module = build_trained(config, stored)
    facts = {
        "run": str(folder),
        "checkpoint": path.name,
        "weights_sha": stamp["weights_sha"],
        "protocol": stamp["protocol"],
        "weight": cfg.teacher.weight,
        "temperature": cfg.teacher.temperature,
    }
    return Teacher(module, module.head, weight=cfg.teacher.weight, temperature=cfg.teacher.temperature, facts=facts)


def _check_labels(folder: Path, stamp: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = {"labels": list(stamp["label_names"]), "unit": stamp["unit"]}
    if found != wanted:
        shown = [", ".join(each["labels"][:6]) + f" ({len(each['labels'])})" for each in (found, wanted)]
        raise UserError(
            f"teacher.run={folder} predicts the labels {shown[0]}, and the student learns {shown[1]}: choose a teacher "
            "with the same data.target and labels (data.ages fixes those of ages)"
        )


def _check_leak(folder: Path, config: DictConfig, cfg: DictConfig, plan: Plan) -> None:
    """Raise UserError if the teacher was trained on images or people of the test part, or if that is unknown."""
    trained = read_split(folder)
    if trained is None:
        raise UserError(
            f"teacher.run={folder} has no readable split.csv, so it is unknown which people it was trained on: restore "
            "the file"
        )
    same_data = is_same_data(config, cfg)
    if not is_own_test(trained, plan, same_data=same_data):
        check_people(
            trained,
            plan,
            find_seen(trained, plan, same_data=same_data),
            same_data=same_data,
            allow=False,
            model=f"the teacher {folder}",
            advice="choose a teacher with the same split",
        )
