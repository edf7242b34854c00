"""The identity of a run: a hash of the settings that affect its result, its folder name, versions and git commit."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from agebench.config import flatten

# Keys that do not change the result, except for rounding errors. All other keys are hashed.
WITHOUT_EFFECT = (
    "hydra",
    "paths",
    "logger",
    "report",
    "age_limit",
    "challenge_ages",
    "acceptable",
    "priors",
    "sweep",
    "lr_find",
    "resume",
    "trust",
    "on_nan",  # a run that completes with `stop` has the same result with `skip`
    "launcher",
    "data.groups",
    "data.num_workers",
    "data.eval_batch_size",
    "data.residency",
    "data.require_all",
    "data.cache",
    "data.source.cache",
    "data.source.download",
    "data.source.url",
    "callbacks.progress",
    "callbacks.lr_monitor",
    "callbacks.summary",
    "callbacks.early_stopping.verbose",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
)
# Keys that are not hashed, but shown in tables if they were varied: they decide whether a training completes.
SHOWN = {"on_nan": "stop"}  # with the value of runs without the key
# Groups of keys whose names alone say too little: `decay` does not say of what.
WITH_GROUP = ("ema", "swa", "teacher", "finetune")
# Keys that earlier versions did not have. Null is hashed as if the key did not exist, so that hashes stay the same.
NEW = ("augment.cutmix", "augment.mixup", "data.ages", "ema.decay", "optim.layer_decay", "swa.start")


def config_hash(config: Mapping[str, Any]) -> str:
    """Return a hash of all settings that affect the result of a run, 12 hex digits.

    Args:
        config: The composed config as plain data.
    """
    flat = flatten(config)
    kept = {key: value for key, value in flat.items() if has_effect(key) and (value is not None or key not in NEW)}
    if kept.get("compile") == "default":
        kept["compile"] = True
    if flat.get("teacher.run") is None:
        kept = {key: value for key, value in kept.items() if not key.startswith("teacher.")}
    else:
        kept["teacher.run"] = str(Path(str(flat["teacher.run"])).absolute())
    mode = kept.pop("finetune.mode", None)
    if mode is not None:  # hashed as when the key `model.freeze` had two of its values
        kept |= {"model.freeze": "backbone" if mode == "head" else None}
        if mode in ("none", "head"):
            kept.pop("finetune.backbone_lr_ratio", None)  # null, and absent in earlier versions
        else:
            kept["finetune.mode"] = mode
    if any(flat.get(f"trainer.limit_{part}_batches") is not None for part in ("val", "test")):
        kept["data.eval_batch_size"] = flat.get("data.eval_batch_size")  # decides how many images a batch limit keeps
    path_counts = path_is_identity(str(flat.get("data.source._target_", "")))
    for key in ("data.root", "data.source.root"):
        path = kept.pop(key, None)
        if path_counts and path is not None:
            kept[key] = str(Path(str(path)).absolute())
    for key in (f"data.split.{name}" for name in ("file", "train", "val", "test")):  # the user's lists
        if isinstance(kept.get(key), str):
            kept[key] = str(Path(kept[key]).absolute())
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]


def path_is_identity(source: str) -> bool:
    """Return whether another path means another data set, for a source given by its dotted name.

    The value is the attribute `path_is_identity` of the source. It is False for published data, which is the same at
    every path. The default for a user's own source is True. Nothing outside agebench is imported here.
    """
    package, _, name = source.rpartition(".")
    module = import_module(package) if package == "agebench.data.sources" else sys.modules.get(package)
    return bool(getattr(getattr(module, name, None), "path_is_identity", True))


@cache
def has_effect(key: str) -> bool:
    """Return whether a config key, dotted, may change a run's result."""
    return not any(key == prefix or key.startswith(f"{prefix}.") for prefix in WITHOUT_EFFECT)


def point_name(differs: str, config: Mapping[str, Any]) -> str:
    """Return the folder name of a sweep point: the settings that differ, then six digits of its config hash.

    Args:
        differs: Hydra's override_dirname, `key-value` pairs joined by `|`.
        config: The point's composed config as plain data.
    """
    # `optim.lr-0.001` -> `lr-0.001`; then only characters that Hydra's override grammar accepts.
    short = "_".join(re.sub(r"^[+~]*((?:\w+[./@])*)(\w+-)", _shorten, each) for each in differs.split("|"))
    # A search draws numbers of 17 digits; three are enough beside the hash.
    short = re.sub(r"\d+\.\d{4,}(?:e[+-]?\d+)?(?![a-zA-Z\d.])", lambda m: f"{float(m[0]):.3g}", short)
    safe = re.sub(r"[^\w.\-]+", "-", short, flags=re.ASCII).strip("-_.")[:100]
    return f"{safe or 'point'}-{config_hash(config)[:6]}"  # 123456 alone would be parsed as a number


def _shorten(match: re.Match[str]) -> str:
    groups, key = match.groups()
    return f"{groups}{key}" if groups.rstrip(".") in WITH_GROUP else key


def versions() -> dict[str, str]:
    """Return the versions of the packages that compute a result."""
    from importlib.metadata import version

    names = ("agebench", "lightning", "torch", "torchvision", "timm", "hydra-core", "torchmetrics", "numpy")
    return {name: version(name) for name in names}


def git_commit() -> str | None:
    """Return the git commit of this checkout, with `-dirty` if it has changes; None if this is not a checkout."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
        tracked = subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip() if tracked.returncode == 0 else None
