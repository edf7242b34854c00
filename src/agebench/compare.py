"""`python -m agebench.compare`: compare runs over seeds, on the same test images."""

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from agebench.cli.arguments import ArgumentParser
from agebench.errors import UserError, did_you_mean
from agebench.text import listed, page_link, say, visible

FORMATS = ("md", "csv", "html", "json", "latex")
WITHOUT_NOTES = ("csv", "json", "latex")  # formats that cannot contain notes


def main() -> None:
    """Run the command: exit code 0, or 2 if the command or a folder is wrong."""
    try:
        given = _parser().parse_args()
        formats = _formats(given.format, several=given.output is not None)
        _compare(given, formats)
    except UserError as error:
        say(f"agebench compare: {error}")
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m agebench.compare",
        description="Group runs that differ only in the seed, rank the groups by a test metric, and show the "
        "uncertainty of their differences. Runs of different protocols, or on different test images, "
        "are never ranked together.",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="folders of runs, sweeps or evaluations; folders below them are searched for runs",
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="the test metric to rank by (default: mae for ages in years, else accuracy)",
    )
    parser.add_argument(
        "--age-limit",
        type=int,
        metavar="YEARS",
        help="compare decisions at this age limit, such as 18, for all runs; needs their predictions.csv",
    )
    parser.add_argument(
        "--by",
        metavar="COLUMN",
        help="rank within each group of test images, such as sex, or sex,race for pairs; needs groups.csv of a run or "
        "of an evaluation (data.groups)",
    )
    parser.add_argument(
        "--gaps",
        metavar="COLUMNS",
        help="add the gap between the groups of test images with the worst and the best result, such as sex,race for a "
        "gap by sex and one by race; for ages also the age-standardised gap; needs what --by needs",
    )
    parser.add_argument(
        "--columns",
        metavar="NAMES",
        help="show these further metrics instead of the usual ones, such as 'nll,coverage,false_adult_rate*'",
    )
    parser.add_argument(
        "--evaluations",
        action="store_true",
        help="compare the evaluations of these runs too; otherwise only if their own folders are given",
    )
    parser.add_argument(
        "--format", metavar="NAMES", default="md", help=f"{', '.join(FORMATS)}; several need --output (default: md)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="write compare.md, ... and figures there instead of printing"
    )
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="write only the figures there, and print the table")
    return parser


def _names(text: str | None, option: str) -> list[str]:
    """Return the names in the text of an option, such as sex,race; nothing if it was not given."""
    if text is not None and not listed(text):
        raise UserError(f"{option} needs one or more names, separated by commas, got {text!r}")
    return listed(text or "")


def _formats(text: str, *, several: bool) -> list[str]:
    names = listed(text)
    for name in names:
        if name not in FORMATS:
            raise UserError(
                f"--format {name!r} does not exist{did_you_mean(name, FORMATS)}: choose from {', '.join(FORMATS)}"
            )
    if not names:
        raise UserError(f"--format needs one or more of {', '.join(FORMATS)}, got {text!r}")
    if len(names) > 1 and not several:
        raise UserError(f"--format {','.join(names)} makes several files: add --output FOLDER")
    return names


def _compare(given: argparse.Namespace, formats: Sequence[str]) -> None:
    # These load NumPy, which --help and wrong arguments do not need.
    from agebench.comparison import render
    from agebench.comparison.make import Request, compare_folders

    output = given.output
    request = Request(
        metric=given.metric,
        age_limit=given.age_limit,
        by=_names(given.by, "--by"),
        gaps=_names(given.gaps, "--gaps"),
        columns=_names(given.columns, "--columns") or None,
        evaluations=given.evaluations,
    )
    compared = compare_folders(given.folders, request, note=say)
    if compared.not_comparable:
        say(compared.not_comparable)
    for folder, names in ((output, formats), (given.plot, ())):
        if folder is not None:
            from agebench.comparison.write import write_comparison

            for path in write_comparison(compared, folder, names):
                say(f"written: {page_link(path) if path.suffix == '.html' else path}")
    if output is not None:
        return
    if formats[0] in WITHOUT_NOTES:
        for note in render.notes_of(compared):
            say(note)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file is always UTF-8; a terminal keeps its encoding
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="backslashreplace")
    with contextlib.suppress(BrokenPipeError):  # `| head` closes the pipe
        text = render.RENDERERS[formats[0]](compared)
        print(visible(text) if sys.stdout.isatty() else text, end="", flush=True)


if __name__ == "__main__":
    main()
