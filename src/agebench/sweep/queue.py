"""Runs the points of a sweep: each in a separate process, and one process per slot at a time."""

import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait

from agebench.pages.drawer import Drawer
from agebench.sweep.board import Board
from agebench.sweep.job import Context, Job
from agebench.sweep.point import Point
from agebench.sweep.slots import Slot

GRACE_S = 20.0  # seconds between SIGTERM and SIGKILL, in which a job can save its state
POLL_S = 0.5  # seconds between two checks of the time limit


class Queue:
    """Assigns points to free slots until all have run.

    Args:
        context: Starts processes, from agebench.sweep.job.
        slots: Each runs one job at a time.
        board: Shows the progress.
        timeout: Seconds that a job may take; None is no limit.
        fail_fast: Whether the first failure stops the others.
        drawer: Draws the reports of completed points beside the next jobs, or None.
    """

    def __init__(
        self,
        context: Context,
        slots: Sequence[Slot],
        board: Board,
        *,
        timeout: float | None,
        fail_fast: bool,
        drawer: Drawer | None = None,
    ) -> None:
        self.context, self.slots, self.board = context, list(slots), board
        self.timeout, self.fail_fast, self.drawer = timeout, fail_fast, drawer
        self.running: dict[Job, float] = {}  # start time by the monotonic clock

    def run(self, points: Sequence[Point]) -> None:
        """Run every point and set its status.

        Raises:
            KeyboardInterrupt: On Ctrl-C, and on the signals of agebench.interrupts, after the jobs have ended.
        """
        free, waiting = list(self.slots), list(points)
        with self.board:
            try:
                while waiting or self.running:
                    while waiting and free:
                        self._start(waiting.pop(0), free.pop(0))
                    for job in self._ended():
                        free.append(job.slot)
                        if job.point.status == "failed" and self.fail_fast:
                            waiting.clear()
                            self._stop("interrupted")
                if self.drawer is not None:
                    if left := self.drawer.left:
                        self.board.show(
                            f"drawing the last {left} report{'s' if left > 1 else ''}; Ctrl-C leaves them out"
                        )
                    self.drawer.finish()
            except KeyboardInterrupt:
                self.board.show("stopping: the jobs save their state")
                self._stop("interrupted")
                raise
            finally:
                for job in list(self.running):
                    self._close(job, stopped="interrupted")

    def _start(self, point: Point, slot: Slot) -> None:
        point.begin()
        self.running[Job(self.context, point, slot, jobs=len(self.slots))] = time.monotonic()
        self.board.show_start(point, slot)

    def _ended(self) -> Iterator[Job]:
        """Wait for an event, at most POLL_S. Pass messages to the board. Close and yield the jobs that have ended."""
        lines = [job.line for job in self.running if not job.line.closed]
        wait([*(job.process.sentinel for job in self.running), *lines], POLL_S)
        for job, since in list(self.running.items()):
            if job not in self.running:  # stopped because another job failed
                continue
            self._show_messages(job)
            late = self.timeout is not None and time.monotonic() - since > self.timeout
            if late or not job.process.is_alive():
                self._close(job, stopped=f"did not end within launcher.timeout={self.timeout:g} s" if late else "")
                yield job
        self.board.refresh()

    def _show_messages(self, job: Job) -> None:
        for message in job.messages():
            self.board.show_progress(job.point, message)

    def _close(self, job: Job, *, stopped: str) -> None:
        job.point.seconds = time.monotonic() - self.running.pop(job)
        self._show_messages(job)  # those that it sent before it ended
        job.point.close(job.end(), stopped=stopped)
        self.board.show_end(job.point)
        if self.drawer is not None and job.point.status == "completed" and job.point.report:
            self.drawer.draw_missing(job.point.folder)

    def _stop(self, why: str) -> None:
        """Ask all jobs to end, and kill those that have not after GRACE_S."""
        for job in self.running:
            job.signal(signal.SIGINT)
        until = time.monotonic() + GRACE_S
        while self.running and time.monotonic() < until:
            wait([job.process.sentinel for job in self.running], POLL_S)
            for job in [job for job in self.running if not job.process.is_alive()]:
                self._close(job, stopped=why)
        for job in list(self.running):
            self._close(job, stopped=why)
