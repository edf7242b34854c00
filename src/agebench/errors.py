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
