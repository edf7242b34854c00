"""What a sweep shows while it runs: a line a running job and a total, or plain lines where there is no terminal."""

import logging
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agebench.sweep.point import Point
from agebench.sweep.slots import Slot

log = logging.getLogger("agebench.sweep")


class Board:
    """Tells how the points of a sweep get on.

    Args:
        total: How many points there are.
        at_once: How many run at once.
        terminal: Whether lines can be redrawn.
    """

    def __init__(self, total: int, *, at_once: int, terminal: bool) -> None:
        self.total, self.at_once = total, at_once
        self.begin = time.monotonic()
        self.done: list[Point] = []
        self.running: dict[str, tuple[Point, Slot, dict[str, Any]]] = {}
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

    def say(self, text: str) -> None:
        """Write a line that stays."""
        if self.live is not None:
            self.live.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            log.info("%s", text)

    def started(self, point: Point, slot: Slot) -> None:
        """A job has begun."""
        self.running[point.name] = (point, slot, {})
        where = f" on {slot}" if str(slot) else ""
        if self.live is None:
            self.say(f"{self._count(len(self.done) + len(self.running))} {point.name} starts{where}")

    def progress(self, point: Point, message: dict[str, Any]) -> None:
        """A job tells how far it is."""
        if point.name in self.running:
            self.running[point.name][2].update(message)
            if self.live is None and message.get("epoch_ended"):
                self.say(f"{point.name}  {describe(message)}")

    def ended(self, point: Point) -> None:
        """A job has ended, one way or another."""
        self.running.pop(point.name, None)
        self.done.append(point)
        completed = point.status == "completed"
        told = f"{point.monitor} {point.best:.4f}" if completed else point.error
        how = f"{point.status} after {point.seconds:.1f} s"
        text = f"{self._count(len(self.done))} {point.name} "
        text += "was complete already" if completed and point.already else how
        self.say(f"{text}{': ' if told else ''}{told}")
        if point.status == "failed":
            self.say(f"        its log: {point.folder}/console.log")

    def refresh(self) -> None:
        """Redraw, if there is a terminal."""
        if self.live is not None:
            self.live.refresh()

    def _count(self, number: int) -> str:
        return f"[{number:>{len(str(self.total))}}/{self.total}]"

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for _ in range(3):
            table.add_column(no_wrap=True)
        for point, slot, message in self.running.values():
            table.add_row(Text(point.name), str(slot), describe(message))
        failed = sum(point.status == "failed" for point in self.done)
        total = f"{len(self.done)} of {self.total} done" + (f", {failed} failed" if failed else "")
        table.add_row(Text(total, style="bold"), "", f"left {self._left()}")
        return table

    def _left(self) -> str:
        """Return how long the rest will take if it goes on like this."""
        known = [point.seconds for point in self.done if point.status == "completed" and not point.already]
        if not known:
            return "?"
        each = sum(known) / len(known)
        left = each * (self.total - len(self.done)) / self.at_once
        return clock(left)


def describe(message: dict[str, Any]) -> str:
    """Return how far a job is, in a line."""
    if not message:
        return "is getting ready"
    epochs = f"/{message['epochs']}" if message.get("epochs") else ""
    parts = [f"epoch {message['epoch']}{epochs}"]
    parts += [f"{name} {value:.4f}" for name, value in message.get("metrics", {}).items()]
    parts.append(f"{message['images_per_s']:,.0f} img/s")
    if message.get("left_s") is not None:
        parts.append(f"eta {clock(message['left_s'])}")
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """Return a time as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
