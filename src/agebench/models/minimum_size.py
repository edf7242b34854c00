"""Which image sizes a network takes."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from agebench.errors import UserError

_CANDIDATES = (8, 16, 24, 28, 32, 48, 56, 63, 64, 75, 96, 112, 128, 160, 192, 224, 256, 299, 384)

# What networks raise when an image is too small for their pooling, patches or linear layers.
_REFUSALS = (UserError, RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError)


def require_size(name: str, image_size: int, *, minimum: int) -> None:
    """Raise UserError if images of side image_size (px) are below the minimum of the network called name."""
    if image_size < minimum:
        raise UserError(
            f"{name} needs images of at least {minimum}x{minimum} pixels, not {image_size}x{image_size}: "
            f"set data.image_size={minimum} or more"
        )


def smallest_size(build: Callable[[int], nn.Module], in_chans: int) -> int | None:
    """Return the smallest of the usual image sides, in px, that a network takes a training step on.

    Nothing is computed: the network is built and run on the meta device, two images of every size in turn.

    Args:
        build: Makes the network for a side in px; it must not load weights, for which the meta device has no room.
        in_chans: Channels of the images.

    Returns:
        The side in px, or None if the network takes none of them.
    """
    for size in _CANDIDATES:
        try:
            with torch.device("meta"):
                build(size).train()(torch.empty(2, in_chans, size, size))
        except Exception as error:
            # Hydra's instantiate wraps what a constructor raises.
            if not isinstance(error, _REFUSALS) and not isinstance(error.__cause__, _REFUSALS):
                raise
            continue
        return size
    return None


def check_patches(model: nn.Module, image_size: int, name: str) -> None:
    """Check that a network which cuts its images into patches gets whole ones; any other network passes.

    timm's transformers leave out what hangs over the last whole patch, without a word.

    Args:
        model: A network; timm's transformers say what they need in `model.patch_embed`.
        image_size: Side of the images, in px.
        name: What the user calls the network.

    Raises:
        UserError: If the side is no multiple of the patch's, or not the one side that the network was built for.
    """
    embed = getattr(model, "patch_embed", None)
    patch = getattr(embed, "patch_size", None)
    if not isinstance(patch, Iterable):
        return
    side = max(patch)
    if image_size % side:
        whole = max(1, round(image_size / side)) * side
        raise UserError(
            f"{name} cuts images into patches of {side}x{side} pixels, into which {image_size}x{image_size} pixels "
            f"do not divide: set data.image_size={whole} or another multiple of {side}"
        )
    built_for = getattr(embed, "img_size", None)
    if getattr(embed, "strict_img_size", False) and built_for and max(built_for) != image_size:
        raise UserError(
            f"{name} was built for images of {max(built_for)}x{max(built_for)} pixels, not {image_size}x{image_size}: "
            f"set data.image_size={max(built_for)}, or add '+model.img_size=${{data.image_size}}'"
        )
