"""Which accelerators this machine lacks, found without torch, whose import takes seconds."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

NAMES = {"gpu": "GPU", "cuda": "CUDA GPU", "mps": "Apple GPU", "tpu": "TPU"}
# Present if a driver is loaded: of NVIDIA, of NVIDIA's Jetson, of AMD, and that of WSL.
DEVICE_FILES = ("nvidia*", "nvmap", "kfd", "dxg")
WINDOWS_DRIVERS = ("nvcuda.dll", "amdhip64*.dll")


def is_missing(name: str, *, devices: Path = Path("/dev")) -> bool:
    """Return whether this machine certainly has no such accelerator. False may also mean that it is unknown.

    Args:
        name: A name of Lightning, such as `gpu`.
        devices: The folder of device files on Linux.
    """
    if name == "tpu":
        return find_spec("torch_xla") is None
    if name == "mps":
        return sys.platform != "darwin"
    if name not in ("gpu", "cuda"):
        return False
    if sys.platform == "darwin":
        return name == "cuda"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or _is_cpu_build():
        return True
    if sys.platform == "win32":
        system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32")
        return not any(any(system.glob(driver)) for driver in WINDOWS_DRIVERS)
    return sys.platform == "linux" and not any(any(devices.glob(file)) for file in DEVICE_FILES)


def _is_cpu_build() -> bool:
    try:
        return version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False


def not_available(key: str, name: str) -> str:
    """Return the sentence about a key that asks for an accelerator that this machine does not have."""
    needed = "torch_xla is installed" if name == "tpu" else "its driver and a PyTorch for it are installed"
    return f"no {NAMES[name]} is available here: leave {key} out (auto), or check that {needed} ({key}={name})"
