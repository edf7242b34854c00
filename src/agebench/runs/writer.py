"""The only writer of results.json, which contains the current results of a run and its status."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agebench.files import change_json, read_json, write_json
from agebench.user_code import reason

SPARE = 2000  # bytes in results.json of a running run, for the final status on a full disk
MAX_ERROR = 300  # characters of an error message there


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
            write_json(self.file, self.results, spare=SPARE if self.results.get("status") == "running" else 0)

    @contextmanager
    def running(self, facts: Mapping[str, Any]) -> Iterator[None]:
        """Context manager: write the status `running` with the first entries, and the final status after the block.

        The final status is `completed` without an exception, `interrupted` after KeyboardInterrupt or SystemExit, else
        `failed` with the reason as `error`.
        """
        end = {"status": "completed"}
        try:
            self.update({"status": "running", **facts})
            yield
        except (KeyboardInterrupt, SystemExit):
            end = {"status": "interrupted"}
            raise
        except BaseException as error:
            end = {"status": "failed", "error": reason(error)}
            raise
        finally:
            self.end(end)

    def end(self, end: Mapping[str, str]) -> None:
        """Write the final status, also on a full disk."""
        self.results.pop("host", None)  # says where a run is running; not a result
        try:
            self.update(end)
        except KeyboardInterrupt:  # the work is done, so that the status does not change
            self.update(end)
            raise
        except OSError:
            if not self.file.exists():
                raise
            change_json(self.file, {key: text[:MAX_ERROR] for key, text in end.items()})

    @classmethod
    def reopen(cls, folder: Path) -> "RunWriter":
        """Return the writer of a run that ended, with the results that it wrote."""
        writer = cls(folder)
        writer.results = read_json(writer.file)
        return writer

    @classmethod
    def close(cls, folder: Path, status: str, error: str = "") -> None:
        """Write the final status of a run whose process died. The results that it wrote are kept."""
        cls.reopen(folder).end({"status": status, **({"error": error} if error else {})})
