"""Images of which nothing is known: all of a folder or an archive, or a single one, decoded batch by batch."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from agebench.data.readers.archives import open_archive
from agebench.data.readers.folders import Files, FolderFiles, decode, is_image, nfc
from agebench.data.records import Array
from agebench.data.resize import Resize
from agebench.data.threads import ahead, cores
from agebench.errors import BrokenImageError, UserError


class Unlabelled:
    """Iterates over the images once, as batches of uint8, shape (B, C, S, S), on all cores.

    Those that cannot be read are left out; `broken` then names them.

    Args:
        path: A folder with images at any depth, a zip, tar or tar.gz of one, or an image.
        resize: How an image is brought to size.
        batch_size: B, the images of a batch; the last has what is left.

    Attributes:
        names: Every image by its path below the folder, sorted.
        broken: What is wrong with an image, by its place in the names; whole after the last batch.

    Raises:
        UserError: If there is nothing there, or no image in it.
    """

    def __init__(self, path: Path, *, resize: Resize, batch_size: int) -> None:
        self.resize, self.batch_size = resize, batch_size
        self._files, self._found = _open(path)
        self.names = [nfc(name) for name in self._found]
        self.broken: dict[int, str] = {}

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the batches, in the order of the names."""
        waiting: list[Array] = []
        progress = tqdm(total=len(self.names), desc="predicting", unit="img", disable=None, leave=False)
        with progress, ThreadPoolExecutor(cores()) as workers:
            for few in ahead(workers, self._decode, range(len(self._found))):
                for place, read in few:
                    if isinstance(read, BrokenImageError):
                        self.broken[place] = str(read)
                    else:
                        waiting.append(read)
                while len(waiting) >= self.batch_size:
                    yield _stacked(waiting[: self.batch_size])
                    waiting = waiting[self.batch_size :]
                progress.update(len(few))
            if waiting:
                yield _stacked(waiting)

    def _decode(self, places: Sequence[int]) -> list[tuple[int, Array | BrokenImageError]]:
        read: list[tuple[int, Array | BrokenImageError]] = []
        for place in places:
            try:
                read.append((place, self.resize(decode(self._files.read(self._found[place])))))
            except BrokenImageError as error:
                read.append((place, error))
        return read


def _stacked(images: Sequence[Array]) -> Tensor:
    return torch.from_numpy(np.stack(images))


def _open(path: Path) -> tuple[Files, list[str]]:
    """Return what reads the images, and their names."""
    if path.is_dir():
        files: Files = FolderFiles(path)
    elif path.is_file() and is_image(path.name):
        return FolderFiles(path.parent), [path.name]
    elif path.is_file():
        files = open_archive(path)
    else:
        raise UserError(f"there is nothing at {path}: give a folder of images, a zip or tar of one, or an image")
    names = files.names()
    if not names:
        raise UserError(f"there is no image below {path}: .jpg, .png, .bmp, .tif and .webp are read")
    return files, names
