"""Exceptions with messages for the user, and helpers for such messages."""

import re
import unicodedata
from collections.abc import Iterable


class UserError(Exception):
    """The command, the config or the data is wrong. The message names the expected and the given value, and the fix.

    The commands print the message without a traceback and exit with code 2.
    """


class FailedError(Exception):
    """A job failed although command, config and data are right. The message says what happened and what may help.

    The commands print the message without a traceback and exit with code 1.
    """


class SweepError(FailedError):
    """Some points of a sweep failed. Each failure was reported before."""


class NoImagesError(UserError):
    """The data set can be listed, but none of its images is available. This is sufficient for an audit."""


class BrokenImageError(UserError):
    """One image cannot be read. The message is the reason alone; the caller adds the name of the image.

    Args:
        reason: Why the image cannot be read.
        lasting: True if the file itself is damaged; False if a later attempt to read the file may succeed.
    """

    def __init__(self, reason: str, *, lasting: bool = True) -> None:
        super().__init__(reason)
        self.lasting = lasting


OUT_OF_MEMORY = "the memory is exhausted: use a smaller batch size, image size or model, or close other programs"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, or one in its chain, says that no memory of the CPU or the GPU is left."""
    texts = (
        "can't allocate memory",
        "Cannot allocate memory",
        "not enough memory",
        "out of memory",
        "Unable to allocate",
    )
    return any(
        isinstance(each, MemoryError)
        or type(each).__name__ == "OutOfMemoryError"
        or (isinstance(each, RuntimeError | OSError | ImportError) and any(text in str(each) for text in texts))
        for each in chain(error)
    )


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return ` (did you mean ...?)` with the known name closest to an unknown name; empty if no name is close."""
    close = nearest(str(name), known)
    return "" if close is None else f" (did you mean {close!r}?)"


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """Return the known name closest to an unknown name, or None if none is close.

    Case, spaces and full-width forms are ignored.

    Args:
        name: The unknown name.
        known: The known names.
        cutoff: The least similarity of two names, from 0 to 1.
    """
    from difflib import get_close_matches  # slow to import, and rarely needed

    by_key = {fold(each): each for each in reversed(list(known))}
    close = get_close_matches(fold(name), by_key, n=1, cutoff=cutoff)
    return by_key[close[0]] if close else None


def fold(text: str) -> str:
    """Return a text without the differences that readers overlook: case, spaces and full-width forms."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def chain(error: BaseException) -> list[BaseException]:
    """Return an exception and its causes, the last raised exception first."""
    found: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in found:
        found.append(link)
        link = link.__cause__ or link.__context__
    return found


def one_line(text: str) -> str:
    """Return a text in one line. Full-width spaces are kept, because a message must show them as they were typed."""
    return re.sub(r"\s+", " ", text, flags=re.ASCII).strip(" ")


def one_line_message(error: BaseException) -> str:
    """Return the message of a library's exception in one line, or its type if the message is empty."""
    return one_line(str(error)) or type(error).__name__
