"""The images of a plan, decoded once and packed as uint8 in the cache."""

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from agebench.data.cache import check_cache
from agebench.data.plan import Plan
from agebench.data.records import Array, Source
from agebench.data.resize import Resize
from agebench.data.store import Store
from agebench.files import atomic_write

COUNTED_AT_ONCE = 2**24  # pixels per chunk; counting takes eight bytes per pixel


@dataclass(frozen=True)
class PackedImages:
    """Packed pixels, and the plan that assigns the images to parts and labels.

    Args:
        plan: The plan, without images that cannot be decoded.
        source: The source of the images.
        store: The store with the packed pixels.
        pixels: Memory-mapped from the store, uint8, shape (N, C, S, S). Only rows in use contain an image. They are
            read-only, because other processes map the same pages.
    """

    plan: Plan
    source: Source
    store: Store
    pixels: Array

    @property
    def num_bytes(self) -> int:
        """Number of bytes of the pixels in use."""
        return len(self.plan.used) * self.store.row_bytes

    def statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel of the train part, in [0, 1]; cached with the store."""
        rows = self.plan.rows[self.plan.split.train]
        file = self.store.folder / f"statistics-{self.store.state(rows)}.json"
        if file.exists():
            known = json.loads(file.read_text())
            return known["mean"], known["std"]
        mean, std = channel_statistics(self.pixels, rows)
        with contextlib.suppress(OSError), atomic_write(file) as part:  # a shared cache may be read-only
            part.write_text(json.dumps({"mean": mean, "std": std}))
        return mean, std

    def file(self, row: int) -> bytes | Image.Image:
        """Return the unchanged file of a record, or the decoded image if the image is not a single file."""
        read = getattr(self.source, "read", self.source.open)
        content: bytes | Image.Image = read(int(self.plan.rows[row]))
        return content

    def in_reading_order(self, rows: Array) -> Array:
        """Return rows of the records, int64, shape (n,), in the order in which reading their files is fastest."""
        listed = self.source.reading_order(self.plan.rows[rows])
        return np.searchsorted(self.plan.rows, listed)


def pack(source: Source, plan: Plan, *, resize: Resize, cache: Path, require_all: bool = False) -> PackedImages:
    """Decode the images of a plan that are not in the cache, and return all of them, memory-mapped.

    Args:
        source: Opens the images.
        plan: The plan with the images to use.
        resize: Resizes the images.
        cache: Folder of all packed stores.
        require_all: Whether an image that cannot be decoded is an error instead of a warning.

    Raises:
        UserError: If the cache cannot be written, or an image is broken and all are required.
    """
    check_cache(cache, plan.name)
    store = Store(cache, plan.name, key=_key(source, plan), count=len(plan.listed), resize=resize)
    pixels, broken = store.fill(source, plan.rows[plan.used])
    return PackedImages(plan.without(broken, require_all=require_all), source, store, pixels)


def _key(source: Source, plan: Plan) -> str:
    """Return the key of a store: the source, its location and its image names, which determine the rows."""
    root = getattr(source, "root", None)
    where = "" if root is None else str(Path(root).absolute())
    names = hashlib.sha256("\n".join(plan.listed.names.tolist()).encode("utf-8", "surrogateescape"))
    return f"{type(source).__qualname__}|{where}|{names.hexdigest()}"


def channel_statistics(pixels: Array, rows: Array) -> tuple[list[float], list[float]]:
    """Return the exact mean and standard deviation of each channel in [0, 1], from a histogram of the 256 levels.

    Args:
        pixels: uint8, shape (N, C, S, S).
        rows: Rows of the images to count, int64, shape (n,).
    """
    channels = pixels.shape[1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    each = max(1, COUNTED_AT_ONCE // pixels[0].size)
    for first in range(0, len(rows), each):
        images = np.take(pixels, rows[first : first + each], axis=0)
        for channel in range(channels):
            counts[channel] += np.bincount(images[:, channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    mean = counts @ levels / counts.sum(1)
    std = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / counts.sum(1))
    return mean.tolist(), np.maximum(std, 1e-3).tolist()  # a constant channel must not divide by zero
