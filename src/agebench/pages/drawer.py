"""Draws the reports of runs in a process of its own, which has imported Matplotlib while the run trained.

The process has a low priority and imports no torch. A sweep has one for all its points.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agebench.progress import VARIABLE
from agebench.runs.folder import report_command

log = logging.getLogger(__name__)

NICE = 10  # training goes first
TIMEOUT_S = 300.0  # for a report; it takes about a second


class Drawer:
    """The process that draws reports. It starts immediately, and ends with this process.

    Args:
        level: `light` or `full`.
    """

    def __init__(self, level: str) -> None:
        self.level = level
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        environment[VARIABLE] = "0"  # it works in the background
        environment |= {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}  # noqa: PTH109
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            encoding="utf-8",
        )
        self.thread: ThreadPoolExecutor | None = None
        self.asked: list[tuple[Path, Future[str]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def draw(self, folder: Path) -> None:
        """Draw the report of a run folder, after those that were asked for before."""
        if self.thread is None:  # not earlier, because a run may fork processes
            self.thread = ThreadPoolExecutor(1, thread_name_prefix="drawer")
        self.asked.append((folder, self.thread.submit(self._ask, folder)))

    def draw_missing(self, folder: Path) -> None:
        """Draw the report of a run folder that has no page; a run that starts removes its old page."""
        if not page_of(folder).is_file():
            self.draw(folder)

    @property
    def left(self) -> int:
        """The number of reports that are not drawn yet."""
        return sum(not answer.done() for _, answer in self.asked)

    def finish(self) -> list[Path]:
        """Wait until everything is drawn. Return the pages, and log a warning for each report that failed."""
        pages = []
        while self.asked:
            folder, answer = self.asked.pop(0)
            try:
                why = answer.result(TIMEOUT_S)
            except TimeoutError:
                why = f"it took more than {TIMEOUT_S:g} s"
                self.process.kill()
            if why:
                again = report_command(folder, level=self.level)
                log.warning("the report of %s failed (%s); to make it: %s", folder, why, again)
            else:
                pages.append(page_of(folder))
        return pages

    def close(self) -> None:
        """End the process. Reports that are not drawn yet are not drawn."""
        if self.asked:
            left = [folder for folder, answer in self.asked if not answer.done()]
            if left:
                log.warning(
                    "%d reports are not drawn; to make one: %s", len(left), report_command(left[0], level=self.level)
                )
        self.process.kill()
        if self.thread is not None:
            self.thread.shutdown(cancel_futures=True)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self.process.wait()

    def _ask(self, folder: Path) -> str:
        """Return why a report could not be drawn; empty if it was."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"folder": str(folder.absolute()), "level": self.level}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except (OSError, ValueError):  # ValueError: closed
            answer = ""
        if not answer:
            return "the process that draws it ended"
        return str(json.loads(answer)["error"])


def level_of(report: Any) -> str:
    """Return the level of the key `report`: true means light."""
    return "full" if report == "full" else "light"


def page_of(folder: Path) -> Path:
    """Return the absolute path of the page of a run."""
    return (folder / "report" / "index.html").absolute()


def serve(lines: Any, answer: Any) -> None:
    """Draw the report for each line of JSON, and answer with a line of JSON: `error` is empty if it is complete."""
    parent = os.getppid()
    _prepare()
    for line in lines:
        if os.getppid() != parent:
            return
        asked = json.loads(line)
        try:
            make_report(Path(asked["folder"]), level=asked["level"], board=True)
            error = ""
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
        answer.write(json.dumps({"error": error}) + "\n")
        answer.flush()


def _prepare() -> None:
    """Import what a report needs, and draw a figure, because the first one loads the fonts."""
    import io

    import agebench.pages.pictures
    import agebench.pages.run_page  # noqa: F401
    from agebench.report.style import new_figure, plot_style

    with plot_style():
        new_figure(3, 2, "report").savefig(io.BytesIO())


def make_report(folder: Path, *, level: Any, board: bool = False) -> Path:
    """Draw the pictures of a run and write its page; return the path of the page.

    Args:
        folder: The run folder.
        level: `light` or `full`.
        board: Whether to add the pictures to TensorBoard, if the run has its files, and the report to the trackers
            that tracking.json names.

    Raises:
        OSError: If a file cannot be written.
    """
    from agebench.pages.board import add_pictures
    from agebench.pages.material import Material
    from agebench.pages.pictures import draw_pictures
    from agebench.pages.run_page import write_page
    from agebench.pages.trackers import add_report

    run = Material.of(folder)
    drawn = list(draw_pictures(run, level=level))
    page = write_page(run, drawn, level=level)
    if board:
        pictures, step = [path for _, path in drawn], run.run.result("steps")
        add_pictures(folder, pictures, step=step)
        add_report(folder, page, pictures, step=step)
    return page


def rewrite_page(folder: Path) -> Path | None:
    """Write the page of a run again, with the pictures that it has, and return its path; None if it has no page."""
    if not page_of(folder).is_file():
        return None
    from agebench.pages.material import Material
    from agebench.pages.pictures import drawn_pictures
    from agebench.pages.run_page import write_page

    run = Material.of(folder)
    drawn = drawn_pictures(run)
    return write_page(run, drawn, level="full" if any(picture.level == "full" for picture, _ in drawn) else "light")


def main(arguments: Sequence[str] = ()) -> None:
    """Draw what another process asks for on stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to this process too; the other one ends it
    if hasattr(os, "nice"):
        os.nice(NICE)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints must not answer
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # a TextIOWrapper
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
