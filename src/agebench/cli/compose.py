"""Compose a config in this process, without a command line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agebench.cli.main import register_resolvers
from agebench.cli.overrides import quoted
from agebench.config import config_folder
from agebench.errors import UserError


@contextmanager
def composed(name: str, overrides: Sequence[str], *, config_dir: Path | None = None) -> Iterator[Any]:
    """Context manager: yield a composed config as a command gets it. Hydra's global state is restored at the end.

    HydraConfig has the node `hydra`, with the output folder that the command would have.

    Args:
        name: The primary config of a command in conf/.
        overrides: In Hydra's grammar.
        config_dir: A folder with further YAML files, as after `--config-dir`.

    Raises:
        UserError: If the folder does not exist, or the config cannot be composed.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict, read_write

    from agebench.cli.messages import explain

    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"there is no folder {config_dir}: config_dir is a folder with your own YAML files")
    searched = [] if config_dir is None else [f"hydra.searchpath=[{quoted(f'file://{config_dir.absolute()}')}]"]
    before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    register_resolvers()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            try:
                cfg = compose(name, [*overrides, *searched], return_hydra_config=True)
            except Exception as error:
                if (sentence := explain(error, config_folder())) is None:
                    raise
                raise UserError(sentence) from error
            HydraConfig.instance().set_config(cfg)
            with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):  # as Hydra does for a command
                cfg.hydra.runtime.output_dir = str(Path(cfg.hydra.run.dir).absolute())
            HydraConfig.instance().set_config(cfg)
            with open_dict(cfg):
                del cfg["hydra"]
            yield cfg
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = before
