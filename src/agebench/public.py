"""Public names of a package: a class has a dotted name with its package, without the file that defines it."""

import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any


def find_public(package: str, name: str) -> Any:
    """Return a public class or function of a package, importing only the file that defines it.

    A package uses it as its `__getattr__`, so that `agebench.heads.CORAL` works without a list of names to maintain.

    Args:
        package: Dotted name, such as `agebench.heads`.
        name: Name of a class or function at the top level of a file directly inside the package.

    Raises:
        AttributeError: If no file defines it.
    """
    file = None if name.startswith("_") else public_names(package).get(name)
    if file is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{package}.{file}"), name)


@cache
def public_names(package: str) -> dict[str, str]:
    """Return the public classes and functions of a package, each with the stem of its file, without importing them."""
    (folder,) = importlib.import_module(package).__path__
    files = {file.stem: file.read_text(encoding="utf-8") for file in sorted(Path(folder).glob("[!_]*.py"))}
    found = {
        name: stem
        for stem, text in files.items()
        for name in re.findall(r"^(?:class|def) ([A-Za-z]\w*)", text, re.MULTILINE)
    }
    return {name: stem for name, stem in found.items() if name not in files}  # such a name is a module
