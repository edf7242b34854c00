"""Mixup and CutMix: each training image is mixed with another one of its batch."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Beta


class Mixed(NamedTuple):
    """A mixed batch. Image i has the share `share` of label i, and the rest of the label `other[i]`."""

    images: Tensor
    other: Tensor
    share: float


class Mixing:
    """Mixes a batch with a permutation of itself, on the device, by mixup or by CutMix.

    All images of a batch have the same share, which is drawn from Beta(alpha, alpha). With both alphas, each batch is
    mixed by one of the two, with equal probability.

    Args:
        mixup: Alpha of mixup, which adds the images up; None: no mixup.
        cutmix: Alpha of CutMix, which replaces a rectangle; None: no CutMix.
        probability: The probability that a batch is mixed.

    Source:
        Zhang, Cissé, Dauphin, Lopez-Paz (2018), mixup, arXiv:1710.09412. Yun et al. (2019), CutMix, arXiv:1905.04899.
    """

    def __init__(self, *, mixup: float | None, cutmix: float | None, probability: float) -> None:
        self.alphas = {"mixup": mixup, "cutmix": cutmix}
        self.kinds = [kind for kind, alpha in self.alphas.items() if alpha is not None]
        self.probability = probability

    def __call__(self, images: Tensor, target: Tensor) -> Mixed | None:
        """Return the mixed batch, or None if this batch is not mixed.

        Random numbers are drawn on the CPU, so that reading them does not wait for the device.

        Args:
            images: Float images, shape (B, C, S, S).
            target: Label indices, shape (B,).
        """
        chance, choice = torch.rand(2).tolist()
        if chance >= self.probability or len(images) < 2:
            return None
        kind = self.kinds[int(choice * len(self.kinds))]
        alpha = float(self.alphas[kind] or 0)
        share = Beta(alpha, alpha).sample().item()
        order = torch.randperm(len(images)).to(images.device, non_blocking=True)
        if kind == "mixup":
            return Mixed(torch.lerp(images[order], images, share), target[order], share)
        top, bottom, left, right = self._rectangle(images.shape[-2], images.shape[-1], share)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images[order, :, top:bottom, left:right]
        replaced = (bottom - top) * (right - left) / (images.shape[-2] * images.shape[-1])
        return Mixed(mixed, target[order], 1 - replaced)

    def _rectangle(self, height: int, width: int, share: float) -> tuple[int, int, int, int]:
        """Return a random rectangle around a uniformly drawn centre, of 1 - share of the area before it is clipped."""
        side = (1 - share) ** 0.5
        y, x = torch.rand(2).tolist()
        half_height, half_width = height * side / 2, width * side / 2
        top, bottom = y * height - half_height, y * height + half_height
        left, right = x * width - half_width, x * width + half_width
        return (
            max(round(top), 0),
            min(round(bottom), height),
            max(round(left), 0),
            min(round(right), width),
        )
