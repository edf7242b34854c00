"""Commands run in this process, as a user would type them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

Command = Callable[..., None]
QUICK = ("test_train", "test_predict", "test_sweep_command")  # in `make test`; the other files are in `make test-ci`


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder for CI, except slow ones and those of three files."""
    for item in items:
        here = item.path.parent == Path(__file__).parent
        if here and item.path.stem not in QUICK and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.ci)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Return a function that runs `python -m agebench.VERB ARGUMENTS` from an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGEBENCH_DATA", str(tmp_path / "data"))
    # A run with DDP sets these variables.
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)

    def run(verb: str, *arguments: str) -> None:
        import importlib

        GlobalHydra.instance().clear()
        monkeypatch.setattr("sys.argv", [f"agebench-{verb}", *arguments])
        importlib.import_module(f"agebench.{verb}").main()

    return run


@pytest.fixture(scope="session")
def train_once() -> Command:
    """Return a function that trains a run in `FOLDER/run`, with its data in `FOLDER/data`, for several tests."""

    def run(folder: Path, line: str) -> None:
        from agebench import train

        GlobalHydra.instance().clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("AGEBENCH_DATA", str(folder / "data"))
            patch.setattr("sys.argv", ["agebench-train", *line.split(), "report=false", "hydra.run.dir=run"])
            train.main()

    return run


@pytest.fixture(scope="session")
def trained(train_once: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a read-only folder with a run on demo faces, `run`, and its data, `data/demo`."""
    folder = tmp_path_factory.mktemp("trained")
    line = "data=demo data.source.images=320 data.source.people=40"  # fewer than the default, to draw them quickly
    line += " data.target=age data.image_size=32 data.limit=300 model=small_cnn head=corn trainer.max_epochs=1"
    train_once(folder, line)
    return folder


@pytest.fixture(scope="session")
def digits_run(train_once: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the read-only folder of a run of two epochs on the digits."""
    folder = tmp_path_factory.mktemp("digits")
    train_once(folder, "data=digits trainer.max_epochs=2")
    return folder / "run"
