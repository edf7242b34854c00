"""Commands run in this process, as a user would type them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

Command = Callable[..., None]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Return a function that runs `python -m agebench.VERB ARGUMENTS` from an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path / "data"))
    # A run under DDP would leave these behind.
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)

    def run(verb: str, *arguments: str) -> None:
        import importlib

        GlobalHydra.instance().clear()
        monkeypatch.setattr("sys.argv", [f"agebench-{verb}", *arguments])
        importlib.import_module(f"agebench.{verb}").main()

    return run
