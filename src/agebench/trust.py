"""Check the code that a config from a file names. Only agebench and known classes of known libraries are allowed.

A config decides which Python code runs, so an untrusted checkpoint or run folder could run any code. Heavy imports are
delayed until a name must be resolved.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from agebench.config import config_folder
from agebench.errors import UserError


class Place(NamedTuple):
    """A key of the config whose value is a node with a `_target_`.

    Args:
        key: The dotted key; `*` stands for any single part.
        group: The folder of conf/ whose files name the targets that agebench ships for the key.
        kind: Dotted name of a class. Its subclasses are allowed too, if they are defined in `packages`.
        packages: Names of packages or modules.
    """

    key: str
    group: str
    kind: str = ""
    packages: tuple[str, ...] = ()


_NETWORKS = ("agebench", "timm.models", "torch.nn", "torchvision.models")
PLACES = (
    Place("model", "model", "torch.nn.Module", _NETWORKS),
    Place("head", "head", "agebench.heads.base.Head", ("agebench",)),
    Place("augment", "augment", "torch.nn.Module", ("agebench",)),
    Place("optim", "optim", "torch.optim.Optimizer", ("torch.optim", "timm.optim")),
    Place("scheduler", "scheduler"),
    Place("data.source", "data"),
    Place("data.split", "data/split"),
    Place("trainer", "trainer", "lightning.Trainer", ("lightning.pytorch",)),
    Place("trainer.profiler", "debug", "lightning.pytorch.profilers.Profiler", ("lightning.pytorch.profilers",)),
    Place("trainer.strategy", "trainer", "lightning.pytorch.strategies.Strategy", ("lightning.pytorch.strategies",)),
    Place("callbacks.*", "callbacks", "lightning.Callback", ("lightning.pytorch.callbacks",)),
    Place("logger.*", "logger", "lightning.pytorch.loggers.Logger", ("lightning.pytorch.loggers",)),
)
LIBRARIES = ("agebench", "lightning", "timm", "torch", "torchvision")
# Keys that hydra.utils.instantiate reads.
INSTRUCTIONS = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
PARTIAL = ("optim", "scheduler", "data.split")  # called later, with arguments that are known at run time
WEIGHT_SOURCES = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")  # decide where timm reads weights
MODEL_NAME = r"[\w.\-]+"  # not `hf-hub:NAME` or `local-dir:PATH`, where timm would read a config and weights
Found = list[tuple[str, str]]


def find_foreign(config: Mapping[str, Any], *, interpolations: bool = True) -> Found:
    """Return the keys of a config, with their values, that may run unknown code or read unknown weights.

    Args:
        config: The config as plain data. The object that `_target_` names is resolved, not called.
        interpolations: Whether to return strings with `${` too; a stored config has none.
    """
    return list(_walk(config, "", interpolations))


def find_foreign_overrides(overrides: Sequence[Any]) -> Found:
    """Return the overrides, as key and value, that change Hydra itself or that `find_foreign` would return."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    found: Found = []
    parser = OverridesParser.create()
    for text in overrides:
        key, _, value = str(text).partition("=")
        try:
            override = parser.parse_override(str(text))
        except HydraException:
            found.append((key, value))
            continue
        name, package = override.key_or_group, override.package or ""
        changes_hydra = re.split(r"[./]", name)[0] in ("hydra", "resume", "trust") or "hydra" in package.split(".")
        is_special = key.startswith("-") or override.is_sweep_override()
        if changes_hydra or is_special or not _is_choice(name, override.value()):
            found.append((key, value))
            continue
        tree: Any = override.value()
        for part in reversed(name.split(".")):
            tree = {part: tree}
        found += find_foreign(tree, interpolations=False)
    return found


def check_trusted(found: Found, file: object) -> None:
    """Raise UserError if anything was found in a config.

    Args:
        found: What `find_foreign` or `find_foreign_overrides` returned.
        file: The file or folder that the config is from.
    """
    if found:
        names = ", ".join(f"{key}={value}"[:120] for key, value in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(
            f"{file} names {names}{more}, which is not part of agebench: add trust=true to run it if you trust the file"
        )


def _is_choice(name: str, value: Any) -> bool:
    """Return whether a value is allowed. A group must not be a path, because Hydra would load that YAML file."""
    choices = value if isinstance(value, list) else [value]
    is_group = (config_folder() / name).is_dir()
    return not is_group or all(not isinstance(each, str) or re.fullmatch(MODEL_NAME, each) for each in choices)


def _walk(node: Any, key: str, interpolations: bool) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        yield from _check_node(node, key)
        for name, value in node.items():
            if name not in INSTRUCTIONS or not isinstance(value, str):
                yield from _walk(value, f"{key}.{name}" if key else str(name), interpolations)
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _walk(value, f"{key}.{i}", interpolations)
    elif interpolations and isinstance(node, str) and "${" in node:
        yield key, node


def _check_node(node: Mapping[str, Any], key: str) -> Iterator[tuple[str, str]]:
    place = next((each for each in PLACES if re.fullmatch(each.key.replace("*", r"[^.]+"), key)), None)
    for name in INSTRUCTIONS:
        if name not in node:
            continue
        value = node[name]
        if name == "_target_":
            allowed = place is not None and isinstance(value, str) and _is_allowed(place, value)
        else:
            allowed = name == "_partial_" and key in PARTIAL and isinstance(value, bool)
        if not allowed:
            yield f"{key}.{name}".lstrip("."), str(value)
    if key == "model":
        yield from ((f"model.{name}", str(node[name])) for name in WEIGHT_SOURCES if node.get(name) is not None)
        model = node.get("model_name")
        if model is not None and not re.fullmatch(MODEL_NAME, str(model)):
            yield "model.model_name", str(model)


def _is_allowed(place: Place, name: str) -> bool:
    shipped = _shipped(place.group)
    if name in shipped:
        return True
    found = _resolve(name)
    if found is None:
        return False
    if isinstance(found, type) and place.kind:
        kind = _resolve(place.kind)
        inside = any(f"{found.__module__}.".startswith(f"{package}.") for package in place.packages)
        return inside and issubclass(found, kind)
    return any(found is _resolve(each) for each in shipped) or (place.key == "model" and _is_of_timm(found))


def _is_of_timm(found: Any) -> bool:
    """Return whether an object is a model function that timm registers."""
    import timm

    name = getattr(found, "__name__", "")
    return timm.is_model(name) and timm.model_entrypoint(name) is found


@cache
def _shipped(group: str) -> frozenset[str]:
    """Return the names after `_target_:` in the YAML files of a group of conf/."""
    texts = [path.read_text(encoding="utf-8") for path in (config_folder() / group).glob("*.yaml")]
    return frozenset(name for text in texts for name in re.findall(r"^ *_target_: *(\S+)", text, re.MULTILINE))


def _resolve(name: str) -> Any:
    """Return the object that Hydra would find under a dotted name, or None. Only known libraries are imported."""
    from hydra.utils import get_object

    parts = name.split(".")
    if parts[0] not in LIBRARIES or not all(re.fullmatch(r"[A-Za-z]\w*", part) for part in parts):
        return None
    logger = logging.getLogger("hydra.utils")  # logs each name that it does not find
    disabled, logger.disabled = logger.disabled, True
    try:
        return get_object(name)
    except Exception:  # importing a module may raise anything
        return None
    finally:
        logger.disabled = disabled
