"""RandAugment with independent operations for each image of a batch."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from agebench.augment.checks import batch_of_images, flag, number
from agebench.augment.colour import autocontrast, equalize, jitter, posterize, sharpen, solarize
from agebench.augment.geometry import affine, compose, warp
from agebench.errors import UserError

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)


class RandAugment(nn.Module):
    """Applies randomly chosen operations of one magnitude to each image.

    Args:
        num_ops: Number of operations per image, sampled uniformly with replacement from the 14 operations.
        magnitude: 0 to 30, on torchvision's scale. 30 means a shear of 0.3, a shift of 45% of the side, a rotation of
            30 degrees, colour factors of 1 ± 0.9, posterize to 4 bits, and solarize with threshold 0.
        fill: Grey level in [0, 1] of pixels outside the input image.
        at_test: Whether the module also augments images in evaluation.

    Raises:
        UserError: If an argument is out of range.

    Source:
        Cubuk et al. (2020), arXiv:1909.13719, with torchvision's ranges and three differences. The geometric operations
        of an image are composed and applied first, in one bilinear resampling. Shears are about the centre. Only
        posterize and equalize round to 8 bits.
        RandAugment of kornia 0.9 and of torchvision samples one set of operations for the whole batch.
    """

    def __init__(self, *, num_ops: int = 2, magnitude: float = 9.0, fill: float = 0.0, at_test: bool = False) -> None:
        super().__init__()
        if isinstance(num_ops, bool) or not isinstance(num_ops, int) or num_ops < 0:
            raise UserError(f"augment.num_ops must be an integer of at least 0, not {num_ops!r}; try 2")
        self.num_ops = num_ops
        self.magnitude = number("magnitude", magnitude, 0, 30)
        self.fill = number("fill", fill, 0, 1)
        self.at_test = flag("at_test", at_test)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return augmented images; input and output are float32 in [0, 1], shape (B, C, S, S), C 1 or 3."""
        batch_of_images(images)
        shape = (self.num_ops, len(images))
        draws = torch.randint(len(OPERATIONS), shape, device=images.device)
        signs = torch.randint(2, shape, device=images.device) * 2 - 1
        return self.apply_operations(images, draws, signs)

    def apply_operations(self, images: Tensor, draws: Tensor, signs: Tensor) -> Tensor:
        """Return the images after the given operations.

        Args:
            images: float32 in [0, 1], shape (B, C, S, S).
            draws: Indices into OPERATIONS, int64, shape (num_ops, B).
            signs: Direction of each operation, -1 or 1, shape (num_ops, B).

        Returns:
            float32 in [0, 1], shape (B, C, S, S).
        """
        if not len(draws):
            return images
        strength = self.magnitude / 30
        matrices = torch.eye(3, device=images.device)[None]
        for draw, sign in zip(draws, signs, strict=True):
            matrices = compose(matrices, self._geometry(draw, sign * strength))  # (B, 3, 3)
        images = warp(images, matrices, self.fill).clamp_(0, 1)
        for draw, sign in zip(draws, signs, strict=True):
            images = self._tones(images, draw, sign * strength)
        return images

    def _geometry(self, draw: Tensor, amount: Tensor) -> Tensor:
        def chosen(name: str, full: float) -> Tensor:
            return torch.where(draw == OPERATIONS.index(name), amount * full, 0.0)  # (B,)

        shear = torch.stack((chosen("shear_x", 0.3), chosen("shear_y", 0.3)))
        shift_x, shift_y = chosen("translate_x", 150 / 331), chosen("translate_y", 150 / 331)
        return affine(chosen("rotate", 30), torch.ones_like(amount), shift_x, shift_y, shear)

    def _tones(self, images: Tensor, draw: Tensor, amount: Tensor) -> Tensor:
        def chosen(*names: str) -> Tensor:
            return torch.stack([draw == OPERATIONS.index(name) for name in names]).any(0)  # (B,)

        factor, bits = 1 + 0.9 * amount, 8 - round(4 * self.magnitude / 30)
        jitters = ("brightness", "contrast", "saturation")
        factors = {name: torch.where(chosen(name), factor, 1.0) for name in jitters}
        for names, change in (
            (jitters, lambda some, rows: jitter(some, **{name: each[rows] for name, each in factors.items()})),
            (("sharpness",), lambda some, rows: sharpen(some, factor[rows])),
            (("solarize",), lambda some, rows: solarize(some, (1 - amount.abs())[rows])),
            (("posterize",), lambda some, _: posterize(some, bits)),
            (("autocontrast",), lambda some, _: autocontrast(some)),
            (("equalize",), lambda some, _: equalize(some)),
        ):
            images = change_some(images, chosen(*names), change, count=images.device.type == "cpu")
        return images


def change_some(
    images: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor | slice], Tensor], *, count: bool
) -> Tensor:
    """Return the images with an operation applied to the chosen ones only.

    Args:
        images: Shape (B, C, S, S); may be modified in place.
        chosen: Mask of the images to change, bool, shape (B,).
        change: Operation; takes images and their row indices, and returns the changed images.
        count: Whether to apply the operation to the chosen images only. If False, it is applied to all images and the
            result is masked, which avoids a synchronization with a GPU at every step.
    """
    if not count:
        return torch.where(chosen[:, None, None, None], change(images, slice(None)), images)
    rows = chosen.nonzero()[:, 0]
    if len(rows):
        images.index_copy_(0, rows, change(images.index_select(0, rows), rows))
    return images
