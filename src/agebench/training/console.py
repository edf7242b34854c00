"""Log messages before the first training step and after the test."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import DictConfig

from agebench.data.datamodule import ImageDataModule
from agebench.files import write_csv
from agebench.leakage.audit import verdict
from agebench.leakage.seen_in_training import leak_sentence
from agebench.metrics.table import find
from agebench.models.parameter_groups import COLUMNS, describe_first_epochs, describe_groups, tabulate_parameters
from agebench.models.summary import Summary
from agebench.module import ImageModule
from agebench.runs.description import log_decision, no_better_than_guessing, unknown_people

log = logging.getLogger(__name__)


def device_name(trainer: L.Trainer) -> str:
    """Return the name of the device that a trainer uses."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{trainer.world_size} x {name}" if trainer.world_size > 1 else name


def log_start(
    cfg: DictConfig, data: ImageDataModule, summary: Summary, trainer: L.Trainer, *, audited: Mapping[str, Any]
) -> None:
    """Log data, network and device, and warn if train shares identities with val or test.

    Args:
        cfg: The composed config.
        data: The data.
        summary: The layers of the network.
        trainer: The trainer.
        audited: The audit of the split, see agebench.leakage.audit.
    """
    counts = ", ".join(f"{part} {count:,}" for part, count in data.plan.counts.items())
    log.info("data      %s: %s images of %d labels", data.plan.protocol, counts, data.plan.target.num_labels)
    if audited["test_identity_in_train"] or audited["val_identity_in_train"]:
        log.warning("data/split=%s %s", data.plan.split.name, verdict(audited))
    log.info("model\n%s", summary.text)
    log.info(
        "training  on %s (%d CPU thread%s), precision %s, %d images a step, %s steps an epoch",
        device_name(trainer),
        torch.get_num_threads(),
        "s" if torch.get_num_threads() > 1 else "",
        cfg.trainer.precision,
        data.batch_size,
        f"{data.steps_per_epoch:,}",
    )
    if extras := describe_extras(cfg):
        log.info("with      %s", extras)


def warn_if_busy(trainer: L.Trainer) -> None:
    """Warn if other programs use the cores of this machine, which all but stops a training with several threads."""
    threads = torch.get_num_threads()
    if trainer.strategy.root_device.type != "cpu" or threads == 1 or not hasattr(os, "getloadavg"):
        return
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores:
        log.warning(
            "other programs use this machine (load %.1f on %d cores): training with %d threads may be many times "
            "slower than with OMP_NUM_THREADS=1",
            load,
            cores,
            threads,
        )


def describe_extras(cfg: DictConfig) -> str:
    """Return what a config adds to plain training, in one line: mixing, averages, a teacher, a limit of time."""
    mixing = [f"augment.{name}={cfg.augment[name]}" for name in ("mixup", "cutmix") if cfg.augment[name] is not None]
    found = [f"{' or '.join(mixing)} for {cfg.augment.mix_probability:.0%} of the batches"] if mixing else []
    if cfg.ema.decay is not None:
        found.append(f"the moving average of the weights (ema.decay={cfg.ema.decay}), which is tested")
    if cfg.swa.start is not None:
        found.append(f"the average of the weights from swa.start={cfg.swa.start} on, which is tested")
    if cfg.teacher.run is not None:
        found.append(f"the teacher {cfg.teacher.run} (weight {cfg.teacher.weight})")
    if cfg.trainer.max_time is not None:
        found.append(f"at most trainer.max_time={cfg.trainer.max_time}")
    return "; ".join(found)


def write_parameters(path: Path, optim: Any, module: ImageModule) -> None:
    """Write params.csv, the rate and weight decay of each parameter, and log a line about the groups.

    Args:
        path: The file.
        optim: The config of the optimizer.
        module: The LightningModule.
    """
    decay = optim.get("weight_decay") or 0.0
    first_epochs = {f"model.{name}": epoch for name, epoch in module.first_epochs.items()}
    rows = tabulate_parameters(
        module.named_parameters(),
        module.parameter_groups(),
        lr=optim.lr,
        weight_decay=decay,
        first_epochs=first_epochs,
    )
    write_csv(path, COLUMNS, rows)
    if line := describe_first_epochs(rows):
        log.info("finetune  %s", line)
    if line := describe_groups(rows):
        log.info("groups    %s", line)


def log_early_stop(trainer: L.Trainer) -> None:
    """Log after which epoch and why early stopping ended the training, if it did."""
    every_epoch = trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch == 1
    for each in trainer.callbacks:  # type: ignore[attr-defined]  # set by its connector
        if not isinstance(each, EarlyStopping) or each.stopping_reason_message is None:
            continue
        if each.stopped_epoch + 1 != trainer.current_epoch or trainer.current_epoch == trainer.max_epochs:
            continue
        why = each.stopping_reason_message.removesuffix(" Signaling Trainer to stop.")
        if each.wait_count >= each.patience:
            why = f"{each.monitor} did not improve for {each.wait_count} {'epoch' if every_epoch else 'validation'}"
            why += "s" if each.wait_count > 1 else ""
        log.info("stopped early after epoch %d: %s", trainer.current_epoch, why)


def log_results(results: Mapping[str, Any], run_dir: Path, *, losses: Sequence[float]) -> None:
    """Log the main test metrics with their intervals and, if the split leaks, the scores of an identity lookup.

    Args:
        results: The content of results.json.
        run_dir: The run directory.
        losses: The training loss of each epoch.
    """
    intervals = results["intervals"]
    for name, value in results["metrics"].items():
        if not find(name).headline:
            continue
        low_high = f"  [{intervals[name][0]:.4f}, {intervals[name][1]:.4f}]" if name in intervals else ""
        log.info("%-16s %.4f%s", name, value, low_high)
    if results["leak"]:
        log.info("%s", leak_sentence(results["leak"]))
    elif sentence := unknown_people(results):
        log.warning("%s", sentence)
    if sentence := no_better_than_guessing(results, losses):
        log.warning("%s", sentence)
    log_decision(results)
    log.info("written to %s", run_dir)
