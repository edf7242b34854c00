"""Progress of long work: a bar in a terminal, plain lines elsewhere, both with the rate and the remaining time.

    with Bar("packing", total=3000) as bar:
        for chunk in chunks:
            ...
            bar.update(len(chunk))

AGEBENCH_PROGRESS=0 disables both. Messages of agebench.text appear above the bars.
"""

import os
import sys
import time
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from agebench.text import format_duration, say, visible

DELAY_S = 0.5  # shorter work shows nothing
REDRAW_S = 0.1
LINE_S, LONGEST_S = 10.0, 60.0  # between two lines: at least LINE_S, and 10% of the work or LONGEST_S
VARIABLE = "AGEBENCH_PROGRESS"
FORMAT = "{label} {percentage:3.0f}%|{bar}| {figures}"


def is_shown() -> bool:
    """Return whether this process shows progress: not with AGEBENCH_PROGRESS=0, and only the first DDP process."""
    return os.environ.get(VARIABLE) != "0" and os.environ.get("LOCAL_RANK", "0") in ("", "0")


class Bar:
    """Shows the progress of one piece of work; a context manager.

    `update` takes a microsecond. The bar is redrawn at most ten times a second and disappears at the end.

    Args:
        label: The name of the work.
        total: Amount of the work; None if it is unknown.
        unit: Unit of the amount; B for bytes.
        done: Amount that was done before, which does not count for the rate.

    Attributes:
        note: Text after the figures.
    """

    def __init__(self, label: str, *, total: int | None, unit: str = "img", done: int = 0) -> None:
        self.label, self.total, self.unit, self.note = label, total, unit, ""
        self.done = self._first = self._last_done = done
        self.terminal = sys.stderr.isatty()
        self._shown = is_shown()
        self._drawn: _Drawn | None = None
        self._begin = self._last = time.monotonic()
        self._next = self._begin + (DELAY_S if self.terminal else LINE_S) if self._shown else float("inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def update(self, count: int = 1) -> None:
        """Add to the amount that is done."""
        self.advance_to(self.done + count)

    def advance_to(self, done: int) -> None:
        """Set the amount that is done."""
        self.done = done
        now = time.monotonic()
        if now < self._next:
            return
        if self.terminal:
            if self._drawn is None:  # a tqdm bar without a total has no truth value
                self._drawn = _Drawn(self)
            self._drawn.n = done
            self._drawn.refresh()
            self._next = now + REDRAW_S
        elif now - self._last >= LONGEST_S or self.total is None or done - self._last_done >= 0.1 * self.total:
            self.postpone_line()
            say(f"{self.label}  {self.figures()}")

    def postpone_line(self) -> None:
        """Write no line for the next LINE_S seconds, for example because the caller has just written one."""
        if not self.terminal and self._shown:
            self._last, self._last_done = time.monotonic(), self.done
            self._next = self._last + LINE_S

    def close(self) -> None:
        """Remove the bar."""
        self._next = float("inf")
        if self._drawn is not None:
            self._drawn.close()
            self._drawn = None

    @property
    def rate(self) -> float:
        """Amount per second since the start."""
        return (self.done - self._first) / max(time.monotonic() - self._begin, 1e-9)

    @property
    def eta(self) -> str:
        """The remaining time, `?` if it is unknown."""
        rate = self.rate
        return "?" if self.total is None or rate <= 0 else format_duration(max(0, self.total - self.done) / rate)

    def figures(self) -> str:
        """Return amount, rate and remaining time in one line."""
        scale, unit = (1e6, "MB") if self.unit == "B" else (1, self.unit)
        digits = 1 if unit == "MB" else 0
        amount = f"{self.done / scale:,.{digits}f}"
        if self.total is not None:
            share = "" if self.terminal else f"{self.done / max(self.total, 1):.0%}  "
            amount = f"{share}{amount} of {self.total / scale:,.{digits}f}"
        rate = self.rate / scale
        speed = f"{rate:,.{1 if rate < 10 else digits}f} {unit}/s"
        return "  ".join(filter(None, [f"{amount} {unit}", speed, f"eta {self.eta}", self.note]))


class _Drawn(tqdm):  # type: ignore[misc]  # tqdm has no type information
    """Draws a Bar. It has no thread of its own."""

    monitor_interval = 0

    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        form = FORMAT if bar.total is not None else "{label} {figures}"
        super().__init__(
            total=bar.total, initial=bar.done, bar_format=form, file=sys.stderr, leave=False, dynamic_ncols=True
        )

    @property
    def format_dict(self) -> dict[str, Any]:
        """The values that the format can use."""
        return {**super().format_dict, "label": visible(self.bar.label), "figures": visible(self.bar.figures())}
