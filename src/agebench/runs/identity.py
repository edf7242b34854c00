"""A run directory: what a run is called, what decides its result, and the files that tell how it went."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from agebench.config import flatten

# What may change without changing the result (but for last bits). Everything else is hashed.
WITHOUT_EFFECT = (
    "hydra",
    "paths",
    "logger",
    "report",
    "sweep",
    "resume",
    "trust",
    "launcher",
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


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 12 hex digits that stand for all that decides a run's result.

    Args:
        config: The composed config as plain data.
    """
    flat = flatten(config)
    kept = {key: value for key, value in flat.items() if has_effect(key)}
    if any(flat.get(f"trainer.limit_{part}_batches") is not None for part in ("val", "test")):
        kept["data.eval_batch_size"] = flat.get("data.eval_batch_size")  # decides how many images a batch limit leaves
    own = path_is_identity(str(flat.get("data.source._target_", "")))
    for key in ("data.root", "data.source.root"):
        path = kept.pop(key, None)
        if own and path is not None:
            kept[key] = str(Path(str(path)).absolute())
    for key in (f"data.split.{name}" for name in ("file", "train", "val", "test")):  # so are lists of one's own
        if isinstance(kept.get(key), str):
            kept[key] = str(Path(kept[key]).absolute())
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]


def path_is_identity(source: str) -> bool:
    """Return whether another path means another data set, for a source by its dotted name.

    A source says so in its attribute of that name: False for published data, which is the same wherever its files are.
    A user's own source counts as True unless it says otherwise. Nothing outside agebench is imported here.
    """
    package, _, name = source.rpartition(".")
    module = import_module(package) if package == "agebench.data.sources" else sys.modules.get(package)
    return bool(getattr(getattr(module, name, None), "path_is_identity", True))


def has_effect(key: str) -> bool:
    """Return whether a config key, dotted, may change a run's result."""
    return not any(key == without or key.startswith(f"{without}.") for without in WITHOUT_EFFECT)


def point_name(differs: str, config: Mapping[str, Any]) -> str:
    """Name a sweep point's folder after what differs, then six digits of its config hash.

    Args:
        differs: Hydra's override_dirname, `key-value` pairs joined by `|`.
        config: The point's composed config as plain data.
    """
    # `optim.lr-0.001` -> `lr-0.001`; then nothing that Hydra's override grammar would trip over.
    short = "_".join(re.sub(r"^[+~]*(?:\w+[./@])*(\w+-)", r"\1", each) for each in differs.split("|"))
    safe = re.sub(r"[^\w.\-]+", "-", short, flags=re.ASCII).strip("-_.")[:100]
    return f"{safe or 'point'}-{config_hash(config)[:6]}"  # 123456 alone would be read as a number


def versions() -> dict[str, str]:
    """Return the versions of what computes a result."""
    from importlib.metadata import version

    names = ("agebench", "lightning", "torch", "torchvision", "timm", "hydra-core", "torchmetrics", "numpy")
    return {name: version(name) for name in names}


def git_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, `-dirty` if it has changes; None elsewhere."""
    here = Path(__file__).parent
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
        tracked = subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.stdout.strip() if tracked.returncode == 0 else None
