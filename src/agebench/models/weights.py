"""Load weights from a local file, adapted to the network, or from the hub, with a readable error without network."""

import hashlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import safetensors.torch
import torch
from huggingface_hub import constants
from hydra.errors import InstantiationException
from torch import Tensor, nn

from agebench.errors import UserError
from agebench.models.classifier import classifier_layers

_PROBE_SECONDS = 5.0

# Packages whose exceptions mean that a download failed. Which of them raises depends on the version of huggingface_hub.
_NETWORK_PACKAGES = {"huggingface_hub", "hf_xet", "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib"}


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits of the SHA-256 of named tensors: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)  # NumPy has no bfloat16
    return digest.hexdigest()[:16]


def load_checkpoint(model: nn.Module, path: str | Path) -> str:
    """Load a local file into a network, and adapt the input channels and the classifier to the new task.

    The first convolution is adapted if only its number of input channels differs. The classifier keeps its initial
    weights if only its number of outputs differs or if the file has no classifier. All other tensors must match. timm
    resamples the position embeddings of its transformers to the image size.

    Args:
        model: The network, changed in place.
        path: A state dict (.pth, .pt, .safetensors), at the top level or under `state_dict` or `model`; or a checkpoint
            of a LightningModule whose network is the attribute `model`, such as the best.ckpt of a run.

    Returns:
        One sentence about the loaded tensors.

    Raises:
        UserError: If the file does not exist, holds no weights, or does not match the network.
    """
    path = Path(path)
    own = model.state_dict()
    state = _filter_by_timm(_network_state(_read(path), own, path), model)
    classifier = _classifier_keys(model)

    new: list[str] = []
    adapted = ""
    missing: list[str] = []
    reshaped: list[str] = []
    for key, tensor in own.items():
        if key not in state:
            if key in classifier:
                new.append(key)
            elif not key.endswith(".num_batches_tracked"):  # missing in files of PyTorch before 0.4.1
                missing.append(key)
            continue
        given = state[key]
        if given.shape == tensor.shape:
            continue
        if key in classifier and given.shape[1:] == tensor.shape[1:]:
            new.append(key)
            del state[key]
        elif not adapted and _differs_in_channels(model, key, given):
            state[key] = adapt_channels(given, tensor.shape[1])
            adapted = f"first convolution ({key}) adapted from {given.shape[1]} to {tensor.shape[1]} channels"
        else:
            reshaped.append(f"{key} {tuple(given.shape)} for {tuple(tensor.shape)}")
    # The file of GoogLeNet has auxiliary classifiers, which are None in a network without them.
    unexpected = [key for key in state if key not in own and getattr(model, key.split(".")[0], model) is not None]
    if missing or unexpected or reshaped:
        problems = [
            _list_keys("missing keys", missing),
            _list_keys("unexpected keys", unexpected),
            _list_keys("other shapes", reshaped),
        ]
        raise UserError(
            f"{path} does not match the network {type(model).__name__} ({'; '.join(filter(None, problems))}): set "
            "model.checkpoint_path to a file of the same architecture, and data.image_size to its training size"
        )

    loaded = {key: tensor for key, tensor in state.items() if key in own}
    model.load_state_dict(loaded, strict=False)  # the keys and shapes were checked above
    report = [f"loaded {len(loaded)} of {len(own)} tensors from {path}"]
    if new:
        report.append(f"classifier ({', '.join(new)}) new")
    if adapted:
        report.append(adapted)
    return "; ".join(report)


def adapt_channels(weight: Tensor, in_chans: int) -> Tensor:
    """Return the weight of a convolution for another number of input channels, as in timm.

    For one channel the old channels are summed. For more channels they are repeated, and scaled so that the outputs
    keep their magnitude.

    Args:
        weight: Shape (O, I, height, width).
        in_chans: The new number of channels, C.

    Returns:
        Shape (O, C, height, width).
    """
    old = weight.shape[1]
    if in_chans == 1:
        return weight.sum(dim=1, keepdim=True)  # (O, I, h, w) -> (O, 1, h, w)
    repeats = math.ceil(in_chans / old)
    return weight.repeat(1, repeats, 1, 1)[:, :in_chans] * (old / in_chans)  # (O, I, h, w) -> (O, C, h, w)


def create_pretrained(create: Callable[[], nn.Module], name: str) -> nn.Module:
    """Call create, which may download weights, and raise a readable error if the download fails.

    The hub is contacted once beforehand. If it does not respond, only cached weights are used, because the client of
    the hub retries for 47 s (measured with huggingface_hub 2.4 and timm 1.0.31).

    Args:
        create: Builds the network with its published weights, such as
            `partial(timm.create_model, name, pretrained=True)`.
        name: Name of the weights, for the message.

    Returns:
        The network.

    Raises:
        UserError: If the weights could not be downloaded, also if Hydra's instantiate wraps that error. All other
            errors are raised unchanged.
    """
    reachable = constants.HF_HUB_OFFLINE or _hub_responds()
    try:
        if reachable:
            return create()
        with _offline():
            return create()
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        if not _is_download_error(cause):
            raise
        reason = " ".join([f"{type(cause).__name__}:", *str(cause).splitlines()[:1]])
        if not reachable and type(cause).__module__.startswith("huggingface_hub"):
            reason = f"{constants.ENDPOINT} does not respond"
        raise UserError(
            f"could not download the weights of {name} ({reason}): connect to the network once, which stores them in "
            "the cache; or load a local file with model.checkpoint_path=<file> model.pretrained=false; or start from "
            "random weights with model.pretrained=false"
        ) from error


def _read(path: Path) -> Any:
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"model.checkpoint_path={path} {problem}: give a .pth, .pt, .ckpt or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    # For invalid files both readers raise exceptions of many types, such as KeyError and EOFError.
    except Exception as error:
        if "GLOBAL" in str(error):
            raise UserError(
                f"{path} contains Python objects other than tensors, and loading them could run code: if you trust the "
                "file, save only its state dict with torch.save(model.state_dict(), path)"
            ) from error
        raise UserError(
            f"{path} is not a checkpoint that PyTorch can read, or is truncated "
            f"({type(error).__name__}): give a .pth, .pt, .ckpt or .safetensors file"
        ) from error


def _network_state(contents: Any, own: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return only the tensors of the network, under the keys of its state dict."""
    state = contents
    for container in ("state_dict", "model"):
        if isinstance(contents, Mapping) and isinstance(contents.get(container), Mapping):
            state = contents[container]
            break
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        found = ", ".join(map(str, list(state)[:5])) if isinstance(state, Mapping) else type(state).__name__
        raise UserError(f"{path} contains no state dict, only {found or 'nothing'}: save model.state_dict() to a file")
    if any(key.startswith("model.") for key in state) and not any(key.startswith("model.") for key in own):
        state = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    for wrapper in ("module.", "_orig_mod."):  # prefixes of DistributedDataParallel and torch.compile
        if all(key.startswith(wrapper) for key in state):
            state = {key.removeprefix(wrapper): value for key, value in state.items()}
    return dict(state)


def _filter_by_timm(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict after timm's filter of the architecture: keys renamed, position embeddings resampled."""
    filter_fn = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if filter_fn is None:
        return state
    try:
        return dict(filter_fn(dict(state), model))
    except (KeyError, AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return state  # a file of another architecture, for which load_checkpoint raises an error


def _classifier_keys(model: nn.Module) -> set[str]:
    layers = classifier_layers(model)
    names = [name for name, module in model.named_modules() if any(module is layer for layer in layers)]
    return {f"{name}.{key}" for name in names for key in model.get_submodule(name).state_dict()}


def _differs_in_channels(model: nn.Module, key: str, given: Tensor) -> bool:
    name, _, kind = key.rpartition(".")
    layer = model.get_submodule(name)
    if kind != "weight" or not isinstance(layer, nn.Conv2d) or layer.groups != 1 or given.ndim != 4:
        return False
    return given.shape[0] == layer.weight.shape[0] and given.shape[2:] == layer.weight.shape[2:]


def _list_keys(title: str, keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{title} {', '.join(keys[:3])}{more}" if keys else ""


def _hub_responds() -> bool:
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=_PROBE_SECONDS)
    # The HTTP library, and so the exception type, depends on the version of huggingface_hub.
    except Exception:
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Context manager: the client of the hub uses only its cache."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _is_download_error(error: BaseException) -> bool:
    package = type(error).__module__.split(".")[0]
    return package in _NETWORK_PACKAGES or isinstance(error, ConnectionError | TimeoutError)
