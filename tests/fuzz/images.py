"""Cases of images."""

import io
import os
import random
import shlex
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import materials
import numpy as np
from materials import SMALL, Case, line, use
from overrides import CLASSES
from PIL import Image

Random = random.Random


def image_line(rng: Random, content: bytes | None, name: str = "dog/0.png") -> list[str]:
    """Replace one or all images of a folder, and return a command that reads it."""
    use("classes", "ages_run")
    places = [Path("classes", name)] if rng.random() < 0.7 else sorted(Path("classes").rglob("*.png"))
    for place in places:
        if content is not None:
            place.write_bytes(content)
    folder = f"{shlex.join(CLASSES)} data.require_all={rng.choice(('true', 'false'))}"
    return line(
        rng,
        f"prepare {folder}",
        f"prepare {folder} export=tree",
        "predict run=ages_run images=classes",
        f"predict run=ages_run images=classes/{name}",
        f"train {folder} model=mlp {shlex.join(SMALL)}",
    )


def encoded(rng: Random, *, kind: str | None = None) -> bytes:
    """Return an image in some format."""
    kind = kind or rng.choice(("PNG", "JPEG", "BMP", "TIFF", "GIF", "JPEG2000", "WEBP"))
    image = materials.picture(np.random.default_rng(rng.randrange(99)))
    out = io.BytesIO()
    more: dict[str, Any] = {"progressive": True} if kind == "JPEG" and rng.random() < 0.5 else {}
    if kind == "TIFF":
        more = {"compression": rng.choice((None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits"))}
    image.save(out, kind, **more)
    return out.getvalue()


def _image_bytes(spoil: Callable[[Random, bytes], bytes]) -> Case:
    return lambda rng: image_line(rng, spoil(rng, encoded(rng)))


def odd_mode(rng: Random) -> list[str]:
    """Write an image of another mode and size."""
    modes = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16", "I;16B")
    mode = rng.choice(modes)
    size = rng.choice(((1, 1), (1, 5000), (5000, 1), (16, 16), (300, 7)))
    kind = rng.choice(("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000"))
    out = io.BytesIO()
    try:
        Image.new(mode, size).save(out, kind)
    except (OSError, ValueError, KeyError):  # the format has no such mode
        Image.new("RGB", size).save(out, "PNG")
    return image_line(rng, out.getvalue())


def animated(rng: Random) -> list[str]:
    frames = [Image.new(mode, (16, 16), i) for i, mode in enumerate(("L", "L", "L"))]
    out = io.BytesIO()
    frames[0].save(out, rng.choice(("GIF", "PNG", "TIFF", "WEBP")), save_all=True, append_images=frames[1:])
    raw = out.getvalue()
    return image_line(rng, damage.flip_bits(rng, raw) if rng.random() < 0.5 else raw)


def huge_header(rng: Random) -> list[str]:
    """Write a PNG whose header claims a huge or an empty image, with a valid CRC."""
    raw = bytearray(encoded(rng, kind="PNG"))
    sizes = (0, 1, 9459, 9460, 65535, 2**31 - 1, 2**32 - 1)
    raw[16:24] = struct.pack(">II", rng.choice(sizes), rng.choice(sizes))
    raw[24:26] = bytes([rng.choice((1, 2, 8, 16, 99)), rng.choice((0, 2, 3, 4, 6, 7))])
    raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    return image_line(rng, bytes(raw))


def odd_metadata(rng: Random) -> list[str]:
    """Write an image with odd EXIF data, colour profile or text."""
    out, image = io.BytesIO(), materials.picture(np.random.default_rng(0))
    exif = Image.Exif()
    exif[0x0112] = rng.choice((0, 1, 6, 9, 65535))
    raw = rng.choice((exif.tobytes(), rng.randbytes(100), b"Exif\x00\x00", b""))
    profile = rng.choice((None, rng.randbytes(200), b"x"))
    image.save(out, rng.choice(("JPEG", "PNG", "WEBP")), exif=raw, icc_profile=profile, dpi=(10**6, 1))
    return image_line(rng, out.getvalue())


def odd_place(rng: Random) -> list[str]:
    """Put something that is no regular file where an image is expected."""
    command = image_line(rng, None)
    path = Path("classes/dog/0.png")
    path.unlink()
    kind = rng.choice(("folder", "fifo", "dangling", "loop", "device", "unreadable", "gone", "parent"))
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "unreadable":
        path.touch(mode=0)
    elif kind != "gone":
        target = {"dangling": "nowhere", "loop": path.name, "device": "/dev/zero", "parent": ".."}[kind]
        path.symlink_to(target)
    return command


IMAGES = {name: _image_bytes(spoil) for name, spoil in damage.BYTES.items()}
IMAGES |= damage.named(odd_mode, animated, huge_header, odd_metadata, odd_place)
