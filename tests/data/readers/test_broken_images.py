"""Broken and unusual image files, from the folder to the batch."""

import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from agebench.data import split as splits
from agebench.data.datamodule import ImageDataModule
from agebench.data.packed import pack
from agebench.data.plan import Planner
from agebench.data.resize import Resize
from agebench.data.sources.folder import Folder

COLOUR = np.random.default_rng(0).integers(0, 256, (20, 16, 3), dtype=np.uint8)
PHOTO = Image.fromarray(COLOUR)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_with_header(width: int, height: int) -> bytes:
    """Return a small PNG whose header has the given size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


JPEG, PNG = encoded(PHOTO, "JPEG"), encoded(PHOTO, "PNG")

BROKEN: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "the file is empty"),
    "half a JPEG": (JPEG[:-100], "^the file is truncated$"),
    "the head of a JPEG": (JPEG[:30], "^the file is truncated$|not an image in a supported"),
    "half a PNG": (PNG[: len(PNG) // 2], "^the file is truncated$"),
    "a PNG with a flipped byte": (
        PNG[:60] + bytes([PNG[60] ^ 0xFF]) + PNG[61:],
        r"^the file is damaged \(.*\)$|truncated",
    ),
    "a web page": (b"<!DOCTYPE html><title>404</title>", "not an image in a supported format"),
    "a text": (b"not an image at all", "not an image in a supported format"),
    "zeros": (bytes(5000), "not an image in a supported format"),
    "noise": (np.random.default_rng(1).bytes(5000), "not an image in a supported format"),
    "a zip": (b"PK\x03\x04" + bytes(100), "not an image in a supported format"),
    "an enormous PNG": (png_with_header(30_000, 30_000), "too many pixels: at most 89,478,485 are read"),
    "a large PNG": (png_with_header(10_000, 10_000), "10000 x 10000 px are too many"),
    "a PNG of width 0": (png_with_header(0, 10), "."),
    "a TIFF without its data": (b"II*\x00\x08\x00\x00\x00\x00\x00", "."),
}

VALID: dict[str, Callable[[], tuple[bytes, Image.Image]]] = {
    "JPEG": lambda: (JPEG, Image.open(io.BytesIO(JPEG))),
    "PNG with the extension of a JPEG": lambda: (PNG, PHOTO),
    "grey": lambda: (encoded(PHOTO.convert("L"), "PNG"), PHOTO.convert("L").convert("RGB")),
    "one bit": lambda: (encoded(PHOTO.convert("1"), "PNG"), PHOTO.convert("1").convert("RGB")),
    "palette": lambda: (encoded(PHOTO.quantize(8), "PNG"), PHOTO.quantize(8).convert("RGB")),
    "transparent": lambda: (encoded(PHOTO.convert("RGBA"), "PNG"), PHOTO),
    "CMYK": lambda: (
        encoded(PHOTO.convert("CMYK"), "JPEG"),
        Image.open(io.BytesIO(encoded(PHOTO.convert("CMYK"), "JPEG"))).convert("RGB"),
    ),
    "progressive": lambda: (
        encoded(PHOTO, "JPEG", progressive=True),
        Image.open(io.BytesIO(encoded(PHOTO, "JPEG", progressive=True))),
    ),
    "rotated by its EXIF tag": lambda: (
        encoded(PHOTO.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif_orientation(6)),
        PHOTO,
    ),
    "16 bits of grey": lambda: (
        encoded(Image.fromarray(np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257), "PNG"),
        PHOTO.convert("L").convert("RGB"),
    ),
    "WebP": lambda: (encoded(PHOTO, "WEBP", lossless=True), PHOTO),
    "BMP": lambda: (encoded(PHOTO, "BMP"), PHOTO),
    "TIFF": lambda: (encoded(PHOTO, "TIFF"), PHOTO),
    "the first of several frames": lambda: (
        encoded(PHOTO, "PNG", save_all=True, append_images=[PHOTO.rotate(9)]),
        PHOTO,
    ),
    "bytes after the end": lambda: (PNG + b"notes of a camera", PHOTO),
}


def exif_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def read(root: Path, odd: bytes) -> ImageDataModule:
    """Return a data set of twelve good images and `cat/odd.jpg` with the given bytes."""
    for kind in ("cat", "dog"):
        (root / "pets" / kind).mkdir(parents=True)
        for i in range(6):
            PHOTO.save(root / "pets" / kind / f"{i}.png")
    (root / "pets" / "cat" / "odd.jpg").write_bytes(odd)
    source = Folder(str(root / "pets"))
    plan = Planner(source, splits.random, name="pets", target="class").plan()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        images = pack(source, plan, resize=Resize(10, 3), cache=root / "cache")
    return ImageDataModule(images, batch_size=4, seed=0)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_listed_with_its_reason_and_left_out_of_all_parts(tmp_path: Path, kind: str) -> None:
    content, reason = BROKEN[kind]

    data = read(tmp_path, content)

    assert list(data.plan.broken) == ["cat/odd.jpg"]
    assert re.search(reason, data.plan.broken["cat/odd.jpg"]), data.plan.broken
    assert sum(data.plan.counts.values()) == 12
    used = np.concatenate([data.plan.records.names[data.plan.split.part(part)] for part in ("train", "val", "test")])
    assert "cat/odd.jpg" not in used


@pytest.mark.parametrize("kind", VALID)
def test_an_unusual_image_is_decoded_to_the_pixels_it_shows(tmp_path: Path, kind: str) -> None:
    content, shown = VALID[kind]()

    data = read(tmp_path, content)

    assert data.plan.broken == {}
    expected = np.asarray(shown.resize((10, 10), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    found = [
        pixels.numpy()
        for part in ("train", "val", "test")
        for row, pixels in enumerate(data.part(part)[torch.arange(data.plan.counts[part])].images)
        if data.plan.records.names[data.plan.split.part(part)[row]] == "cat/odd.jpg"
    ]
    np.testing.assert_array_equal(found, [expected])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_read_permission_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "cat" / "locked.png").write_bytes(PNG)
    (tmp_path / "pets" / "cat" / "locked.png").chmod(0)
    source = Folder(str(tmp_path / "pets"))

    with pytest.raises(Exception, match="Permission denied"):
        source.open(0)
