"""The minimum image size of a network."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from agebench.errors import UserError

_CANDIDATES = (8, 16, 24, 28, 32, 48, 56, 63, 64, 75, 96, 112, 128, 160, 192, 224, 256, 299, 384)

# Exceptions that networks raise for images that are too small for their pooling, patches or linear layers.
_SIZE_ERRORS = (UserError, RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError)


def require_size(name: str, image_size: int, *, minimum: int) -> None:
    """Raise UserError if image_size (side in px) is below the minimum of the network with this name."""
    if image_size < minimum:
        raise UserError(
            f"{name} needs images of at least {minimum}x{minimum} pixels, not {image_size}x{image_size}: "
            f"set data.image_size={minimum} or more"
        )


def smallest_size(build: Callable[[int], nn.Module], in_chans: int, *, num_outputs: int | None = None) -> int | None:
    """Return the smallest of the common image sides, in px, for which the forward pass in training mode works.

    The network is built and run on the meta device, so this takes neither memory nor arithmetic.

    Args:
        build: Builds the network for a side in px. It must not load weights, because the meta device holds no data.
        in_chans: Number of channels of the images.
        num_outputs: K; a side whose outputs do not have the shape (B, K) does not work. None: any outputs.

    Returns:
        The side in px, or None if no common side works.
    """
    for size in _CANDIDATES:
        try:
            with torch.device("meta"):
                outputs = build(size).train()(torch.empty(2, in_chans, size, size))
        except Exception as error:
            # Hydra's instantiate wraps the exceptions of a constructor.
            if not isinstance(error, _SIZE_ERRORS) and not isinstance(error.__cause__, _SIZE_ERRORS):
                raise
            continue
        if num_outputs is None or getattr(outputs, "shape", None) == (2, num_outputs):
            return size
    return None


def check_patches(model: nn.Module, image_size: int, name: str) -> None:
    """Check that the image size is a multiple of the network's patch size. Networks without patches always pass.

    timm's transformers silently ignore the pixels after the last complete patch.

    Args:
        model: A network. timm's transformers have the attribute `patch_embed`.
        image_size: Side of the images, in px.
        name: The name of the network in the message.

    Raises:
        UserError: If the side is not a multiple of the patch size, or differs from the only side that the network
            accepts.
    """
    embed = getattr(model, "patch_embed", None)
    patch = getattr(embed, "patch_size", None)
    if not isinstance(patch, Iterable):
        return
    side = max(patch)
    if image_size % side:
        nearest = max(1, round(image_size / side)) * side
        raise UserError(
            f"{name} cuts images into patches of {side}x{side} pixels, but {image_size} pixels is not a multiple of "
            f"{side}: set data.image_size={nearest} or another multiple of {side}"
        )
    built_for = getattr(embed, "img_size", None)
    if getattr(embed, "strict_img_size", False) and built_for and max(built_for) != image_size:
        raise UserError(
            f"{name} was built for images of {max(built_for)}x{max(built_for)} pixels, not {image_size}x{image_size}: "
            f"set data.image_size={max(built_for)}, or add '+model.img_size=${{data.image_size}}'"
        )
