"""A run directory: what a run is called, what decides its result, and the files that tell how it went."""

import csv
import hashlib
import json
import math
import os
import re
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agebench.errors import UserError

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
    # Where a named data set lies does not change it; a folder or a table of one's own IS what its path says.
    own = str(flat.get("data.source._target_", "")).rpartition(".")[2] in ("Folder", "Table")
    for key in ("data.root", "data.source.root"):
        path = kept.pop(key, None)
        if own and path is not None:
            kept[key] = str(Path(str(path)).absolute())
    for key in (f"data.split.{name}" for name in ("file", "train", "val", "test")):  # so are lists of one's own
        if isinstance(kept.get(key), str):
            kept[key] = str(Path(kept[key]).absolute())
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]


def has_effect(key: str) -> bool:
    """Return whether a config key, dotted, may change a run's result."""
    return not any(key == without or key.startswith(f"{without}.") for without in WITHOUT_EFFECT)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


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


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all; NaN and infinities, which JSON does not know, become null."""
    text = json.dumps(_finite(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file, UTF-8, whole or not at all."""
    with whole(path) as part, part.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(columns)
        writer.writerows(rows)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a file of this thread's own to write, which then takes the place of `path`, or goes if writing failed."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_config(folder: Path, config: Any) -> None:
    """Write .hydra/ as Hydra does: the composed config, Hydra's own part of it, and what was typed."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    (folder / ".hydra").mkdir(exist_ok=True)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        OmegaConf.save(OmegaConf.create({"hydra": hydra}), folder / ".hydra" / "hydra.yaml")
        OmegaConf.save(OmegaConf.create(list(hydra.overrides.task)), folder / ".hydra" / "overrides.yaml")


def read_results(folder: Path) -> dict[str, Any]:
    """Return a run's results.json.

    Raises:
        UserError: If the folder is not a run.
    """
    try:
        results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"{folder} is not a run: it has no readable results.json; give a folder that train wrote"
        ) from error
    return results


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


def is_first_process() -> bool:
    """Return whether this process is the one of its run that writes files (rank 0 under DDP)."""
    ranks = (os.environ.get(name, "0") for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return all(rank in ("", "0") for rank in ranks)
