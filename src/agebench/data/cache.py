"""The check of the cache folder, before anything is written."""

import os
from pathlib import Path

from agebench.errors import UserError

# Folders of the system itself. Folders below them, such as /var/tmp, may be used.
SYSTEM = ("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "proc", "run", "sbin", "sys", "usr", "var")


def check_cache(cache: Path, name: str) -> None:
    """Raise UserError if packed pixels cannot or should not be written to a folder.

    An existing folder may be read-only: it may contain all pixels already.

    Args:
        cache: Folder of all packed stores.
        name: Name of the data set, with which the folder of a store begins.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(
            f"data.name must be a name without .. or a leading /, because folders are named by it, got {name}"
        )
    folder = Path(os.path.abspath(cache.expanduser()))  # noqa: PTH100  # resolve() would show the target of a link
    here = folder.resolve()
    if here.parent == here or str(here) in {str(Path(here.anchor, name)) for name in SYSTEM}:
        raise UserError(f"paths.cache={cache} is a folder of the system: choose a folder of your own")
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        raise UserError(f"paths.cache={cache} is not a folder, because {existing} is a file: choose another one")
    if existing != folder and not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(
            f"paths.cache={cache} cannot be created, because {existing} is not writable: choose another one"
        )
