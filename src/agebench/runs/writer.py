"""The only writer of results.json, which contains the current results of a run and its status."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agebench.errors import reason
from agebench.files import read_json, write_json


class RunWriter:
    """Collects the results of a run and writes results.json atomically.

    Args:
        folder: The run directory.
        enabled: False for the ranks of a distributed run that write nothing.
    """

    def __init__(self, folder: Path, *, enabled: bool = True) -> None:
        self.file, self.enabled = folder / "results.json", enabled
        self.results: dict[str, Any] = {}

    def update(self, facts: Mapping[str, Any]) -> None:
        """Add entries to the results and write the file."""
        self.results |= facts
        if self.enabled:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.file, self.results)

    @contextmanager
    def running(self, facts: Mapping[str, Any]) -> Iterator[None]:
        """Context manager: write the status `running` with the first entries, and the final status after the block.

        The final status is `completed` without an exception, `interrupted` after KeyboardInterrupt or SystemExit, else
        `failed` with the reason as `error`.
        """
        self.update({"status": "running", **facts})
        end = {"status": "completed"}
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            end = {"status": "interrupted"}
            raise
        except BaseException as error:
            end = {"status": "failed", "error": reason(error)}
            raise
        finally:
            self.update(end)

    @classmethod
    def reopen(cls, folder: Path) -> "RunWriter":
        """Return the writer of a run that ended, with the results that it wrote."""
        writer = cls(folder)
        writer.results = read_json(writer.file)
        return writer

    @classmethod
    def close(cls, folder: Path, status: str, error: str = "") -> None:
        """Write the final status of a run whose process died. The results that it wrote are kept."""
        cls.reopen(folder).update({"status": status, **({"error": error} if error else {})})
