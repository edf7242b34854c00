"""Where weights come from: a local file, fitted to the network, or the hub, with a way out when it is out of reach."""

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

# The packages whose exceptions tell of a download; which of them it is depends on the version of huggingface_hub.
_NETWORK_PACKAGES = {"huggingface_hub", "hf_xet", "httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib"}


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits of the SHA-256 of named tensors: names, types, shapes and every bit of their values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)  # NumPy has no bfloat16
    return digest.hexdigest()[:16]


def load_checkpoint(model: nn.Module, path: str | Path) -> str:
    """Load a local file into a network, adapting what another task changes: input channels and classifier.

    The first convolution is adapted when only its number of input channels differs, and the classifier keeps its new
    weights when only its number of outputs differs or the file has none. Everything else must match. timm's
    transformers have their position tables resampled to the image size, by timm.

    Args:
        model: The network, changed in place.
        path: A state dict (.pth, .pt, .safetensors), bare or below `state_dict` or `model`; or a checkpoint of a
            LightningModule that keeps its network as `model`, such as a run's best.ckpt.

    Returns:
        One sentence that says what was loaded.

    Raises:
        UserError: If there is no such file, it holds no weights, or a mismatch has no explanation.
    """
    path = Path(path)
    own = model.state_dict()
    state = _as_timm_reads_it(_network_state(_read(path), own, path), model)
    classifier = _classifier_keys(model)

    fresh: list[str] = []
    adapted = ""
    missing: list[str] = []
    reshaped: list[str] = []
    for key, tensor in own.items():
        if key not in state:
            if key in classifier:
                fresh.append(key)
            elif not key.endswith(".num_batches_tracked"):  # which files from before PyTorch 0.4.1 lack
                missing.append(key)
            continue
        given = state[key]
        if given.shape == tensor.shape:
            continue
        if key in classifier and given.shape[1:] == tensor.shape[1:]:
            fresh.append(key)
            del state[key]
        elif not adapted and _differs_in_channels(model, key, given):
            state[key] = adapt_channels(given, tensor.shape[1])
            adapted = f"first convolution ({key}) adapted from {given.shape[1]} to {tensor.shape[1]} channels"
        else:
            reshaped.append(f"{key} {tuple(given.shape)} for {tuple(tensor.shape)}")
    # GoogLeNet's auxiliary classifiers are in its file, and None in a network without them.
    surplus = [key for key in state if key not in own and getattr(model, key.split(".")[0], model) is not None]
    if missing or surplus or reshaped:
        complaints = [
            _first("lacks", missing),
            _first("has beyond it", surplus),
            _first("has in another shape", reshaped),
        ]
        raise UserError(
            f"{path} does not fit the network {type(model).__name__}: the file {'; '.join(filter(None, complaints))}: "
            "give model.checkpoint_path a file of the same architecture, and the data.image_size it was trained at"
        )

    loaded = {key: tensor for key, tensor in state.items() if key in own}
    model.load_state_dict(loaded, strict=False)  # compared above, key by key
    report = [f"loaded {len(loaded)} of {len(own)} tensors from {path}"]
    if fresh:
        report.append(f"classifier ({', '.join(fresh)}) new")
    if adapted:
        report.append(adapted)
    return "; ".join(report)


def adapt_channels(weight: Tensor, in_chans: int) -> Tensor:
    """Return a convolution's weight for another number of input channels, as timm does it for pretrained ones.

    One channel gets the sum over all old ones; more get them in turn, scaled so that the outputs keep their size.

    Args:
        weight: Shape (O, I, height, width).
        in_chans: The new number of channels, C.

    Returns:
        Shape (O, C, height, width).
    """
    old = weight.shape[1]
    if in_chans == 1:
        return weight.sum(dim=1, keepdim=True)  # (O, I, h, w) -> (O, 1, h, w)
    turns = math.ceil(in_chans / old)
    return weight.repeat(1, turns, 1, 1)[:, :in_chans] * (old / in_chans)  # (O, I, h, w) -> (O, C, h, w)


def create_pretrained(create: Callable[[], nn.Module], name: str) -> nn.Module:
    """Call create, which may download weights, and explain a download that fails.

    Offline, the hub's client would retry for 47 s before it gave up (measured with huggingface_hub 2.4 and timm
    1.0.31). So the hub is asked once, and if it does not answer, only what was downloaded before is used.

    Args:
        create: Makes the network with its published weights, as `partial(timm.create_model, name, pretrained=True)`.
        name: What the weights are called, for the message.

    Returns:
        What create returns. Errors that Hydra's instantiate has wrapped are looked into.

    Raises:
        UserError: If the weights could not be downloaded; any other error passes through.
    """
    reachable = constants.HF_HUB_OFFLINE or _hub_answers()
    try:
        if reachable:
            return create()
        with _offline():
            return create()
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        if not _tells_of_a_download(cause):
            raise
        reason = " ".join([f"{type(cause).__name__}:", *str(cause).splitlines()[:1]])
        if not reachable and type(cause).__module__.startswith("huggingface_hub"):
            reason = f"{constants.ENDPOINT} does not answer"
        raise UserError(
            f"could not download the weights of {name} ({reason}): connect to the network once, after which they are "
            "kept on disk; or give a file you have with model.checkpoint_path=<file> model.pretrained=false; or start "
            "from random weights with model.pretrained=false"
        ) from error


def _read(path: Path) -> Any:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"model.checkpoint_path={path} {what}: give a .pth, .pt, .ckpt or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    # Bytes that are no checkpoint make the two readers raise anything, KeyError and EOFError included.
    except Exception as error:
        if "GLOBAL" in str(error):
            raise UserError(
                f"{path} holds Python objects beside its tensors, which could run code when opened: save the state "
                "dict alone, torch.save(model.state_dict(), path), where you trust the file"
            ) from error
        raise UserError(
            f"{path} is no checkpoint that PyTorch can read, or is cut short "
            f"({type(error).__name__}): give a .pth, .pt, .ckpt or .safetensors file"
        ) from error


def _network_state(contents: Any, own: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors of the network alone, under its own names."""
    state = contents
    for container in ("state_dict", "model"):
        if isinstance(contents, Mapping) and isinstance(contents.get(container), Mapping):
            state = contents[container]
            break
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        found = ", ".join(map(str, list(state)[:5])) if isinstance(state, Mapping) else type(state).__name__
        raise UserError(f"{path} holds no state dict, only {found or 'nothing'}: save model.state_dict() and give that")
    if any(key.startswith("model.") for key in state) and not any(key.startswith("model.") for key in own):
        state = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    for wrapper in ("module.", "_orig_mod."):  # of DistributedDataParallel and torch.compile
        if all(key.startswith(wrapper) for key in state):
            state = {key.removeprefix(wrapper): value for key, value in state.items()}
    return dict(state)


def _as_timm_reads_it(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Let timm rename an architecture's published keys and resample its position tables, where it knows how."""
    reader = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if reader is None:
        return state
    try:
        return dict(reader(dict(state), model))
    except (KeyError, AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return state  # a file of another architecture: the comparison will say so


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


def _first(verb: str, keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{verb} {', '.join(keys[:3])}{more}" if keys else ""


def _hub_answers() -> bool:
    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=_PROBE_SECONDS)
    # Which library the session belongs to, and so what it raises, changes with the version.
    except Exception:
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Let the hub's client look on the disk only."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _tells_of_a_download(error: BaseException) -> bool:
    package = type(error).__module__.split(".")[0]
    return package in _NETWORK_PACKAGES or isinstance(error, ConnectionError | TimeoutError)
