"""Run `agebench train` on a simulated accelerator, which computes on the CPU.

Its tensors have values, unlike torch's fake tensors. Like a GPU, it raises an error for an operation on tensors of both
devices, and it allows zero-dimensional tensors and indices from the CPU. Speed, streams and kernels are not simulated.

Usage: python pretended_gpu.py FREE_BYTES ARGUMENTS_OF_TRAIN. The last line printed is the number of pixel bytes sent.
"""

import sys
from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.strategies import SingleDeviceStrategy, StrategyRegistry
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXING = {aten.index.Tensor, aten.index_put_.default}
free_bytes = 0
pixels_sent = 0


class Backend(_DummyBackendModule):
    """The functions that torch calls for a device type."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return []

    def mem_get_info(self, device: torch.device) -> tuple[int, int]:
        return free_bytes, free_bytes


_setup_privateuseone_for_python_backend("pretended", backend_module=Backend())
DEVICE = torch.device("pretended:0")


class There(torch.Tensor):
    """A tensor on the device; `kept` is the CPU tensor with its values."""

    kept: torch.Tensor

    @staticmethod
    def __new__(cls, kept: torch.Tensor) -> "There":
        there = torch.Tensor._make_wrapper_subclass(
            cls, kept.shape, kept.stride(), kept.storage_offset(), dtype=kept.dtype, device=DEVICE
        )
        there.kept = kept
        return there

    def tolist(self) -> Any:
        return self.kept.tolist()  # torch does not support it for subclasses

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.kept.__reduce_ex__(protocol)  # for checkpoints

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(operation, args, kwargs or {})


def run(operation: Any, args: Any, kwargs: Any) -> Any:
    global pixels_sent
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    given = {id(inside(tensor)): tensor for tensor in tensors}
    there = [tensor for tensor in tensors if isinstance(tensor, There)]
    here = [tensor for tensor in tensors if not isinstance(tensor, There)]
    mixed = bool(there) and any(tensor.dim() for tensor in here)
    if mixed and not (operation in COPIES or (operation in INDEXING and isinstance(args[0], There))):
        raise RuntimeError(f"{operation} was given tensors of two devices")
    result = operation(*tree_map(inside, args), **tree_map(inside, kwargs))
    to = kwargs.get("device")
    if to is not None and to.type == DEVICE.type:
        pixels_sent += sum(tensor.nbytes for tensor in here if tensor.dtype == torch.uint8)
    elif to is not None or not there:
        return result
    # An in-place operation returns the same tensor.
    return tree_map(lambda x: given.get(id(x), There(x)) if isinstance(x, torch.Tensor) else x, result)


def inside(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.kept if isinstance(value, There) else value


class Mode(TorchDispatchMode):
    """Intercepts operations that create a tensor on the device."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(operation, args, kwargs or {})


class PretendedGPU(Accelerator):
    """The functions that Lightning calls."""

    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [DEVICE]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "pretended"


if __name__ == "__main__":
    free_bytes = int(sys.argv.pop(1))
    sys.argv += ["trainer.accelerator=pretended", "trainer.strategy=pretended", "trainer.inference_mode=false"]
    AcceleratorRegistry.register("pretended", PretendedGPU, description="")
    StrategyRegistry.register("pretended", SingleDeviceStrategy, device=DEVICE)
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)

    from agebench.train import main

    with Mode():
        main()
    print(pixels_sent)
