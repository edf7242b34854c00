"""The folder of the configs, and configs as flat mappings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def config_folder() -> Path:
    """Return the folder of the configs: inside an installed package, or next to src/ in a checkout."""
    here = Path(__file__).parent
    return here / "conf" if (here / "conf").is_dir() else here.parents[1] / "conf"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one mapping with dotted keys. Lists are not flattened."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
