"""One point of a sweep: its name, its command line, and its outcome from the files in its folder."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agebench.errors import UserError, one_line
from agebench.runs.folder import read_results
from agebench.runs.writer import RunWriter

CONSOLE = "console.log"  # in a point's folder: all output of its process


def count_ranks(config: Any) -> int:
    """Return the number of training processes per machine for a composed config."""
    devices = config.trainer.devices
    return devices if isinstance(devices, int) and devices > 1 and "ddp" in str(config.trainer.strategy) else 1


@dataclass
class Point:
    """A point and its outcome.

    Args:
        name: Name of its folder.
        folder: Its run directory.
        arguments: The command line of its training.
        composed: The composed config of that command line and Hydra's context, or None to compose it again.
        ranks: Number of processes with which it trains on this machine.
        report: The value of the key `report`.
        status: waiting, running, completed, failed or interrupted.
        was_complete: Whether the folder held a complete run when the process started.
        error: The reason for a failure, in one line.
        seconds: Duration of its process.
        exit_code: Exit code of its process, negative for a signal; None before the process ends.
        results: Its results.json.
        modified: Time of the last change of results.json before the process started, in ns; None without the file.
    """

    name: str
    folder: Path
    arguments: list[str]
    composed: tuple[Any, Any] | None = None
    ranks: int = 1
    report: Any = False
    status: str = "waiting"
    was_complete: bool = False
    error: str = ""
    seconds: float = 0.0
    exit_code: int | None = None
    results: dict[str, Any] = field(default_factory=dict)
    modified: int | None = None

    @property
    def best(self) -> float:
        """The best value of the monitored metric; NaN if there is none."""
        value = self.results.get("best", {}).get("value") if self.status == "completed" else None
        return float("nan") if value is None else float(value)

    @property
    def monitor(self) -> str:
        """The name of the monitored metric."""
        return str(self.results.get("best", {}).get("monitor", ""))

    def begin(self) -> None:
        """Record that the process starts, and whether the run is complete already."""
        self.status, self.was_complete = "running", self._read().get("status") == "completed"
        self.modified = self._modified()

    def close(self, exit_code: int | None, *, stopped: str = "") -> None:
        """Read the outcome from the folder after the process has ended, and write the status if the process did not.

        Args:
            exit_code: Exit code of the process, negative for a signal.
            stopped: Why the sweep stopped it: `interrupted`, or an error message.
        """
        self.exit_code, self.results = exit_code, self._read()
        recorded = str(self.results.get("status", ""))
        if exit_code == 0 and recorded == "completed":
            self.status = recorded
            return
        # A job may fail while the sweep stops it. A failure of an earlier start does not count.
        failed = recorded == "failed" and self._modified() != self.modified
        if failed and stopped == "interrupted":
            stopped = ""
        self.status = "interrupted" if stopped == "interrupted" else "failed"
        died = f"killed by signal {-exit_code}" if exit_code is not None and exit_code < 0 else ""
        if exit_code == -9:
            died += ", as the system does when memory runs out"
        error = str(self.results.get("error", "")) if recorded == "failed" else ""
        reason = stopped or error or died or self._last_line()
        self.error = "" if stopped == "interrupted" else one_line(reason)
        if recorded in ("", "running"):  # the process ended before it could write its status
            with contextlib.suppress(OSError):
                RunWriter.close(self.folder, self.status, self.error)

    def _modified(self) -> int | None:
        """Return the time of the last change of results.json in ns; None without the file."""
        with contextlib.suppress(OSError):
            return (self.folder / "results.json").stat().st_mtime_ns
        return None

    def _read(self) -> dict[str, Any]:
        try:
            return read_results(self.folder)
        except UserError:
            return {}

    def _last_line(self) -> str:
        """Return the last line of the process's output."""
        with contextlib.suppress(OSError), (self.folder / CONSOLE).open("rb") as text:
            text.seek(0, 2)
            text.seek(max(0, text.tell() - 4096))
            lines = [line.strip() for line in text.read().decode("utf-8", "replace").splitlines() if line.strip()]
            if lines:
                return lines[-1]
        return "it ended without output"
