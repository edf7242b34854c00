"""What a training says: what it is about to do, and what came of it."""

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig

from agebench.data.datamodule import ImageDataModule
from agebench.leakage.audit import audit, verdict
from agebench.leakage.seen_in_training import tell_leak
from agebench.metrics.table import find
from agebench.models.summary import summarise_model
from agebench.module import ImageModule

log = logging.getLogger(__name__)


def device_name(trainer: L.Trainer) -> str:
    """Return what a trainer trains on."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{trainer.world_size} x {name}" if trainer.world_size > 1 else name


def announce(cfg: DictConfig, data: ImageDataModule, module: ImageModule, trainer: L.Trainer) -> None:
    """Tell of the data, the network and the machine, and warn of people who are on two sides of the split."""
    counts = ", ".join(f"{part} {count:,}" for part, count in data.counts.items())
    log.info("data      %s: %s images of %d labels", data.protocol, counts, data.target.num_labels)
    audited = audit(data.records, data.target, data.split)
    if audited["test_identity_in_train"] or audited["val_identity_in_train"]:
        log.warning("data/split=%s %s", data.split.name, verdict(audited))
    shape = (data.channels, data.image_size, data.image_size)
    log.info("model\n%s", summarise_model(module.model, shape))
    log.info(
        "training  on %s (%d CPU threads), precision %s, %d images a step, %s steps an epoch",
        device_name(trainer),
        torch.get_num_threads(),
        cfg.trainer.precision,
        data.batch_size,
        f"{data.steps_per_epoch:,}",
    )


def tell(results: dict[str, Any], run_dir: Path) -> None:
    """Tell the main test figures with their intervals and, if the split leaks, what they must be compared with."""
    intervals = results["intervals"]
    for name, value in results["metrics"].items():
        if not find(name).headline:
            continue
        low_high = f"  [{intervals[name][0]:.4f}, {intervals[name][1]:.4f}]" if name in intervals else ""
        log.info("%-16s %.4f%s", name, value, low_high)
    if results["leak"]:
        log.info("%s", tell_leak(results["leak"]))
    log.info("written to %s", run_dir)
