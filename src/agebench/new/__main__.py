"""`python -m agebench.new`: write the files of an own backbone, head, data set, ... to start from."""

import argparse
import sys
from pathlib import Path

from agebench.cli.arguments import ArgumentParser
from agebench.errors import UserError
from agebench.new.scaffold import KINDS, write_scaffold
from agebench.text import say


def main() -> None:
    """Run the command: exit code 0, or 2 if the command is wrong."""
    try:
        given = _parser().parse_args()
        folder = _folder(given.folder, given.name if given.kind == "project" else ".")
        written = write_scaffold(given.kind, given.name, folder)
    except UserError as error:
        say(f"agebench new: {error}")
        sys.exit(2)
    for path in written:
        say(f"written: {path}")
    print("\n".join(_next_steps(given.kind, given.name, folder)))


def _parser() -> argparse.ArgumentParser:
    kinds = "\n".join(f"  {kind:<12}{each.purpose}" for kind, each in KINDS.items())
    parser = ArgumentParser(
        prog="python -m agebench.new",
        usage="python -m agebench.new KIND NAME [folder=FOLDER]",
        description="Write code, a YAML file and a test that pass at once, to start from. Nothing is overwritten.\n\n"
        f"kinds\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("name", metavar="NAME", help="lower-case letters, digits and _, such as tiny_net")
    parser.add_argument(
        "folder",
        metavar="folder=FOLDER",
        nargs="?",
        help="the folder to write into (default: this folder; for a project, a new folder NAME)",
    )
    return parser


def _folder(typed: str | None, default: str) -> Path:
    key, _, value = (typed or f"folder={default}").partition("=")
    if key != "folder" or not value:
        raise UserError(f"the third argument must be folder=FOLDER, got {typed}")
    return Path(value).expanduser()


def _next_steps(kind: str, name: str, folder: Path) -> list[str]:
    enter = [] if folder == Path() else [f"  cd {folder}"]
    lines = [
        "next:",
        *enter,
        "  python -m pytest",
        f"  python -m agebench.train --config-dir conf {KINDS[kind].train.replace('NAME', name)}",
    ]
    if kind not in ("experiment", "project"):
        lines.append("evaluate, predict, calibrate, export and resume= run this code only with trust=true")
    return lines


if __name__ == "__main__":
    main()
