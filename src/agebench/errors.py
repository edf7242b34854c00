"""The exceptions whose message is meant for the person at the keyboard."""


class UserError(Exception):
    """The command, the config or the data is wrong; the message says what was needed, what came, and the fix.

    The verbs print the message without a traceback and exit with code 2.
    """


class BrokenImageError(UserError):
    """One image cannot be had; the message is the reason alone, for whoever raises it knows no row.

    Args:
        reason: Why.
        lasting: True if the file itself is wrong; False if it could not be read, which may pass.
    """

    def __init__(self, reason: str, *, lasting: bool = True) -> None:
        super().__init__(reason)
        self.lasting = lasting


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
        if isinstance(found, UserError):
            return str(found)
    return f"{type(error).__name__}: {error}"
