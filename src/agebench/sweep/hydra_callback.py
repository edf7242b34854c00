"""A Hydra callback that gives a sweep its name and notes where it writes, whatever launcher runs it."""

from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from agebench.cli import main as cli

HYDRAS = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
OURS = "hydra_plugins.agebench_launcher.sweeper.AgebenchSweeper"  # the same, but for a needless round of composing


class SweepNamingCallback(Callback):
    """Tells `agebench.cli.main`, which ends the sweep with a table."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the sweep, unless the user has, and note its folder."""
        typed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        if not any(override.key_or_group == "sweep" for override in typed):
            swept = {override.key_or_group for override in typed if override.is_sweep_override()}
            swept |= set(config.hydra.sweeper.get("params") or {})
            name = sweep_name(dict(config.hydra.runtime.choices), swept, str(config.sweep))
            with read_write(config), open_dict(config):
                config.sweep = name
                # Every point is composed from these anew.
                config.hydra.overrides.task = [*config.hydra.overrides.task, f"sweep={name}"]
        if config.hydra.sweeper._target_ == HYDRAS:
            with read_write(config.hydra):
                config.hydra.sweeper._target_ = OURS
        cli.sweep_folder = Path(str(config.hydra.sweep.dir)).absolute()
        cli.sweep_points = []


def sweep_name(choices: dict[str, Any], swept: set[str], time: str) -> str:
    """Return what a sweep is called: data, model and head as far as all points share them, then when it began."""
    if "experiment" in swept:
        return time
    data, model, head = (None if group in swept else choices.get(group) for group in ("data", "model", "head"))
    network = "-".join(str(name) for name in (model, head) if name)
    return "_".join(str(name) for name in (data, network, time) if name)
