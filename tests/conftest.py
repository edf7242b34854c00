"""Fixtures of several test files."""

import gc
import os
import signal
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from agebench.data.records import Records

REPOSITORY = Path(__file__).parents[1]
# Workers of pytest-xdist share the cores; set before torch is imported, and for the processes that tests start.
if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

# The modules and the tests themselves are over a million objects that live to the end. Leaving them out of the garbage
# collector takes an eighth off the time of all tests.
gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage from here on, but never look again at what was imported and collected."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 50)


def pytest_sessionfinish() -> None:
    """Give everything back, so that no library finds its objects alive at the end."""
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the end-to-end tests first: they are the slowest, and would otherwise end alone on one worker."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def processes_accept_ctrl_c() -> None:
    """Let the processes that tests start accept SIGINT. A shell that starts pytest in the background ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real data, or skip the test. Tests with this fixture have the marker `data`."""
    named = os.environ.get("AGEBENCH_TEST_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set AGEBENCH_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def real_cacd(test_data: Path) -> "Records":
    """Return the records of the real CACD, which take two seconds to read. Tests with it have the marker `data`."""
    from agebench.data.sources.cacd import CACD

    return CACD(str(test_data / "cacd")).records()


@pytest.fixture(scope="session")
def conf() -> Path:
    """Return the folder of the configs."""
    return REPOSITORY / "conf"


@pytest.fixture(scope="session")
def compose_config(conf: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a function that composes a config as a command does, in this process. All pixels go to one folder."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict

    from agebench.runs.members import home_of

    packed = tmp_path_factory.mktemp("cache")
    OmegaConf.register_new_resolver("agebench.home", home_of, replace=True)
    OmegaConf.register_new_resolver("agebench.point", lambda differs, *, _root_: "point", replace=True)

    @cache
    def once(*overrides: str, name: str) -> Any:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf), version_base="1.3"):
            # ++, because some commands have no cache.
            own = [f"++paths.cache={packed}", f"hydra.runtime.output_dir={packed}/run"]
            return compose(name, overrides=[*own, *overrides], return_hydra_config=True)

    def make(*overrides: str, name: str = "config") -> Any:
        config = deepcopy(once(*overrides, name=name))
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        return config

    return make


@pytest.fixture
def half_precision_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `trainer.precision=16-mixed` run on a CPU, where Lightning uses bf16-mixed and agebench refuses it.

    The scale of the gradients starts too high, so that steps are left out, and then changes often.
    """
    import torch
    from lightning.pytorch.plugins.precision import MixedPrecision
    from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector

    from agebench.cli import rules

    others = _AcceleratorConnector._check_and_init_precision

    def make_plugin(connector: Any) -> Any:
        if connector._precision_flag != "16-mixed":
            return others(connector)
        return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=3))

    monkeypatch.setattr(_AcceleratorConnector, "_check_and_init_precision", make_plugin)
    monkeypatch.setattr(rules, "_check_precision", lambda cfg: None)
