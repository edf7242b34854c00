"""Build the data of a config: its plan and packed images. This file does not import torch."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agebench.build.nodes import instantiate_node
from agebench.data.packed import PackedImages, pack
from agebench.data.plan import Plan, Planner
from agebench.data.records import Source
from agebench.data.resize import Resize
from agebench.errors import UserError, did_you_mean

# Keys under data, grouped by the class that uses them.
PLANNED = ("name", "target", "bins", "ages", "groups", "per_class", "limit", "require_all")
RESIZED = ("image_size", "channels", "crop_mode", "crop_pct", "interpolation")
LOADED = ("batch_size", "eval_batch_size", "residency", "num_workers")
READ_ELSEWHERE = ("source", "split", "root", "columns", "normalise")


def build_planner(cfg: DictConfig) -> Planner:
    """Return the planner of a config. No file is read.

    Raises:
        UserError: If a key under `data` is unknown.
    """
    node: Any = OmegaConf.to_container(cfg.data, resolve=True)
    known = {*PLANNED, *RESIZED, *LOADED, *READ_ELSEWHERE}
    if unknown := sorted(node.keys() - known):
        raise UserError(f"data has no key {unknown[0]}{did_you_mean(unknown[0], known)}: remove it")
    split = instantiate_node("data.split", node["split"])
    return Planner(build_source(cfg), split, **{key: node[key] for key in PLANNED if key in node})


def build_source(cfg: DictConfig) -> Source:
    """Return the source of a config. No file is read."""
    node: Any = OmegaConf.to_container(cfg.data, resolve=True)
    source: Source = instantiate_node("data.source", node["source"])
    return source


def build_resize(cfg: DictConfig) -> Resize:
    """Return the resizing of the images of a config."""
    return Resize(*(cfg.data[key] for key in RESIZED))


def build_images(cfg: DictConfig) -> PackedImages:
    """Return the packed images of a config.

    Raises:
        UserError: If the data, the target or the split is unavailable, or the cache cannot be written.
    """
    planner = build_planner(cfg)
    return pack_plan(cfg, planner, planner.plan())


def build_training_images(cfg: DictConfig) -> PackedImages:
    """Return the packed images of a config to train on.

    Raises:
        UserError: As build_images, or if the split has no train images.
    """
    planner = build_planner(cfg)
    return pack_plan(cfg, planner, plan_training(planner))


def plan_training(planner: Planner) -> Plan:
    """Return a plan to train on; raise UserError if its split has no train images."""
    plan = planner.plan()
    if plan.split.test_only:
        raise UserError(
            f"data/split={plan.split.name} has no train images: train with another split, and test the run with "
            f"`evaluate run=FOLDER data={plan.name} data/split={plan.split.name}`"
        )
    return plan


def pack_plan(cfg: DictConfig, planner: Planner, plan: Plan) -> PackedImages:
    """Return the packed images of a plan. Images that are not in the cache are decoded."""
    return pack(
        planner.source,
        plan,
        resize=build_resize(cfg),
        cache=Path(cfg.paths.cache).expanduser(),
        require_all=planner.require_all,
    )
