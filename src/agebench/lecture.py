"""`python -m agebench.lecture NAME`: draw what a lecture explains, computed from real numbers."""

import importlib
import sys
from pathlib import Path

from agebench.cli.arguments import ArgumentParser
from agebench.errors import FailedError, UserError, did_you_mean
from agebench.text import say

LECTURES = {
    "kernels": "convolution step by step: four kernels on a digit and on a drawn face",
    "pooling": "max pooling step by step, and what a shift by 1 px changes",
    "activations": "activation functions and their derivatives, and softmax",
    "optimizers": "the paths of SGD, momentum, AdaGrad, RMSprop and Adam on one surface",
    "overfitting": "overfitting and early stopping: two trainings on 100 digits",
}


def main() -> None:
    """Run the command: exit code 0, 1 if a training failed, or 2 if the command is wrong."""
    try:
        _run()
    except (UserError, FailedError) as error:
        say(f"agebench lecture: {error}")
        sys.exit(1 if isinstance(error, FailedError) else 2)
    except KeyboardInterrupt:
        say("agebench lecture: interrupted")
        sys.exit(1)


def _run() -> None:
    parser = ArgumentParser(
        prog="python -m agebench.lecture",
        description="Draw what a lecture explains: PNG files, and the numbers behind them as CSV.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"{', '.join(LECTURES)}; without it, they are listed")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="output folder (default: outputs/lectures/NAME)")
    given = parser.parse_args()
    if given.name is None:
        print("\n".join(f"{name:<12} {purpose}" for name, purpose in LECTURES.items()))
        return
    if given.name not in LECTURES:
        raise UserError(
            f"lecture {given.name!r} does not exist{did_you_mean(given.name, LECTURES)}: choose from "
            f"{', '.join(LECTURES)}"
        )
    for path in draw(given.name, given.out or Path("outputs", "lectures", given.name)):
        say(f"written: {path}")


def draw(name: str, folder: Path) -> list[Path]:
    """Write the pictures and tables of a lecture to a folder, which is created, and return their paths.

    Raises:
        UserError: If the folder cannot be written.
    """
    from agebench.report.style import plot_style

    lecture = importlib.import_module(f"agebench.lectures.{name}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with plot_style():
            written: list[Path] = lecture.draw(folder)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from error
    return written


if __name__ == "__main__":
    main()
