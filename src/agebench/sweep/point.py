"""One point of a sweep: what it is called, how it is started, and what its folder says of it."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agebench.errors import UserError
from agebench.runs.folder import read_results
from agebench.runs.writer import RunWriter

CONSOLE = "console.log"  # in a point's folder: all that its process says


def count_ranks(config: Any) -> int:
    """Return how many processes a training has on one machine, by its composed config."""
    devices = config.trainer.devices
    return devices if isinstance(devices, int) and devices > 1 and "ddp" in str(config.trainer.strategy) else 1


@dataclass
class Point:
    """A point and how it went.

    Args:
        name: Its folder's name.
        folder: Its run directory.
        arguments: The command line of its own training.
        composed: The config that Hydra composes from it, and Hydra's context, to save composing it again; or None.
        ranks: Processes that it trains with on this machine.
    """

    name: str
    folder: Path
    arguments: list[str]
    composed: tuple[Any, Any] | None = None
    ranks: int = 1
    status: str = "waiting"
    already: bool = False
    error: str = ""
    seconds: float = 0.0
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> float:
        """The best value of the monitored metric; NaN if there is none."""
        value = self.results.get("best", {}).get("value") if self.status == "completed" else None
        return float("nan") if value is None else float(value)

    @property
    def monitor(self) -> str:
        """The metric's name."""
        return str(self.results.get("best", {}).get("monitor", ""))

    def begin(self) -> None:
        """Note that the process starts, and whether there is anything left for it to do."""
        self.status, self.already = "running", self._read().get("status") == "completed"

    def close(self, exit_code: int | None, *, stopped: str = "") -> None:
        """Take over what the folder says now that the process has ended, and write down what it could not say itself.

        Args:
            exit_code: Of the process, negative for a signal.
            stopped: Why it was stopped from outside: `interrupted`, or what to call it as an error.
        """
        self.results = self._read()
        said = str(self.results.get("status", ""))
        if exit_code == 0 and said == "completed":
            self.status = said
            return
        self.status = "interrupted" if stopped == "interrupted" else "failed"
        died = f"killed by signal {-exit_code}" if exit_code is not None and exit_code < 0 else ""
        if exit_code == -9:
            died += ", as the system does when memory runs out"
        told = str(self.results.get("error", "")) if said == "failed" else ""
        reason = stopped or told or died or self._last_line()
        self.error = "" if stopped == "interrupted" else " ".join(reason.split())
        if said in ("", "running"):  # it had no time to say so
            with contextlib.suppress(OSError):
                RunWriter.close(self.folder, self.status, self.error)

    def _read(self) -> dict[str, Any]:
        try:
            return read_results(self.folder)
        except UserError:
            return {}

    def _last_line(self) -> str:
        """Return the last thing that the process said."""
        with contextlib.suppress(OSError), (self.folder / CONSOLE).open("rb") as text:
            text.seek(0, 2)
            text.seek(max(0, text.tell() - 4096))
            lines = [line.strip() for line in text.read().decode("utf-8", "replace").splitlines() if line.strip()]
            if lines:
                return lines[-1]
        return "it ended without a word"
