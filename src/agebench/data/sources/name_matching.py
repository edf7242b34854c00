"""Which of the files found is which of the images listed, however unpacking has spelled their names."""

import html
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import TypeVar
from unicodedata import normalize
from urllib.parse import unquote

from agebench.data.readers.folders import nfc

log = logging.getLogger(__name__)

OTHERS = re.compile(r"[^A-Za-z0-9]+")
ENDING = re.compile(r"\.jpe?g$", re.IGNORECASE)
ESCAPE = re.compile(r"#U([0-9a-fA-F]{4})")  # of Info-ZIP's unzip
T = TypeVar("T")


def match_names(listed: Sequence[str], found: Sequence[str]) -> list[str | None]:
    """Find the file of each listed image.

    A name that is not there as it is written may be there in another Unicode form or case, with another ending of
    JPEG, without its accents or apostrophes, with escapes, or as UTF-8 that was read in another code page. Whatever
    two listed images or two files share says nothing, and is not used.

    Args:
        listed: Bare names of N images, each once.
        found: Paths of files, with `/`; only what is behind the last one counts.

    Returns:
        N paths, None for an image that no file is.
    """
    files = {_bare_name(path): path for path in sorted(found, reverse=True)}  # of copies, the first
    matched = [files.get(name) for name in listed]
    left = files.keys() - {name for name, path in zip(listed, matched, strict=True) if path is not None}
    if left and None in matched:
        rows = _index((key, row) for row, name in enumerate(listed) for key in _keys(name))
        for read, key in product(READINGS, KEYS):
            for shared, name in _index((key(read(name)), name) for name in left).items():
                row = rows.get(shared)
                if row is not None and name is not None and matched[row] is None:
                    matched[row] = files[name]
                    left.remove(name)
    if left and None in matched:
        match = "image file matches" if len(left) == 1 else "image files match"
        log.warning("%s %s no image that is listed, such as %r", f"{len(left):,}", match, min(left))
    if len(files) < len(found):
        taken = {_bare_name(path) for path in matched if path is not None}
        copies = [path for path in found if _bare_name(path) in taken and files[_bare_name(path)] != path]
        if copies:
            has = "image file has" if len(copies) == 1 else "image files have"
            first = min(copies)
            log.warning(
                "%s %s the name of another in another folder and %s left out, such as %r, for %r is there",
                f"{len(copies):,}",
                has,
                "is" if len(copies) == 1 else "are",
                first,
                files[_bare_name(first)],
            )
    return matched


def _bare_name(path: str) -> str:
    return path.rpartition("/")[2]


def _index(pairs: Iterable[tuple[str, T]]) -> dict[str, T | None]:
    """Return what each key stands for, None if that is more than one thing."""
    index: dict[str, T | None] = {}
    for key, value in pairs:
        if index.setdefault(key, value) != value:
            index[key] = None
    return index


def _keys(name: str) -> set[str]:
    return {key(name) for key in KEYS}


def _spelling(name: str) -> str:
    return ENDING.sub(".jpg", nfc(name).casefold())


def _without_letters(name: str) -> str:
    """Drop every letter that has an accent: a code page makes anything of it, but hardly ever an ASCII one."""
    return OTHERS.sub("", ENDING.sub("", nfc(name))).lower()


def _without_accents(name: str) -> str:
    return OTHERS.sub("", ENDING.sub("", normalize("NFKD", name))).lower()


def _as_is(name: str) -> str:
    return name


def _unescaped(name: str) -> str:
    """Resolve `#U00eb`, `%C3%AB` and `&#235;`."""
    return html.unescape(unquote(ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), name)))


def _undone(name: str) -> str:
    """Take UTF-8 that was read as Shift-JIS back to what it says: an accent there may have swallowed a letter."""
    try:
        return name.encode("cp932", "surrogateescape").decode()
    except UnicodeError:
        return name


KEYS: tuple[Callable[[str], str], ...] = (_spelling, _without_letters, _without_accents)
READINGS: tuple[Callable[[str], str], ...] = (_as_is, _unescaped, _undone)
