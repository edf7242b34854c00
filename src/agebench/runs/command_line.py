"""The command line of a run, from the files that Hydra writes to `.hydra/`."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agebench.runs.read import mapping, read_yaml

NOT_REPEATED = ("resume", "trust")  # they belong to one start of a run, not to the run


def arguments_of(folder: Path) -> list[str]:
    """Return the arguments with which a run was started, without resume= and trust=; empty if they cannot be read."""
    overrides = read_yaml(folder / ".hydra" / "overrides.yaml")
    if not isinstance(overrides, list):
        return []
    return arguments(mapping(mapping(read_yaml(folder / ".hydra" / "hydra.yaml")).get("hydra")), overrides)


def arguments(hydra: Mapping[str, Any], overrides: Sequence[Any]) -> list[str]:
    """Return the arguments of a command: the folders of configs, and the overrides without resume= and trust=.

    Args:
        hydra: `hydra` of Hydra's own config. It may be damaged.
        overrides: The overrides of the command, in Hydra's grammar.
    """
    sources, given = mapping(hydra.get("runtime")).get("config_sources"), mapping(hydra.get("overrides")).get("hydra")
    found = [mapping(each) for each in sources] if isinstance(sources, list) else []
    folders = [f"--config-dir={each.get('path')}" for each in found if each.get("provider") == "command-line"]
    searched = (
        [str(each) for each in given if str(each).startswith("hydra.searchpath=")] if isinstance(given, list) else []
    )
    repeated = [str(each) for each in overrides if _key(each) not in NOT_REPEATED]
    last = {each.partition("=")[0]: each for each in repeated}  # a resumed run may have a key again, with a new value
    return [*folders, *last.values(), *searched]


def for_shell(argument: str) -> str:
    """Return an argument quoted for a shell, in double quotes if it contains single quotes of Hydra's grammar."""
    return f'"{argument}"' if "'" in argument and not set(argument) & set('"$`\\!\n') else shlex.quote(argument)


def _key(override: Any) -> str:
    return str(override).lstrip("+~").partition("=")[0].partition("@")[0]
