"""The contract of augmentations."""

from typing import Any

import torch
from torch import Tensor, nn

from agebench.contract import require, require_images
from agebench.testing.contract import Target, build, images_of, working


def check_augmentation(target: Target, **options: Any) -> None:
    """Check that an augmentation keeps the contract: a module that maps a batch of images in [0, 1] to such a batch.

    Args:
        target: The class, or its dotted name: `mychanges.Noise`.
        options: The keys of the YAML.

    Raises:
        ContractError: If the augmentation breaks the contract.

    Examples:
        >>> check_augmentation("agebench.augment.Augment", flip=0.5, degrees=10)
    """
    augment = build("augmentation", target, signature="the keys of its YAML", options=options)
    require(isinstance(augment, nn.Module), "an augmentation must be a torch.nn.Module", type(augment).__name__)
    for name in ("idle", "at_test"):
        value = getattr(augment, name, False)
        require(isinstance(value, bool), f"the attribute {name} of an augmentation must be true or false", value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for count, channels in ((8, 1), (8, 3), (1, 3)):
            images = torch.rand(count, channels, 31, 31).round(decimals=1)  # includes 0 and 1
            with working(f"an augmentation must work for {images_of(images.shape)}"):
                _check_batch(augment, images)


def _check_batch(augment: nn.Module, images: Tensor) -> None:
    before = images.clone()
    torch.manual_seed(1)
    changed = augment(images)
    require_images(changed, tuple(images.shape), exact=True)
    require(torch.equal(images, before), "an augmentation must not change its input", "a changed input")

    contract = "an augmentation must draw from torch's random numbers only, so that a seed repeats it"
    torch.manual_seed(1)
    require(torch.equal(augment(images), changed), contract, "another output for the same seed")
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        low_precision = augment(images)
    contract = "an augmentation must return the same images under autocast"
    require(torch.equal(low_precision, changed), contract, f"{low_precision.dtype}, or other values")
