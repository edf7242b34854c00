"""Where packed pixels are during training: on the GPU, in RAM, or on the disk."""

from typing import get_args

import psutil
import torch

from agebench.data.keys import Residency
from agebench.errors import UserError

RESIDENCIES = get_args(Residency)
GPU_SHARE = 0.4  # of the free GPU memory; the network and its activations need the rest
RAM_SHARE = 0.5  # of the available RAM; all processes share the pages, and the system can evict them


def choose_residency(residency: str, size: int, *, device: torch.device, num_workers: int) -> str:
    """Return where the pixels are during training: `gpu`, `ram` or `mapped`.

    Args:
        residency: `gpu`, `ram`, `mapped`, or `auto` for the first of them that fits.
        size: Number of bytes of the pixels in use.
        device: The training device.
        num_workers: Number of loader processes, which cannot gather on a GPU.

    Raises:
        UserError: If `gpu` is requested without a GPU or with workers.
    """
    on_gpu = device.type != "cpu"  # CUDA or another accelerator
    if residency == "gpu" and (not on_gpu or num_workers):
        raise UserError(
            f"data.residency=gpu needs training on a GPU with data.num_workers=0, got {device.type} with "
            f"{num_workers} workers: use data.residency=auto"
        )
    if residency == "gpu" or (residency == "auto" and on_gpu and not num_workers and size < GPU_SHARE * _free(device)):
        return "gpu"
    if residency == "auto":
        return "ram" if size < RAM_SHARE * psutil.virtual_memory().available else "mapped"
    return residency


def _free(device: torch.device) -> int:
    """Return the free bytes of device memory; 0 if unknown, or if the device shares the RAM, as on Apple silicon."""
    mem_get_info = getattr(torch.get_device_module(device), "mem_get_info", None)
    return int(mem_get_info(device)[0]) if mem_get_info else 0
