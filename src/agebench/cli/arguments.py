"""The parser of the commands that take plain arguments instead of a config."""

import argparse
from typing import NoReturn

from agebench.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """Raises UserError for wrong arguments, so that the message has the form of the other commands."""

    def error(self, message: str) -> NoReturn:
        """Raise the error."""
        raise UserError(f"{message}; --help describes the arguments")
