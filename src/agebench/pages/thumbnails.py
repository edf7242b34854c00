"""Images as data URIs for a page, small enough to embed."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from agebench.report.outcome import Array

SIDE = 112  # largest side of a thumbnail, px; a page shows it at up to 96 CSS px
PNG_UP_TO = 40  # px; below, a PNG is exact and hardly larger than a JPEG


def data_uri(data: bytes, kind: str) -> str:
    """Return bytes as a data URI of an image, such as `png`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def picture_uri(path: Path) -> str:
    """Return a PNG file as a data URI."""
    return data_uri(path.read_bytes(), "png")


def thumbnail(pixels: Array) -> str:
    """Return an image, uint8, shape (C, S, S), as a data URI. A large one is reduced."""
    colour = pixels.shape[0] == 3
    image = Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, 2) if colour else pixels[0]))
    file = io.BytesIO()
    if max(image.size) <= PNG_UP_TO:
        image.save(file, "PNG")
        return data_uri(file.getvalue(), "png")
    image.thumbnail((SIDE, SIDE))
    image.save(file, "JPEG", quality=80)
    return data_uri(file.getvalue(), "jpeg")
