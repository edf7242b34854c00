"""Normalisation of the images right before the network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """Normalises each channel of images in [0, 1] to mean 0 and standard deviation 1. Saved with the weights.

    Args:
        mean: Channel means of images in [0, 1], length C.
        std: Channel standard deviations, length C.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor  # (C, 1, 1), 1 / (255 std): normalises uint8 images
    shift: Tensor  # (C, 1, 1), mean / std

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("scale", None, persistent=False)
        self.register_buffer("shift", None, persistent=False)
        _set_scale_and_shift(self)
        self.register_load_state_dict_post_hook(_set_scale_and_shift)  # type: ignore[no-untyped-call]  # torch has no types for it

    def forward(self, images: Tensor) -> Tensor:
        """Return (images - mean) / std, shape (B, C, S, S), for images in [0, 1] or uint8 images."""
        if images.dtype != torch.uint8:
            return (images - self.mean).div_(self.std).to(self.mean.dtype)
        # Convert first: on a CPU uint8 times float is slow, and so is broadcasting over channels_last memory.
        return images.to(self.mean.dtype).mul_(self.scale).sub_(self.shift)


def _set_scale_and_shift(normalise: Normalise, *_: Any) -> None:
    """Compute scale and shift from mean and std, also after these are loaded from a checkpoint."""
    normalise.scale, normalise.shift = 1 / (255 * normalise.std), normalise.mean / normalise.std
