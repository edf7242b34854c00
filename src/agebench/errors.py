"""The exceptions whose message is meant for the person at the keyboard, and what such messages share."""

from collections.abc import Iterable


class UserError(Exception):
    """The command, the config or the data is wrong; the message says what was needed, what came, and the fix.

    The verbs print the message without a traceback and exit with code 2.
    """


class FailedError(Exception):
    """A job failed although command, config and data are right; the message says what happened and what may help.

    The verbs print the message without a traceback and exit with code 1.
    """


class SweepError(FailedError):
    """Some points of a sweep failed; each of them has been reported."""


class NoImagesError(UserError):
    """The data set can be listed and none of its images is there, which is enough for an audit."""


class BrokenImageError(UserError):
    """One image cannot be had; the message is the reason alone, for whoever raises it knows no row.

    Args:
        reason: Why.
        lasting: True if the file itself is wrong; False if it could not be read, which may pass.
    """

    def __init__(self, reason: str, *, lasting: bool = True) -> None:
        super().__init__(reason)
        self.lasting = lasting


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return what follows an unknown name in a sentence: the known one that is nearest, in brackets, or nothing."""
    from difflib import get_close_matches  # slow to import, and only needed for a mistake

    close = get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def chain(error: BaseException) -> list[BaseException]:
    """Return an exception and those that led to it, the last first."""
    found: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in found:
        found.append(link)
        link = link.__cause__ or link.__context__
    return found


def reason(error: BaseException) -> str:
    """Return what to write down of an exception: the sentence meant for the user if there is one in its chain."""
    for found in chain(error):
        if isinstance(found, UserError | FailedError):
            return str(found)
    return f"{type(error).__name__}: {error}"


def told(error: BaseException) -> str:
    """Return what an error of somebody else's says, in one line, or its kind if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
