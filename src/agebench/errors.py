"""The one exception whose message is meant for the person at the keyboard."""


class UserError(Exception):
    """The command, the config or the data is wrong; the message says what was needed, what came, and the fix.

    The verbs print the message without a traceback and exit with code 2.
    """
