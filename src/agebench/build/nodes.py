"""Build objects from config nodes, with a UserError of one sentence if that fails."""

import logging
import sys
from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from agebench.errors import UserError, did_you_mean, one_line_message
from agebench.user_code import explain_own, place, shown


def find_target(key: str, path: str) -> Any:
    """Return the object with a dotted path.

    Args:
        key: Config key of the node, for messages.
        path: Dotted path of a class or function.

    Raises:
        UserError: If it cannot be imported.
    """
    logger = logging.getLogger("hydra.utils")  # would log the same error in three lines
    disabled, logger.disabled = logger.disabled, True
    try:
        return get_object(path)
    except Exception as error:  # the import runs the user's code, which may raise anything
        module, _, name = path.rpartition(".")
        if module in sys.modules and not hasattr(sys.modules[module], name):
            guess = did_you_mean(name, dir(sys.modules[module]))
            raise UserError(f"{key}._target_={path} cannot be imported: {module} has no {name!r}{guess}") from error
        cause = error.__cause__ or error
        why = one_line_message(cause)
        if where := place(error):
            raise UserError(f"{key}._target_={path} cannot be imported: {why}{where}") from error
        if isinstance(cause, SyntaxError):
            what = f"{type(cause).__name__}: {cause.msg} at {shown(str(cause.filename))}:{cause.lineno}"
            raise UserError(f"{key}._target_={path} cannot be imported: {what}") from error
        raise UserError(
            f"{key}._target_={path} cannot be imported ({why}): start from the folder that contains it, or add that "
            "folder to PYTHONPATH"
        ) from error
    finally:
        logger.disabled = disabled


def instantiate_node(key: str, node: Mapping[Any, Any], *given: Any, **named: Any) -> Any:
    """Return the object that a config node describes.

    Raises:
        UserError: If it cannot be imported or built.
    """
    target = find_target(key, node["_target_"])
    try:
        return instantiate(node, *given, _convert_="all", **named)
    except (TypeError, InstantiationException) as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from error
        if own := explain_own(error):
            raise UserError(own) from error
        if not isinstance(cause, TypeError):
            raise
        raise UserError(f"{key}: {target.__name__} cannot be built ({cause}): check the keys under {key}") from error


def plain_node(node: DictConfig, *, without: tuple[str, ...]) -> dict[str, Any]:
    """Return a config node as plain data with resolved interpolations, without the given keys."""
    container: Any = OmegaConf.to_container(node, resolve=True)
    return {k: v for k, v in container.items() if k not in without}
