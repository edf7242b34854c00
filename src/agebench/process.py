"""Set up a process that trains or tests: seed, precision, and Lightning's messages."""

import logging
import os
import warnings

import lightning as L
import torch

ROUTINE_WARNINGS = (
    ".*treespec.*",
    ".*smaller than the logging interval.*",
    ".*does not have many workers.*",
    "Checkpoint directory .* exists and is not empty.*",
    ".*`dataloader_iter`.*",
    ".*overriding `LightningModule.optimizer_.*",
)


def set_up_process(*, seed: int, matmul_precision: str) -> None:
    """Seed everything, set the precision of float32 matrix products, and hide Lightning's routine messages."""
    hide_routine_messages()
    L.seed_everything(seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision(matmul_precision)
    if not torch.cuda.device_count():
        # Lightning sets it to 1; torch then searches for NVML's library at every optimizer step, which takes 0.15 ms.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def hide_routine_messages() -> None:
    """Hide the messages that Lightning logs in every run, and keep other warnings."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in ROUTINE_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
