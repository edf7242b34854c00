"""An augmentation that takes part in agebench as augment=my_augment."""

import torch
from torch import Tensor, nn


class MyAugment(nn.Module):
    """Adds noise to the images of a training batch, on their device.

    Args:
        sigma: Standard deviation of the noise, for images in [0, 1]; a key of conf/augment/my_augment.yaml.
        at_test: Whether test images are changed too.
    """

    def __init__(self, *, sigma: float = 0.05, at_test: bool = False) -> None:
        super().__init__()
        self.sigma, self.at_test = sigma, at_test

    def forward(self, images: Tensor) -> Tensor:
        """Return changed images; input and output are float32 in [0, 1], shape (B, C, S, S)."""
        return (images + self.sigma * torch.randn_like(images)).clamp(0, 1)
