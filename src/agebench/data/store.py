"""Pixels decoded once: a memory-mapped uint8 file in the cache, shared by every later run.

A store holds the images of one list of names at one size and number of channels. Its name is a hash of all that
decides its bytes, so a change of any of it is another store.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image, ImageOps
from tqdm import tqdm

from agebench.data.records import Array
from agebench.errors import UserError


def fit(image: Image.Image, size: int, channels: int) -> Array:
    """Bring an image to size x size pixels, uint8, shape (C, S, S): squashed, bilinear with antialiasing.

    EXIF rotation is applied, 16-bit grey is scaled rather than clipped, transparency is dropped.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image, dtype=np.float64)
        # Modes I and F do not say what white is; those of 16 bits do.
        top = 65535.0 if image.mode.startswith("I;16") or grey.max() > 255 else 255.0
        image = Image.fromarray((grey * (255.0 / top)).round().clip(0, 255).astype(np.uint8))
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def packed(
    cache: Path, open_image: Callable[[int], Image.Image], rows: Array, *, size: int, channels: int, key: str
) -> Array:
    """Return the pixels of the given rows, uint8, shape (n, C, S, S), mapped from the cache.

    The mapping is private: writes stay in memory.

    Args:
        cache: Folder of the packed stores.
        open_image: Decodes one row; called from several threads.
        rows: Rows to decode, int64, shape (n,); row i of the result is rows[i].
        size: Side in px.
        channels: 1 or 3.
        key: Whatever else decides the pixels: where they come from, and a stamp of the files.

    Raises:
        UserError: If the disk of the cache is too full.
    """
    digest = hashlib.sha256(f"{key}|{size}|{channels}|squash-bilinear|".encode())
    digest.update(np.ascontiguousarray(rows).tobytes())
    path = cache / f"{digest.hexdigest()[:20]}-{size}x{size}x{channels}.npy"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            _pack(path, lambda row: fit(open_image(row), size, channels), rows, (channels, size, size))
    return np.asarray(np.load(path, mmap_mode="c"))


def _pack(path: Path, read: Callable[[int], Array], rows: Array, shape: tuple[int, int, int]) -> None:
    half = path.with_suffix(".part")
    half.unlink(missing_ok=True)  # of a run that was killed
    needed, free = len(rows) * int(np.prod(shape)), shutil.disk_usage(path.parent).free
    if needed > free:
        # Writing to a mapped file on a full disk kills the process without a word.
        raise UserError(
            f"packing the images takes {needed / 2**30:,.1f} GiB in {path.parent}, and {free / 2**30:,.1f} GiB are "
            "free: set paths.cache to another disk, or a smaller data.image_size"
        )
    store = np.lib.format.open_memmap(half, mode="w+", dtype=np.uint8, shape=(len(rows), *shape))
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = pool.map(lambda item: store.__setitem__(item[0], read(int(item[1]))), enumerate(rows))
            for _ in tqdm(done, total=len(rows), desc="packing images", unit="img", disable=None, leave=False):
                pass
        store.flush()
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    half.replace(path)
