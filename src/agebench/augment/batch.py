"""The augmentation of everyday recipes: geometry in one resampling, colour in one linear map, erasing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agebench.augment.checks import batch_of_images, flag, number, span
from agebench.augment.colour import jitter
from agebench.augment.geometry import affine, compose, mirror, paint, random_boxes, uniform, warp, zoom


class Augment(nn.Module):
    """Changes every image of a batch by its own random draw, on the batch's device; everything is off by default.

    Args:
        flip: Probability of a flip left to right.
        degrees: Rotation about the centre, uniform in ± this, 0 to 180.
        translate: Shift along either axis, uniform in ± this share of the side, 0 to 1; not in whole pixels.
        scale: Range of the magnification, uniform, 0.1 to 10.
        crop_scale: Range of the share of the frame that a random resized crop keeps, 0.01 to 1; None crops nothing.
        crop_ratio: Range of the crop's width to height, uniform in the logarithm, 0.1 to 10.
        brightness: The factor is uniform in 1 ± this, 0 to 1.
        contrast: Likewise, about the image's mean luma.
        saturation: Likewise, about each pixel's luma; nothing to greyscale images.
        erase: Probability that a box of 2% to 33% of the frame, 0.3 to 3.3 wide to high, is set to `fill`.
        fill: Grey level in [0, 1] of what rotation, shift and scale uncover and of what is erased.
        at_test: Whether the trainer applies it at evaluation too.

    Raises:
        UserError: If an argument is out of its range.

    Source:
        The semantics of torchvision's RandomAffine, RandomResizedCrop, ColorJitter and RandomErasing (Zhong et al.
        2020, arXiv:1708.04896). Departs in this: an image is rotated, scaled and shifted, then cropped, then flipped
        in ONE bilinear resampling (RandomAffine's default is the nearest neighbour, which tears strokes of one pixel
        apart); the colours are cut to [0, 1] once, see `jitter`.
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
        """Whether everything is off, so that images come out as they go in."""
        moves = self.degrees or self.translate or self.scale != (1.0, 1.0) or self.crop_scale is not None or self.flip
        return not (moves or self.brightness or self.contrast or self.saturation or self.erase)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return changed copies of images, float32 in [0, 1], shape (B, C, S, S), C 1 or 3, in the same form."""
        batch_of_images(images)
        count, device = len(images), images.device
        affine_on = self.degrees > 0 or self.translate > 0 or self.scale != (1.0, 1.0)
        if affine_on or self.crop_scale is not None:
            # A crop alone uncovers nothing, so nothing of `fill` may bleed into its edges.
            images = warp(images, self.draw_maps(count, device), self.fill if affine_on else None).clamp_(0, 1)
        elif self.flip > 0:
            images = torch.where(self._draw_flips(count, device)[:, None, None, None], images.flip(-1), images)
        if self.brightness > 0 or self.contrast > 0 or self.saturation > 0:
            images = jitter(images, **self.draw_factors(count, device))
        if self.erase > 0:
            images = paint(images, self.draw_erased(count, device), self.fill)
        return images

    def draw_maps(self, count: int, device: torch.device) -> Tensor:
        """Return count geometric maps from output to input, float32, shape (count, 3, 3), see `affine`."""
        degrees = uniform((-self.degrees, self.degrees), (count,), device)
        shift_x, shift_y = uniform((-self.translate, self.translate), (2, count), device)
        maps = affine(degrees, uniform(self.scale, (count,), device), shift_x, shift_y)
        if self.crop_scale is not None:
            maps = compose(maps, zoom(random_boxes(count, self.crop_scale, self.crop_ratio, device)))
        if self.flip > 0:
            maps = compose(maps, mirror(self._draw_flips(count, device)))
        return maps

    def draw_factors(self, count: int, device: torch.device) -> dict[str, Tensor]:
        """Return the factors of `jitter` that are on, float32, shape (count,) each."""
        widths = {"brightness": self.brightness, "contrast": self.contrast, "saturation": self.saturation}
        return {name: uniform((1 - by, 1 + by), (count,), device) for name, by in widths.items() if by > 0}

    def draw_erased(self, count: int, device: torch.device) -> Tensor:
        """Return the boxes to erase as shares of the side, shape (4, count), see `paint`; width 0 where none is."""
        boxes = random_boxes(count, (0.02, 0.33), (0.3, 3.3), device)
        return boxes * (torch.rand(count, device=device) < self.erase)

    def _draw_flips(self, count: int, device: torch.device) -> Tensor:
        return torch.rand(count, device=device) < self.flip  # (count,)
