"""Image files in folders: find them, open one, and tell when they changed."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from agebench.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def find_images(folder: Path) -> Iterator[Path]:
    """Yield every image file below a folder, at any depth, in a fixed order; hidden files and folders are skipped.

    Links to folders are followed, unless they lead back to a folder that they lie in.
    """
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not _leads_back(Path(here, f)))
        for file in sorted(files):
            if file.lower().endswith(EXTENSIONS) and not file.startswith("."):
                yield Path(here, file)


def _leads_back(folder: Path) -> bool:
    return folder.is_symlink() and folder.resolve() in {parent.resolve() for parent in folder.absolute().parents}


def open_image(path: Path) -> Image.Image:
    """Decode one file whole.

    Raises:
        UserError: If the file is not an image or is cut short.
    """
    try:
        image = Image.open(path)
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"cannot read the image {path}: {error}; replace the file or take it out of the data"
        ) from error
    return image


def stamp_files(paths: Iterable[Path]) -> str:
    """Return a hash of the names, sizes and times of files."""
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        digest.update(f"{path.name}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
