"""Resize a decoded image to a square of uint8 pixels."""

import contextlib
from dataclasses import dataclass
from typing import get_args

import numpy as np
from PIL import Image, ImageOps

from agebench.data.keys import CropMode, Filter
from agebench.data.records import Array
from agebench.errors import BrokenImageError, UserError, one_line_message

CROP_MODES, FILTERS = get_args(CropMode), get_args(Filter)


@dataclass(frozen=True)
class Resize:
    """Converts an image to uint8 pixels, shape (C, S, S). Every field is part of the key of a store.

    Args:
        size: S, the side in px.
        channels: C, 1 (grey) or 3 (colour).
        crop_mode: `squash` changes the aspect ratio, `center` crops the longer side, `border` pads the shorter side
            with black.
        crop_pct: Share of each side that a central crop keeps before resizing; 1 means no crop.
        interpolation: Filter of Pillow; all except nearest are antialiased.
    """

    size: int
    channels: int
    crop_mode: str = "squash"
    crop_pct: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.crop_mode not in CROP_MODES:
            raise UserError(f"data.crop_mode must be one of {', '.join(CROP_MODES)}, got {self.crop_mode}")
        if self.interpolation not in FILTERS:
            raise UserError(f"data.interpolation must be one of {', '.join(FILTERS)}, got {self.interpolation}")
        if not 0 < self.crop_pct <= 1:
            raise UserError(f"data.crop_pct must be a share of the side above 0 and at most 1, got {self.crop_pct}")

    def __call__(self, image: Image.Image) -> Array:
        """Return the pixels, uint8, shape (C, S, S).

        EXIF rotation is applied, 16-bit grey is scaled to 8 bits, and transparency is dropped.

        Raises:
            BrokenImageError: If Pillow cannot convert the image.
        """
        try:
            return self._convert(image)
        except BrokenImageError:
            raise
        except MemoryError as error:
            raise BrokenImageError("it needs more memory than is available", lasting=False) from error
        except Exception as error:  # Pillow can raise any exception here
            raise BrokenImageError(f"it cannot be converted ({one_line_message(error)})") from error

    def _convert(self, image: Image.Image) -> Array:
        with contextlib.suppress(Exception):  # unreadable EXIF data means no rotation
            image = ImageOps.exif_transpose(image)
        image = _eight_bits(image)
        mode = "L" if self.channels == 1 else "RGB"
        if image.mode != mode:
            image = image.convert(mode)
        square = (self.size, self.size)
        box = self._box(*image.size)
        if self.crop_mode == "border":
            image = ImageOps.pad(image.crop(box), square, Image.Resampling[self.interpolation.upper()])
        elif image.size != square or box != (0, 0, *square):
            image = image.resize(square, Image.Resampling[self.interpolation.upper()], box=box)
        pixels = np.asarray(image, dtype=np.uint8)
        return pixels[None] if self.channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the crop box: left, top, right, bottom in px."""
        if self.crop_mode == "center":
            kept_width = kept_height = min(width, height) * self.crop_pct
        else:
            kept_width, kept_height = width * self.crop_pct, height * self.crop_pct
        left, top = (width - kept_width) / 2, (height - kept_height) / 2
        return left, top, left + kept_width, top + kept_height


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a grey image of more than 8 bits, or of floats, scaled to 8 bits. Pillow would clip it to white."""
    if not image.mode.startswith(("I", "F")):
        return image
    grey = np.asarray(image, dtype=np.float64)
    tops = (65535.0,) if image.mode.startswith("I;16") else (1.0, 255.0, 65535.0)[image.mode != "F" :]
    # Modes I and F do not define white. White is the smallest usual maximum that no pixel exceeds.
    if not np.isfinite(grey).all() or grey.min() < 0 or grey.max() > tops[-1]:
        raise BrokenImageError(f"its grey values, {grey.min():g} to {grey.max():g}, fit no known range")
    top = next(top for top in tops if grey.max() <= top)
    return Image.fromarray((grey * (255.0 / top)).round().clip(0, 255).astype(np.uint8))
