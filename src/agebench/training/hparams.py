"""The hyperparameters of a run on TensorBoard's HPARAMS page."""

from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from agebench.config import flatten
from agebench.runs.identity import SHOWN, has_effect

GROUPS = ("data", "model", "head", "optim")  # the config groups that name a run
REPEATED = ("seed", "data.split.fold")  # keys that repeat a training; the page averages over their values


def hparams(cfg: DictConfig, config: Mapping[str, Any], protocol: str) -> tuple[dict[str, Any], str]:
    """Return hyperparameters by column, and the name of the run's group on the page.

    A single run has a column for each choice that names it, for each override that affects the result, and for the
    protocol. A point of a sweep has a column for each key that the sweep varies, and one for all others together:
    TensorBoard initially shows only five columns, in alphabetical order after those in which runs differ, and they
    stand before the metrics. The points of a sweep that differ only in the seed or the fold are a group, without
    these columns.

    Args:
        cfg: The composed config.
        config: The same config as plain data.
        protocol: The protocol that runs must share to be comparable.

    Returns:
        The hyperparameters; and the name of the group, empty for a run with a row of its own.
    """
    # TensorBoard would show the number 0 as 0.0000.
    params: dict[str, Any] = {"optim.lr": cfg.optim.lr, "seed": str(cfg.seed), "protocol": protocol}
    if not HydraConfig.initialized():
        return params, ""
    hydra, flat = HydraConfig.get(), flatten(config)
    params |= {group: hydra.runtime.choices[group] for group in GROUPS}
    for override in hydra.overrides.task:
        key = _key(override)
        if key in hydra.runtime.choices:
            params[key] = str(hydra.runtime.choices[key])
        elif key in flat and key not in ("data.root", "seed") and (has_effect(key) or key in SHOWN):
            params[key] = flat[key]
    if OmegaConf.is_missing(hydra.job, "num"):  # not a point of a sweep
        return params, ""
    fixed = hydra.job.config.override_dirname.exclude_keys
    varied = [override for override in hydra.overrides.task if _key(override) not in fixed]
    keys = {_key(override) for override in varied}
    name = " ".join(override for override in varied if _key(override) not in REPEATED)
    group = f"{name or 'all'} of {cfg.sweep}" if keys.intersection(REPEATED) else ""
    return _of_point(params, keys), group


def _of_point(params: Mapping[str, Any], varied: set[str]) -> dict[str, Any]:
    """Return the hyperparameters of a point, with those that the sweep does not vary in the column `fixed`."""
    fixed = {key: value for key, value in params.items() if key not in varied and key != "protocol"}
    names = [str(fixed.pop(group)) for group in GROUPS if group in fixed]
    texts = [*names, *(f"{key}={value}" for key, value in fixed.items())]
    shown = {key: value for key, value in params.items() if key in varied - set(REPEATED)}
    return {**shown, "protocol": params["protocol"], "fixed": " ".join(texts)}


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
