"""Images that are given as files, PIL images and arrays, as batches for a prediction."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image

from agebench.data.readers.folders import decode
from agebench.data.resize import Resize
from agebench.errors import BrokenImageError, UserError

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]
OneImage = str | os.PathLike[str] | Image.Image | Array
ImageOrPath = OneImage | Sequence[OneImage]


def is_path(images: ImageOrPath) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether images are given as the path of a folder, an archive, a table or a file."""
    return isinstance(images, str | os.PathLike)


class GivenImages:
    """Iterates over images once, as batches of uint8, shape (B, C, S, S). See agebench.data.unlabelled.Unlabelled.

    Args:
        images: An image or several.
        resize: Resizes the images.
        batch_size: B, images per batch; the last batch may be smaller.

    Attributes:
        names: The path of each image file; `image 0`, ... for other images.
        broken: The reason for each image that cannot be read, by its position in `names`.

    Raises:
        UserError: If there is no image, or something is not an image.
    """

    def __init__(self, images: ImageOrPath, *, resize: Resize, batch_size: int) -> None:
        self.resize, self.batch_size = resize, batch_size
        self._given = _as_list(images)
        if not self._given:
            raise UserError("predict needs an image, got an empty list")
        self.names = [os.fspath(each) if is_path(each) else f"image {i}" for i, each in enumerate(self._given)]
        self.broken: dict[int, str] = {}

    def __iter__(self) -> "Iterator[Tensor]":
        """Yield the batches, in the order of the names."""
        import torch

        waiting: list[Array] = []
        for position, each in enumerate(self._given):
            try:
                waiting.append(self.resize(_read(each)))
            except BrokenImageError as error:
                self.broken[position] = str(error)
            if len(waiting) == self.batch_size or (waiting and position == len(self._given) - 1):
                yield torch.from_numpy(np.stack(waiting))
                waiting = []


def _as_list(images: ImageOrPath) -> list[OneImage]:
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, Image.Image | str | os.PathLike):
        return [images]
    if not isinstance(images, Iterable):
        raise UserError(f"images must be a path, a PIL image, an array or a list of them, got {type(images).__name__}")
    return list(images)


def _read(image: OneImage) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if not is_path(image):
        raise UserError(f"an image must be a file, a PIL image or an array, got {type(image).__name__}")
    try:
        return decode(Path(image).expanduser().read_bytes())
    except FileNotFoundError as error:
        raise BrokenImageError("there is no such file") from error
    except OSError as error:
        raise BrokenImageError(f"it cannot be read ({error.strerror or error})", lasting=False) from error


def _from_array(array: Array) -> Image.Image:
    shape = array.shape
    if array.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) or array.size == 0:
        raise UserError(
            "an array must be uint8 (0 black, 255 white) of shape (H, W), (H, W, 3) or (N, H, W, 3), got "
            f"{array.dtype} of shape {shape}"
        )
    return Image.fromarray(np.ascontiguousarray(array))
