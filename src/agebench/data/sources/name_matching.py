"""Match listed image names to files whose names were changed by unpacking."""

import html
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import TypeVar
from unicodedata import normalize
from urllib.parse import unquote

from agebench.data.readers.folders import nfc

log = logging.getLogger(__name__)

NOT_ALPHANUMERIC = re.compile(r"[^A-Za-z0-9]+")
EXTENSION = re.compile(r"\.jpe?g$", re.IGNORECASE)
ESCAPE = re.compile(r"#U([0-9a-fA-F]{4})")  # of Info-ZIP's unzip
T = TypeVar("T")


def match_names(listed: Sequence[str], found: Sequence[str]) -> list[str | None]:
    """Find the file of each listed image.

    If no file has the exact name, a file may have it in another Unicode form or case, with another JPEG extension,
    without accents or apostrophes, with escapes, or as UTF-8 that was decoded in another code page. A form of a name
    that two listed images or two files share is ambiguous, and is not used.

    Args:
        listed: Names of N images without folders, unique.
        found: Paths of files, with `/`; only the part after the last `/` is compared.

    Returns:
        The path of each of the N images, None if it has no file.
    """
    files = {_bare_name(path): path for path in sorted(found, reverse=True)}  # the first of several copies
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
        log.warning("%s %s no listed image, such as %r", f"{len(left):,}", match, min(left))
    if len(files) < len(found):
        _warn_of_copies(found, {_bare_name(path): path for path in matched if path is not None})
    return matched


def _warn_of_copies(found: Sequence[str], used: Mapping[str, str]) -> None:
    """Log a warning about files that have the same name as a used file in another folder."""
    copies = [path for path in found if used.get(_bare_name(path), path) != path]
    if copies:
        first = min(copies)
        log.warning(
            "%s %s ignored, because another folder has a file of the same name: for example %r, because %r is used",
            f"{len(copies):,}",
            "image file is" if len(copies) == 1 else "image files are",
            first,
            used[_bare_name(first)],
        )


def _bare_name(path: str) -> str:
    return path.rpartition("/")[2]


def _index(pairs: Iterable[tuple[str, T]]) -> dict[str, T | None]:
    """Return the value of each key; None if a key has several values."""
    index: dict[str, T | None] = {}
    for key, value in pairs:
        if index.setdefault(key, value) != value:
            index[key] = None
    return index


def _keys(name: str) -> set[str]:
    return {key(name) for key in KEYS}


def _normalized(name: str) -> str:
    return EXTENSION.sub(".jpg", nfc(name).casefold())


def _ascii_only(name: str) -> str:
    """Return a name without accented letters, which a wrong code page rarely turns into ASCII letters."""
    return NOT_ALPHANUMERIC.sub("", EXTENSION.sub("", nfc(name))).lower()


def _without_accents(name: str) -> str:
    return NOT_ALPHANUMERIC.sub("", EXTENSION.sub("", normalize("NFKD", name))).lower()


def _as_is(name: str) -> str:
    return name


def _unescape(name: str) -> str:
    """Return a name with escapes such as `#U00eb`, `%C3%AB` and `&#235;` decoded."""
    return html.unescape(unquote(ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), name)))


def _undo_shift_jis(name: str) -> str:
    """Return the original of a name whose UTF-8 was decoded as Shift-JIS; an accent may be merged with a letter."""
    try:
        return name.encode("cp932", "surrogateescape").decode()
    except UnicodeError:
        return name


KEYS: tuple[Callable[[str], str], ...] = (_normalized, _ascii_only, _without_accents)
READINGS: tuple[Callable[[str], str], ...] = (_as_is, _unescape, _undo_shift_jis)
