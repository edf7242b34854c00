"""Config nodes to objects, with one sentence for what cannot be built."""

import logging
import sys
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from agebench.errors import UserError, did_you_mean, told


def find_target(key: str, path: str) -> Any:
    """Return what a dotted path names, or say in one sentence why it cannot be had."""
    hydras = logging.getLogger("hydra.utils")  # which tells the same in three lines
    silent, hydras.disabled = hydras.disabled, True
    try:
        return get_object(path)
    except Exception as error:  # importing runs the user's own code, which may raise anything
        module, _, name = path.rpartition(".")
        if module in sys.modules and not hasattr(sys.modules[module], name):
            guess = did_you_mean(name, dir(sys.modules[module]))
            raise UserError(f"{key}._target_={path} cannot be imported: {module} has no {name!r}{guess}") from error
        raise UserError(
            f"{key}._target_={path} cannot be imported ({told(error.__cause__ or error)}): start from the folder that "
            "holds it, or put that folder on PYTHONPATH"
        ) from error
    finally:
        hydras.disabled = silent


def instantiate_node(key: str, node: DictConfig, *given: Any, **named: Any) -> Any:
    """Return what a config node names, or say in one sentence why it cannot be had."""
    target = find_target(key, node._target_)
    try:
        return instantiate(node, *given, _convert_="all", **named)
    except (TypeError, InstantiationException) as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from error
        if not isinstance(cause, TypeError):
            raise
        raise UserError(f"{key}: {target.__name__} cannot be made ({cause}): check the keys under {key}") from error


def plain_node(node: DictConfig, *, without: tuple[str, ...]) -> dict[str, Any]:
    """Return a config node as plain data, interpolations worked out, less the keys that the builder itself reads."""
    container: Any = OmegaConf.to_container(node, resolve=True)
    return {k: v for k, v in container.items() if k not in without}
