"""Hashes of the user's own code: what a config names outside agebench and outside installed libraries."""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from agebench.runs.identity import has_effect
from agebench.runs.read import mapping
from agebench.user_code import is_own


def own_code(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a hash of the user's own code for each `_target_`, 12 hex digits, by its dotted name.

    The hash is that of the file that defines the object, and of the user's files that it imports, directly or through
    each other. Imports are read from the text. The targets are imported, as the training does.

    Args:
        config: The composed config as plain data. Nodes that do not affect the result, such as loggers, are ignored.
    """
    files = {target: _files(_module_of(target)) for target in sorted(set(_targets(config)))}
    return {target: _hash(found) for target, found in files.items() if found}


def changed_code(before: object, now: Mapping[str, str]) -> str:
    """Return which code differs, as `NAME was HASH and is HASH now`; empty if none does or if it was not recorded.

    Args:
        before: `code` of results.json of an earlier start.
        now: What `own_code` returned.
    """
    known = mapping(before)
    return ", ".join(
        f"{name} was {known[name]} and is {sha} now" for name, sha in now.items() if known.get(name, sha) != sha
    )


def _targets(node: Any, key: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == "_target_" and isinstance(value, str) and has_effect(key):
                yield value
            yield from _targets(value, f"{key}.{name}".lstrip("."))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _targets(value, key)


def _module_of(target: str) -> str:
    """Return the module that defines an object, or else, as for an alias of a library's class, that which names it."""
    from pydoc import ErrorDuringImport, locate

    named = target.rpartition(".")[0]
    try:
        defined = str(getattr(locate(target), "__module__", named))
    except ErrorDuringImport:  # the training reports it
        return named
    return defined if _find_file(defined) else named


def _files(module: str) -> dict[str, bytes]:
    """Return the content of a module's file and of all files that it imports, by module, without those of libraries."""
    found: dict[str, bytes] = {}
    left = [module]
    while left:
        name = left.pop()
        file = None if name in found else _find_file(name)
        if file is not None:
            found[name] = file.read_bytes()
            left += _imports(found[name], name if file.name == "__init__.py" else name.rpartition(".")[0])
    return found


def _imports(text: bytes, package: str) -> Iterator[str]:
    """Yield the modules that a file imports.

    Args:
        text: The content of the file.
        package: The package to which relative imports are relative.
    """
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):  # a file that is imported only under some condition
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:
                continue
            for alias in node.names:
                yield inner if _find_file(inner := f"{base}.{alias.name}") else base


def _find_file(module: str) -> Path | None:
    """Return the file of a module, without importing it; None if it does not exist or is part of a library."""
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):  # ValueError: `__main__` of a script or a notebook
        return None
    if spec is None:
        return None
    places = [Path(spec.origin)] if spec.origin and spec.has_location and not rest else []
    for folder in spec.submodule_search_locations or () if rest else ():
        inner = Path(folder, *rest)
        places += [inner / "__init__.py", inner.with_name(f"{inner.name}.py")]
    file = next((place for place in places if place.suffix == ".py" and place.is_file()), None)
    return file if file is not None and is_own(str(file)) else None


def _hash(files: Mapping[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, text in sorted(files.items()):
        sha = hashlib.sha256(text.replace(b"\r\n", b"\n")).hexdigest()  # equal on Windows
        total.update(f"{name} {sha}\n".encode())
    return total.hexdigest()[:12]
