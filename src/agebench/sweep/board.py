"""The progress display of a sweep: one line per running job and a total; without a terminal, plain log lines."""

import logging
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agebench.sweep.point import Point
from agebench.sweep.slots import Slot
from agebench.text import format_duration, visible

log = logging.getLogger("agebench.sweep")


class Board:
    """Shows the progress of the points of a sweep.

    Args:
        total: Number of points.
        at_once: Number of points that run at the same time.
        terminal: Whether lines can be redrawn.
    """

    def __init__(self, total: int, *, at_once: int, terminal: bool) -> None:
        self.total, self.at_once = total, at_once
        self.done: list[Point] = []
        self.running: dict[str, tuple[Point, Slot, dict[str, Any]]] = {}
        self.warned: set[str] = set()  # names of points
        self.warnings: set[str] = set()  # their warnings, each shown once
        self.live = (
            Live(console=Console(stderr=True), refresh_per_second=4, transient=True, get_renderable=self._render)
            if terminal
            else None
        )

    def __enter__(self) -> "Board":
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def show(self, text: str) -> None:
        """Write a permanent line."""
        if self.live is not None:
            self.live.console.print(visible(text), highlight=False, markup=False, soft_wrap=True)
        else:
            log.info("%s", text)

    def show_start(self, point: Point, slot: Slot) -> None:
        """Add a job that has started."""
        self.running[point.name] = (point, slot, {})
        where = f" on {slot}" if str(slot) else ""
        if self.live is None:
            self.show(f"{self._count(len(self.done) + len(self.running))} {point.name} starts{where}")

    def show_progress(self, point: Point, message: dict[str, Any]) -> None:
        """Update a job from a message of agebench.training.sweep_progress, or show the warning in a message."""
        if "warning" in message:
            self._warn(point, message["warning"])
        elif point.name in self.running:
            self.running[point.name][2].update(message)
            if self.live is None and message.get("epoch_ended"):
                self.show(f"{point.name}  {describe(message)}")

    def show_end(self, point: Point) -> None:
        """Remove a job that has ended, and write its outcome."""
        self.running.pop(point.name, None)
        self.done.append(point)
        completed = point.status == "completed"
        outcome = f"{point.status} after {point.seconds:.1f} s"
        if completed and point.was_complete:
            outcome = "was already complete"
        elif point.status == "failed" and (point.exit_code or 0) > 0:
            outcome += f" with exit code {point.exit_code}"
        if point.name in self.warned and completed:
            outcome += ", with other code"
        detail = f"{point.monitor} {point.best:.4f}" if completed else point.error
        self.show(f"{self._count(len(self.done))} {point.name} {outcome}{': ' if detail else ''}{detail}")
        if point.status == "failed":
            self.show(f"        its log: {point.folder}/console.log")

    def refresh(self) -> None:
        """Redraw, if there is a terminal."""
        if self.live is not None:
            self.live.refresh()

    def _warn(self, point: Point, warning: str) -> None:
        self.warned.add(point.name)
        if warning not in self.warnings:
            self.warnings.add(warning)
            self.show(f"warning: {point.name} {warning}")

    def _count(self, number: int) -> str:
        return f"[{number:>{len(str(self.total))}}/{self.total}]"

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for _ in range(3):
            table.add_column(no_wrap=True)
        for point, slot, message in self.running.values():
            table.add_row(Text(visible(point.name)), str(slot), describe(message))
        failed = sum(point.status == "failed" for point in self.done)
        total = f"{len(self.done)} of {self.total} done" + (f", {failed} failed" if failed else "")
        table.add_row(Text(total, style="bold"), "", f"eta {self._eta()}")
        return table

    def _eta(self) -> str:
        """Return the remaining time, estimated from the mean time of the completed points."""
        known = [point.seconds for point in self.done if point.status == "completed" and not point.was_complete]
        if not known:
            return "?"
        mean = sum(known) / len(known)
        return format_duration(mean * (self.total - len(self.done)) / self.at_once)


def describe(message: dict[str, Any]) -> str:
    """Return the progress of a job in one line."""
    if not message:
        return "is starting"
    epochs = f"/{message['epochs']}" if message.get("epochs") else ""
    parts = [f"epoch {message['epoch']}{epochs}"]
    parts += [f"{name} {value:.4f}" for name, value in message.get("metrics", {}).items()]
    parts.append(f"{message['images_per_s']:,.0f} img/s")
    if message.get("left_s") is not None:
        parts.append(f"eta {format_duration(message['left_s'])}")
    return "  ".join(parts)
