"""Standard augmentation: affine transform, crop and flip in one resampling, colour jitter and random erasing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agebench.augment.checks import batch_of_images, flag, number, span
from agebench.augment.colour import jitter
from agebench.augment.geometry import affine, compose, mirror, paint, random_boxes, uniform, warp, zoom


class Augment(nn.Module):
    """Augments each image of a batch independently, on the batch's device. By default every transform is disabled.

    Args:
        flip: Probability of a horizontal flip.
        degrees: Maximum rotation d about the centre, uniform in [-d, d], 0 to 180.
        translate: Maximum shift t along each axis as a share of the side, uniform in [-t, t], 0 to 1; subpixel.
        scale: Range of the scale factor, uniform, 0.1 to 10.
        crop_scale: Range of the area of a random resized crop as a share of the image, 0.01 to 1; None for no crop.
        crop_ratio: Range of the crop's aspect ratio (width / height), log-uniform, 0.1 to 10.
        brightness: Maximum change b of the brightness factor, uniform in [1 - b, 1 + b], 0 to 1.
        contrast: The same for contrast, relative to the image's mean luma.
        saturation: The same for saturation, relative to each pixel's luma; no effect on greyscale images.
        erase: Probability of random erasing: a box of 2% to 33% of the image, with aspect ratio 0.3 to 3.3, is set to
            `fill`.
        fill: Grey level in [0, 1] of erased pixels and of pixels outside the input image.
        at_test: Whether the module also augments images in evaluation.

    Raises:
        UserError: If an argument is out of range.

    Source:
        Semantics of torchvision's RandomAffine, RandomResizedCrop, ColorJitter and RandomErasing (Zhong et al. 2020,
        arXiv:1708.04896), with two differences. Rotation, scale, shift, crop and flip, in this order, are one bilinear
        resampling; RandomAffine's default is nearest neighbour, which breaks strokes that are one pixel wide. Colours
        are clamped to [0, 1] once, see `jitter`.
    """

    def __init__(
        self,
        *,
        flip: float = 0.0,
        degrees: float = 0.0,
        translate: float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        crop_scale: Sequence[float] | None = None,
        crop_ratio: Sequence[float] = (3 / 4, 4 / 3),
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        erase: float = 0.0,
        fill: float = 0.0,
        at_test: bool = False,
    ) -> None:
        super().__init__()
        self.flip = number("flip", flip, 0, 1)
        self.degrees = number("degrees", degrees, 0, 180)
        self.translate = number("translate", translate, 0, 1)
        self.scale = span("scale", scale, 0.1, 10)
        self.crop_scale = None if crop_scale is None else span("crop_scale", crop_scale, 0.01, 1)
        self.crop_ratio = span("crop_ratio", crop_ratio, 0.1, 10)
        self.brightness = number("brightness", brightness, 0, 1)
        self.contrast = number("contrast", contrast, 0, 1)
        self.saturation = number("saturation", saturation, 0, 1)
        self.erase = number("erase", erase, 0, 1)
        self.fill = number("fill", fill, 0, 1)
        self.at_test = flag("at_test", at_test)

    @property
    def idle(self) -> bool:
        """Whether every transform is disabled, so that the output equals the input."""
        moves = self.degrees or self.translate or self.scale != (1.0, 1.0) or self.crop_scale is not None or self.flip
        return not (moves or self.brightness or self.contrast or self.saturation or self.erase)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return augmented images; input and output are float32 in [0, 1], shape (B, C, S, S), C 1 or 3."""
        batch_of_images(images)
        count, device = len(images), images.device
        affine_on = self.degrees > 0 or self.translate > 0 or self.scale != (1.0, 1.0)
        if affine_on or self.crop_scale is not None:
            # A crop alone stays inside the image, so `fill` must not blend into its edges.
            images = warp(images, self.draw_maps(count, device), self.fill if affine_on else None).clamp_(0, 1)
        elif self.flip > 0:
            images = torch.where(self._draw_flips(count, device)[:, None, None, None], images.flip(-1), images)
        if self.brightness > 0 or self.contrast > 0 or self.saturation > 0:
            images = jitter(images, **self.draw_factors(count, device))
        if self.erase > 0:
            images = paint(images, self.draw_erased(count, device), self.fill)
        return images

    def draw_maps(self, count: int, device: torch.device) -> Tensor:
        """Return random maps from output to input coordinates, float32, shape (count, 3, 3), see `affine`."""
        degrees = uniform((-self.degrees, self.degrees), (count,), device)
        shift_x, shift_y = uniform((-self.translate, self.translate), (2, count), device)
        maps = affine(degrees, uniform(self.scale, (count,), device), shift_x, shift_y)
        if self.crop_scale is not None:
            maps = compose(maps, zoom(random_boxes(count, self.crop_scale, self.crop_ratio, device)))
        if self.flip > 0:
            maps = compose(maps, mirror(self._draw_flips(count, device)))
        return maps

    def draw_factors(self, count: int, device: torch.device) -> dict[str, Tensor]:
        """Return random factors of the enabled transforms of `jitter`, float32, shape (count,) each."""
        widths = {"brightness": self.brightness, "contrast": self.contrast, "saturation": self.saturation}
        return {name: uniform((1 - by, 1 + by), (count,), device) for name, by in widths.items() if by > 0}

    def draw_erased(self, count: int, device: torch.device) -> Tensor:
        """Return random boxes to erase as shares of the side, shape (4, count), see `paint`; width 0 erases nothing."""
        boxes = random_boxes(count, (0.02, 0.33), (0.3, 3.3), device)
        return boxes * (torch.rand(count, device=device) < self.erase)

    def _draw_flips(self, count: int, device: torch.device) -> Tensor:
        return torch.rand(count, device=device) < self.flip  # (count,)
