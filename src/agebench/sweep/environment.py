"""Environment variables that are set for a limited time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def set_variable(name: str, value: str | None) -> Iterator[None]:
    """Context manager: set an environment variable, or remove it if the value is None, and restore it at the end."""
    before = os.environ.get(name)
    _set(name, value)
    try:
        yield
    finally:
        _set(name, before)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
