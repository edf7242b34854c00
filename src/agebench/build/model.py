"""Build the network of a config, load its weights, and build its normalisation."""

import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from agebench.build.nodes import find_target, plain_node
from agebench.contract import named, require_outputs
from agebench.data.datamodule import ImageDataModule
from agebench.errors import FailedError, UserError, is_out_of_memory, one_line_message
from agebench.models.classifier import start_classifier
from agebench.models.minimum_size import check_patches, smallest_size
from agebench.models.normalise import Normalise
from agebench.models.weights import create_pretrained, load_checkpoint
from agebench.user_code import MAX_MESSAGE, explain_own, place

log = logging.getLogger(__name__)

# Exceptions of networks that do not support the image size.
SIZE_ERRORS = (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError)

# Mean and standard deviation of the three channels, for images in [0, 1].
STATISTICS = {
    "none": (0.0, 0.0, 0.0, 1.0, 1.0, 1.0),
    "half": (0.5, 0.5, 0.5, 0.5, 0.5, 0.5),
    "imagenet": (0.485, 0.456, 0.406, 0.229, 0.224, 0.225),
}


def build_model(
    cfg: DictConfig, *, channels: int, num_outputs: int, image_size: int, start: Tensor | None = None
) -> nn.Module:
    """Return the network of a config, with its weights loaded.

    Args:
        cfg: The composed config.
        channels: C of the images.
        num_outputs: K, the number of outputs.
        image_size: S of the images, in px.
        start: Outputs of a new classifier for every image, shape (K,); None: the network's own initial weights.

    Raises:
        UserError: If the network does not support the image size, or its weights are unavailable.
    """
    node = plain_node(cfg.model, without=("pretrained", "checkpoint_path", "freeze"))
    name = str(cfg.model.get("model_name") or cfg.model._target_.rpartition(".")[2])
    path = cfg.model.checkpoint_path
    pretrained = cfg.model.pretrained and not path  # the file's weights replace the published ones
    target = find_target("model", cfg.model._target_)
    if "pretrained" in inspect.signature(target).parameters:
        node["pretrained"] = pretrained
    elif pretrained:
        raise UserError(
            f"{name} has no published weights: set model.pretrained=false, or model.checkpoint_path to a file"
        )

    def create(**changes: Any) -> nn.Module:
        model: nn.Module = instantiate(node, in_chans=channels, num_classes=num_outputs, _convert_="all", **changes)
        return model

    images = torch.zeros(2, channels, image_size, image_size)
    try:
        model = create_pretrained(create, name) if pretrained else create()
        check_patches(model, image_size, name)
        with torch.no_grad():
            outputs = model.eval()(images)
    except Exception as error:  # the user's own network may raise anything
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        own, known = explain_own(error), isinstance(error, (*SIZE_ERRORS, InstantiationException))
        if isinstance(error, UserError | FailedError) or is_out_of_memory(error) or not (own or known):
            raise
        raise _explain_failure(create, error, images=images, node=node, name=name, num_outputs=num_outputs) from error
    with named(target, f"model {name}"):
        require_outputs(outputs, (len(images), num_outputs))
    model.train()
    if start is not None:
        start_classifier(model, start)
    if path:
        log.info(load_checkpoint(model, path))
    return model


def _explain_failure(
    create: Callable[..., nn.Module],
    error: Exception,
    *,
    images: Tensor,
    node: dict[str, Any],
    name: str,
    num_outputs: int,
) -> UserError:
    """Return an error that names a valid image size if the size is the cause, else what failed on which input."""
    cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
    why, size = f"{one_line_message(cause)[:MAX_MESSAGE].rstrip('.')}{place(error)}", images.shape[-1]
    smallest = None
    if isinstance(cause, SIZE_ERRORS):
        smallest = _smallest_size(create, node, images.shape[1], num_outputs=num_outputs)
    own = explain_own(error)
    if own:
        advice = "" if smallest is None else f"; {smallest}x{smallest} images work: set data.image_size={smallest}"
        return UserError(f"{own}{advice}")
    if smallest is not None:
        return UserError(
            f"model {name} does not support {size}x{size} images ({why}), "
            f"but {smallest}x{smallest}: set data.image_size={smallest}, or another model"
        )
    if isinstance(error, InstantiationException):
        return UserError(f"model {name} cannot be built ({why}): check the keys under model")
    return UserError(
        f"the forward of model {name} failed on images of shape {tuple(images.shape)}, float32 ({why}): "
        "check its layers and the keys under model"
    )


def _smallest_size(
    create: Callable[..., nn.Module], node: dict[str, Any], channels: int, *, num_outputs: int
) -> int | None:
    """Return the smallest common image size of a network, in px, or None. The meta device is used to find it."""
    sized = next((key for key in ("image_size", "img_size") if key in node), None)

    def build(size: int) -> nn.Module:
        changes = {"pretrained": False} if "pretrained" in node else {}
        return create(**changes, **({sized: size} if sized else {}))

    try:
        return smallest_size(build, channels, num_outputs=num_outputs)
    except Exception:  # the user's own network may need data, which the meta device does not hold
        return None


def build_normalise(cfg: DictConfig, data: ImageDataModule, model: nn.Module) -> Normalise:
    """Return the normalisation for data.normalise. `auto` uses those of a pretrained model, else of the data."""
    choice = cfg.data.normalise
    if choice not in (*STATISTICS, "dataset", "auto"):
        raise UserError(f"data.normalise={choice} is unknown: use auto, dataset, {', '.join(STATISTICS)}")
    path = cfg.model.checkpoint_path
    if path and choice == "auto" and (stored := _stored_statistics(path, cfg.data.channels)):
        return stored
    weights = cfg.model.pretrained or path
    known = getattr(model, "pretrained_cfg", None) if weights and choice == "auto" else None
    if known and "mean" in known:
        mean, std = list(known["mean"]), list(known["std"])
    elif choice in STATISTICS:
        mean, std = list(STATISTICS[choice][:3]), list(STATISTICS[choice][3:])
    else:
        return Normalise(*data.images.statistics())
    if cfg.data.channels == 1:  # grey images use the average of the colour channels
        mean, std = [sum(mean) / 3], [sum(std) / 3]
    return Normalise(mean, std)


def _stored_statistics(path: str, channels: int) -> Normalise | None:
    """Return the normalisation in a checkpoint of agebench; None if the file has none for this number of channels."""
    if not str(path).endswith(".ckpt"):
        return None
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("state_dict", {})
    mean, std = (state.get(f"normalise.{name}") for name in ("mean", "std"))
    if mean is None or std is None or mean.numel() != channels:
        return None
    return Normalise(mean.flatten().tolist(), std.flatten().tolist())
