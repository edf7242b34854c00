"""Plain text for a terminal: columns that line up, durations, and text without control characters."""

import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

# Characters that a terminal obeys or that reorder a line: controls except tab and line feed, line separators, marks of
# the writing direction, and halves of surrogate pairs.
INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Characters that Markdown obeys. A _ inside a word is plain text.
MARKDOWN = re.compile(r"[\\`*]|(?<![^\W_])_|_(?![^\W_])|~(?=~)|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<=\])[(\[]")


def visible(text: str) -> str:
    """Return a text with control characters as escapes, such as `\\x1b`. Tabs and line feeds are unchanged."""
    return INVISIBLE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line. In a table, `|` must be escaped too."""
    return MARKDOWN.sub(r"\\\g<0>", visible(" ".join(text.splitlines())))


def listed(text: str) -> list[str]:
    """Return the names in a text, which are separated by commas, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


@contextmanager
def above_bars() -> Iterator[None]:
    """Context manager: remove the progress bars while a line is written, and draw them again below it."""
    if (tqdm := sys.modules.get("tqdm")) is None:  # no bar exists
        yield
        return
    with tqdm.tqdm.external_write_mode(file=sys.stderr):
        yield


def say(text: str) -> None:
    """Print a text without control characters to stderr."""
    with above_bars():
        print(visible(text), file=sys.stderr, flush=True)


def page_link(page: Path) -> str:
    """Return the URL of a page on this computer, which a terminal opens in the browser at a click.

    Most terminals recognise URLs, but not paths. Spaces and Japanese are escaped.
    """
    return page.absolute().as_uri()


class ConsoleHandler(logging.StreamHandler[TextIO]):
    """Writes log messages above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message."""
        with above_bars():
            super().emit(record)


class VisibleFormatter(logging.Formatter):
    """Formats log messages without control characters, for a terminal and for files that are shown on one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message as text."""
        return visible(super().format(record))


def align_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], right_aligned: Sequence[bool], *, min_width: int = 0
) -> list[list[str]]:
    """Return a table with every cell padded to the width of its column.

    Args:
        header: The name of each column.
        rows: The cells of each row, as many as there are columns.
        right_aligned: For each column, whether its cells are aligned to the right, as numbers are.
        min_width: Width of the narrowest column, in characters.

    Returns:
        The header and the rows with padded cells. The caller joins the cells with the separator of its format.
    """
    lines = [header, *rows]
    widths = [max(min_width, *map(len, column)) for column in zip(*lines, strict=True)]
    return [
        [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, right_aligned, strict=True)
        ]
        for line in lines
    ]


def format_duration(seconds: float) -> str:
    """Return a duration as h:mm:ss, rounded to whole seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
