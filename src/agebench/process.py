"""Set-up of a process that trains or tests: seed, precision, and which of Lightning's messages are shown."""

import logging
import os
import warnings

import lightning as L
import torch

REPEATED_AT_EVERY_RUN = (
    ".*treespec.*",
    ".*smaller than the logging interval.*",
    ".*does not have many workers.*",
    "Checkpoint directory .* exists and is not empty.*",
    ".*`dataloader_iter`.*",
)


def set_up_process(*, seed: int, matmul_precision: str) -> None:
    """Seed everything, set the precision of float32 matrix products, and hide Lightning's routine messages."""
    hide_routine_messages()
    L.seed_everything(seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision(matmul_precision)
    if not torch.cuda.device_count():
        # Lightning sets it; torch then looks for NVML's library at every optimizer step, 0.15 ms each.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def hide_routine_messages() -> None:
    """Hide what Lightning reports at every run; its warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in REPEATED_AT_EVERY_RUN:
        warnings.filterwarnings("ignore", message=message)
