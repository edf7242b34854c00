"""Short trainings of a module that is thrown away. They write nothing, and change nothing in a later training."""

from collections.abc import Sequence
from typing import Any, cast

import lightning as L
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from agebench.build.module import build_module
from agebench.build.teacher import build_teacher
from agebench.data.datamodule import ImageDataModule
from agebench.module import ImageModule
from agebench.process import set_up_process
from agebench.step_check import StepCheck
from agebench.training.callbacks import skip_idle_hooks
from agebench.training.fast_loop import MultiStepModule, can_multi_step


class Probe(ImageModule):
    """An ImageModule that logs no epoch."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Do nothing. A loss that is not finite is no error here."""


class FastProbe(Probe, MultiStepModule):
    """A Probe that runs several steps in each call."""


def run_probe(
    cfg: DictConfig, data: ImageDataModule, callback: Callback, *, steps: int, fast: bool = False
) -> L.LightningModule:
    """Train a new module without schedule, averages, validation and files, and return it.

    Optimizer, head, augmentation, precision, gradient clipping and accumulation are those of the config.

    Args:
        cfg: The composed config.
        data: The data.
        callback: The only callback. It may end the training with `trainer.should_stop`.
        steps: Largest number of optimizer steps.
        fast: Whether to run several steps in each call, if the config allows it.
    """
    set_up_process(seed=cfg.seed, matmul_precision=cfg.matmul_precision)
    multi = fast and can_multi_step(cfg, [])
    module = build_module(cfg, data, kind=FastProbe if multi else Probe)
    module.scheduler = module.averaging = None
    module.check = StepCheck("skip")  # the callback decides what a loss that is not finite means
    module.teacher = build_teacher(cfg, data.plan)
    callbacks: Sequence[Callback] = [callback]
    trainer: L.Trainer = instantiate(
        (cast(MultiStepModule, module).take_over(cfg) if multi else cfg).trainer,
        max_epochs=-1,
        max_steps=steps,
        max_time=None,
        min_epochs=None,
        min_steps=None,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        profiler=None,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    skip_idle_hooks(module, callbacks)
    trainer.fit(module, datamodule=data)
    return module
