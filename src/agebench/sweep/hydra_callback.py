"""A Hydra callback that names a sweep and records its folder. It works with every launcher."""

from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from agebench.sweep.session import current_sweep

HYDRA_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
OWN_SWEEPER = "hydra_plugins.agebench_launcher.sweeper.AgebenchSweeper"  # composes every point once instead of twice


class SweepNamingCallback(Callback):
    """Sets the name of the sweep, and its folder in the SweepSession of the command."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the sweep, unless the user has set a name, and record its folder."""
        overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        if not any(override.key_or_group == "sweep" for override in overrides):
            swept = {override.key_or_group for override in overrides if override.is_sweep_override()}
            swept |= set(config.hydra.sweeper.get("params") or {})
            name = sweep_name(dict(config.hydra.runtime.choices), swept, str(config.sweep))
            with read_write(config), open_dict(config):
                config.sweep = name
                # Hydra composes every point from these overrides.
                config.hydra.overrides.task = [*config.hydra.overrides.task, f"sweep={name}"]
        if config.hydra.sweeper._target_ == HYDRA_SWEEPER:
            with read_write(config.hydra):
                config.hydra.sweeper._target_ = OWN_SWEEPER
        current_sweep().folder = Path(str(config.hydra.sweep.dir)).absolute()


def sweep_name(choices: dict[str, Any], swept: set[str], time: str) -> str:
    """Return the name of a sweep: the choices of data, model and head that all points share, then the start time."""
    if "experiment" in swept:
        return time
    data, model, head = (None if group in swept else choices.get(group) for group in ("data", "model", "head"))
    network = "-".join(str(name) for name in (model, head) if name)
    return "_".join(str(name) for name in (data, network, time) if name)
