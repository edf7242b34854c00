"""Where packed pixels are while training: on the GPU, in RAM, or left on the disk."""

import psutil
import torch

from agebench.errors import UserError

RESIDENCIES = ("auto", "gpu", "ram", "mapped")
GPU_SHARE = 0.4  # of the free GPU memory; the network and its activations need the rest
RAM_SHARE = 0.5  # of the available RAM: pages that all processes share, and that make way when memory runs short


def choose_residency(wanted: str, size: int, *, device: torch.device, num_workers: int) -> str:
    """Return `gpu`, `ram` or `mapped`.

    Args:
        wanted: One of those, or `auto` for the first that fits.
        size: Bytes of the pixels in use.
        device: What trains.
        num_workers: Loader processes; they cannot gather on a GPU.

    Raises:
        UserError: If `gpu` is wanted where it cannot be.
    """
    on_gpu = device.type != "cpu"  # CUDA or another maker's
    if wanted == "gpu" and (not on_gpu or num_workers):
        raise UserError(
            f"data.residency=gpu needs training on a GPU with data.num_workers=0, and this is {device.type} with "
            f"{num_workers} workers: use data.residency=auto"
        )
    if wanted == "gpu" or (wanted == "auto" and on_gpu and not num_workers and size < GPU_SHARE * _free(device)):
        return "gpu"
    if wanted == "auto":
        return "ram" if size < RAM_SHARE * psutil.virtual_memory().available else "mapped"
    return wanted


def _free(device: torch.device) -> int:
    """Return the free bytes of a device's own memory: 0 if it has none (Apple's shares the RAM) or does not tell."""
    told = getattr(torch.get_device_module(device), "mem_get_info", None)
    return int(told(device)[0]) if told else 0
