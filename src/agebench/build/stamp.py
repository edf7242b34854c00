"""The metadata of a checkpoint, with which a trained network is tested and exported without its data set."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import torch
from omegaconf import DictConfig, OmegaConf

from agebench.data.background import training_background
from agebench.data.packed import PackedImages
from agebench.errors import UserError
from agebench.schema import Text, find_mismatch


class StampKeys(TypedDict):
    """The metadata of a checkpoint, under the key `agebench`. The last three are added when training starts."""

    started_in: Text
    config: dict[str, Any]
    protocol: Annotated[str, re.compile(r"[^/]+/[^/]+/.+").fullmatch, "a protocol as DATA/SPLIT/TARGET"]
    label_names: list[str]
    target: Text
    values: list[float]
    unit: Literal["years", "decades", "bins", ""]
    ordered: bool
    background: NotRequired[Annotated[list[float], lambda each: len(each) == 2, "two numbers"]]  # not in older files
    config_hash: Text
    data_sha: Text
    weights_sha: Text


class StoredKeys(TypedDict):
    """The content of a checkpoint that agebench reads."""

    agebench: StampKeys
    state_dict: dict[str, torch.Tensor]


def check_stored(path: Path, stored: Any) -> None:
    """Raise UserError if the content of a checkpoint is not what agebench writes."""
    damaged = f"{path} is damaged, or from another version of agebench or another program"
    if (found := find_mismatch("", stored, StoredKeys)) is not None:
        raise UserError(f"{damaged} ({found}): give a file in checkpoints/ of a run, or train again")
    names, values = len(stored["agebench"]["label_names"]), len(stored["agebench"]["values"])
    if names != values or not names:
        raise UserError(f"{damaged} (it has {names} label names and {values} values): restore it from a copy")


def make_stamp(cfg: DictConfig, images: PackedImages) -> dict[str, Any]:
    """Return the metadata of every checkpoint as plain data, so that testing and exporting need no data set."""
    plan, target = images.plan, images.plan.target
    return {
        "started_in": str(Path.cwd()),
        "config": OmegaConf.to_container(cfg, resolve=True),
        "protocol": plan.protocol,
        "label_names": list(target.label_names),
        "target": target.name,
        "values": target.values.tolist(),
        "unit": target.unit,
        "ordered": target.ordered,
        "background": training_background(images.pixels, plan.rows[plan.split.train]),
    }
