"""Build Lightning's Trainer, its callbacks and its loggers from a composed config."""

import re
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from omegaconf import DictConfig

from agebench.accelerators import NAMES, not_available
from agebench.batch_bar import BatchBar
from agebench.build.monitor import watched
from agebench.errors import UserError
from agebench.training.callbacks import EpochTable, OwnSigterm, Progress, Speed
from agebench.training.checkpoints import AtomicCheckpointIO, LastCheckpoint
from agebench.training.sweep_progress import SweepProgress

# Callbacks of Lightning that cannot work here, or whose results would not be those of the tested checkpoint.
REPLACED = {
    "BackboneFinetuning": ("the module has no `backbone`", "set finetune=head_then_all"),
    "BatchSizeFinder": ("it changes the batch size of the data module", "set data.batch_size=auto"),
    "LearningRateFinder": ("the module has no attribute `lr`", "set lr_find=true"),
    "RichProgressBar": ("agebench has its own bar", "remove it"),
    "StochasticWeightAveraging": ("its average is neither validated nor stored", "set swa.start=0.75"),
    "TQDMProgressBar": ("agebench has its own bar", "remove it"),
}


def make_trainer(
    cfg: DictConfig,
    run_dir: Path,
    callbacks: Sequence[Callback],
    *,
    speed: Speed,
    table: EpochTable,
    progress: Connection | None,
) -> L.Trainer:
    """Return the trainer of a config.

    Args:
        cfg: The composed config.
        run_dir: The run directory.
        callbacks: The callbacks of the config.
        speed: Callback that measures the speed.
        table: Callback that stores the metrics of each epoch.
        progress: Connection to the sweep that this training is a point of, or None.

    Raises:
        UserError: If Lightning rejects the keys under `trainer`.
    """
    loggers = build_loggers(cfg, run_dir)
    bar = cfg.callbacks.get("progress")
    chosen = [*callbacks, speed, table, OwnSigterm()]
    if bar:
        chosen += [Progress(speed, refresh_rate=bar.refresh_rate), BatchBar()]
    if progress is not None:
        chosen.append(SweepProgress(progress, speed))
    if not loggers:
        chosen = [each for each in chosen if not isinstance(each, LearningRateMonitor)]
    plugins: dict[str, Any] = {} if cfg.trainer.get("plugins") else {"plugins": [AtomicCheckpointIO(run_dir)]}
    try:
        trainer: L.Trainer = instantiate(
            cfg.trainer,
            **plugins,
            max_time=None,  # see agebench.training.pace
            callbacks=chosen,
            logger=loggers or False,
            default_root_dir=str(run_dir),
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # the loader distributes each image to one device
        )
    except Exception as error:
        cause, name = error.__cause__ or error, str(cfg.trainer.accelerator)
        if name in NAMES and re.search("No supported gpu backend|accelerator is not available", str(cause)):
            raise UserError(not_available("trainer.accelerator", name)) from error
        raise UserError(f"trainer: {str(cause).strip().splitlines()[0]}") from error
    return trainer


def build_callbacks(cfg: DictConfig, run_dir: Path, *, monitor: str, mode: str) -> list[Any]:
    """Return the enabled callbacks of conf/callbacks. `monitor: auto` becomes the monitored metric.

    Raises:
        UserError: If one of Lightning's callbacks cannot be used.
    """
    callbacks: list[Any] = []
    for name, node in cfg.callbacks.items():
        if node is None or "_target_" not in node:
            continue
        _check_callback(str(node["_target_"]))
        if name == "early_stopping" and node.patience is None:
            continue
        changes = watched(node, monitor=monitor, mode=mode)
        if name == "checkpoint":
            changes |= {"dirpath": str(run_dir / "checkpoints"), "save_last": False}
            if node.get("save_last"):  # agebench's callback saves between two epochs, and must be the first
                callbacks.insert(0, LastCheckpoint(run_dir / "checkpoints" / "last.ckpt"))
        callbacks.append(instantiate(node, _convert_="all", **changes))
    return callbacks


def _check_callback(target: str) -> None:
    package, _, name = target.rpartition(".")
    if package.startswith(("lightning.", "pytorch_lightning.")) and name in REPLACED:
        why, instead = REPLACED[name]
        raise UserError(f"the callback {name} cannot be used with agebench ({why}): {instead}")


def build_loggers(cfg: DictConfig, run_dir: Path) -> list[Any]:
    """Return the loggers of conf/logger. `save_dir: auto` becomes the run directory."""
    nodes = [n for n in (cfg.logger or {}).values() if n is not None and "_target_" in n]
    return [instantiate(n, **({"save_dir": str(run_dir)} if n.get("save_dir") == "auto" else {})) for n in nodes]
