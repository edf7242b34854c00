"""Settings of a call in Python, as overrides in Hydra's grammar."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agebench.cli.overrides import key_takes_text, quoted, to_hydra
from agebench.config import config_folder
from agebench.errors import UserError


def to_overrides(command: str, typed: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Return overrides in Hydra's grammar.

    Args:
        command: The primary config of the command.
        typed: Overrides as they are typed in a shell: `data=digits`, `optim.lr=0.01`.
        settings: Values of keys, or the choices of groups: `{"trainer": {"max_epochs": 2}, "data": "digits"}`.

    Raises:
        UserError: If an override is not KEY=VALUE, or a value is of a type that a config cannot hold.
    """
    conf = config_folder()
    is_text = partial(key_takes_text, conf=conf, config_name=command)
    for each in typed:
        if not isinstance(each, str) or ("=" not in each and not each.startswith("~")):
            raise UserError(f"an override must be a text KEY=VALUE, such as 'data=digits', got {each!r}")
        if each.startswith("-"):
            raise UserError(f"{each} is a flag of the command line, which Python does not have: give KEY=VALUE")
    own = [to_hydra(each, is_text=is_text, sweeps=False) for each in typed]
    return [*own, *_flatten(settings, "")]


def _flatten(settings: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{key}.")
        elif isinstance(value, str) and (config_folder() / key.replace(".", "/")).is_dir():
            yield f"{key.replace('.', '/')}={value}"  # the choice of a group
        else:
            yield f"{key}={_literal(key, value)}"


def _literal(key: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return quoted(str(value))
    if isinstance(value, list | tuple):
        return f"[{','.join(_literal(key, each) for each in value)}]"
    raise UserError(f"{key} must be a number, a text, true, false, None or a list of them, got {type(value).__name__}")
