"""All parts of one training: data, module and trainer, built from a config."""

from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import lightning as L
from omegaconf import DictConfig

from agebench.build.module import build_data, build_module, training_length
from agebench.build.monitor import build_monitor
from agebench.build.teacher import build_teacher
from agebench.data.datamodule import ImageDataModule
from agebench.module import ImageModule
from agebench.runs.description import DataDescription
from agebench.training.callbacks import EpochTable, Speed, skip_idle_hooks
from agebench.training.compile_report import CompileReport
from agebench.training.fast_loop import MultiStepModule, PlateauUpdate, can_multi_step
from agebench.training.pace import Pace, seconds_of
from agebench.training.tensorboard import RunTensorBoard
from agebench.training.trackers import RunAim, RunMlflow, RunTrackio, RunWandb
from agebench.training.trainer import build_callbacks, make_trainer


@dataclass(frozen=True)
class Training:
    """All parts of one training."""

    cfg: DictConfig
    config: Mapping[str, Any]  # cfg as plain data
    run_dir: Path
    data: ImageDataModule
    description: DataDescription
    module: ImageModule
    trainer: L.Trainer
    monitor: str
    mode: str
    speed: Speed
    table: EpochTable

    @property
    def boards(self) -> list[RunTensorBoard | RunMlflow | RunWandb | RunTrackio | RunAim]:
        """Return the loggers that show hyperparameters and figures."""
        shown = (RunTensorBoard, RunMlflow, RunWandb, RunTrackio, RunAim)
        return [logger for logger in self.trainer.loggers if isinstance(logger, shown)]


def build_training(
    cfg: DictConfig, config: Mapping[str, Any], run_dir: Path, *, progress: Connection | None
) -> Training:
    """Return data, module and trainer of a config. Images that are not in the cache are packed."""
    data = build_data(cfg)
    monitor, mode = build_monitor(cfg, unit=data.plan.target.unit)
    callbacks = build_callbacks(cfg, run_dir, monitor=monitor, mode=mode)
    multi = can_multi_step(cfg, callbacks)
    if multi:
        callbacks.insert(0, PlateauUpdate())
    speed, table = Speed(), EpochTable(run_dir / "metrics.csv")
    if cfg.compile:
        callbacks.append(CompileReport(cfg.compile, speed, (data.batch_size, *data.image_shape)))
    module = build_module(cfg, data, kind=MultiStepModule if multi else ImageModule)
    module.teacher = build_teacher(cfg, data.plan)
    rest = cast(MultiStepModule, module).take_over(cfg) if multi else cfg
    if module.first_epochs and _uses_ddp(cfg.trainer):
        rest = cfg.copy()
        rest.trainer.strategy = "ddp_find_unused_parameters_true"  # frozen parameters get no gradient
    trainer = make_trainer(rest, run_dir, callbacks, speed=speed, table=table, progress=progress)
    if cfg.trainer.max_time is not None:
        module.pace = _make_pace(cfg, data, speed)
    skip_idle_hooks(module, trainer.callbacks)  # type: ignore[attr-defined]  # set by its connector
    description = DataDescription.of(data.plan)
    return Training(cfg, config, run_dir, data, description, module, trainer, monitor, mode, speed, table)


def _make_pace(cfg: DictConfig, data: ImageDataModule, speed: Speed) -> Pace:
    epochs, steps = training_length(cfg, data)
    images = (data.batch_size * cfg.trainer.accumulate_grad_batches, len(data.part("val")), len(data.part("test")))
    return Pace(
        seconds_of(cfg.trainer.max_time), steps=epochs * steps, steps_per_epoch=steps, speed=speed, images=images
    )


def _uses_ddp(trainer: DictConfig) -> bool:
    several = (isinstance(trainer.devices, int) and trainer.devices != 1) or trainer.num_nodes > 1
    return trainer.strategy == "ddp" or (trainer.strategy == "auto" and several)
