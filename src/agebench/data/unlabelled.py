"""Images without labels from a folder, an archive, a table or one file, decoded batch by batch."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agebench.data.readers.archives import open_archive
from agebench.data.readers.folders import Files, FolderFiles, check_exists, decode, is_image, nfc
from agebench.data.records import Array
from agebench.data.resize import Resize
from agebench.data.sources.table import read_paths
from agebench.data.threads import cores, map_chunks
from agebench.errors import BrokenImageError, UserError
from agebench.progress import Bar

TABLES = (".csv", ".tsv", ".txt")


class Unlabelled:
    """Iterates over the images once, as batches of uint8, shape (B, C, S, S), on all cores.

    Images that cannot be read are skipped and listed in `broken`.

    Args:
        path: A folder with images at any depth, a zip, tar or tar.gz of such a folder, a CSV file with a column
            `path`, or an image. Relative paths in a CSV file start at its folder.
        resize: Resizes the images.
        batch_size: B, images per batch; the last batch may be smaller.

    Attributes:
        names: Path of every image relative to the folder, sorted; for a CSV file, its paths in the order of its rows.
        broken: The reason for each image that cannot be read, by its position in `names`; filled while iterating.

    Raises:
        UserError: If the path does not exist or contains no image.
    """

    def __init__(self, path: Path, *, resize: Resize, batch_size: int) -> None:
        self.resize, self.batch_size = resize, batch_size
        self._files, names, self._found = _open(path)
        self.names = [nfc(name) for name in names]
        self.broken: dict[int, str] = {}

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the batches, in the order of the names."""
        waiting: list[Array] = []
        progress = Bar("predicting", total=len(self.names))
        with progress, ThreadPoolExecutor(cores()) as workers:
            for chunk in map_chunks(workers, self._decode, range(len(self._found))):
                for position, decoded in chunk:
                    if isinstance(decoded, BrokenImageError):
                        self.broken[position] = str(decoded)
                    else:
                        waiting.append(decoded)
                while len(waiting) >= self.batch_size:
                    yield _stack(waiting[: self.batch_size])
                    waiting = waiting[self.batch_size :]
                progress.update(len(chunk))
            if waiting:
                yield _stack(waiting)

    def _decode(self, positions: Sequence[int]) -> list[tuple[int, Array | BrokenImageError]]:
        decoded: list[tuple[int, Array | BrokenImageError]] = []
        for position in positions:
            try:
                if (file := self._found[position]) is None:
                    raise BrokenImageError("there is no such file")
                decoded.append((position, self.resize(decode(self._files.read(file)))))
            except BrokenImageError as error:
                decoded.append((position, error))
        return decoded


def _stack(images: Sequence[Array]) -> Tensor:
    return torch.from_numpy(np.stack(images))


def _open(path: Path) -> tuple[Files, list[str], Sequence[str | None]]:
    """Return a reader of the images, their names, and their paths for the reader, None if a file does not exist."""
    check_exists(path)
    if path.is_dir():
        files: Files = FolderFiles(path)
    elif path.is_file() and is_image(path.name):
        return FolderFiles(path.parent), [path.name], [path.name]
    elif path.is_file() and path.suffix.lower() in TABLES:
        return FolderFiles(path.parent), *read_paths(path)
    else:
        files = open_archive(path)
    names = files.names()
    if not names:
        raise UserError(f"{path} contains no image: supported are .jpg, .png, .bmp, .tif and .webp")
    return files, names, names
