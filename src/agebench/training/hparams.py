"""A run's row on TensorBoard's HPARAMS page: what was chosen."""

from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from agebench.config import flatten
from agebench.runs.identity import has_effect


def hparams(cfg: DictConfig, config: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    """Return the columns of a table of runs: the choices that name a run, whatever was typed, and the protocol.

    Few, for TensorBoard shows the first five: those in which runs differ, by the alphabet.

    Args:
        cfg: The composed config.
        config: The same as plain data.
        protocol: What runs must share to be compared.
    """
    params: dict[str, Any] = {"optim.lr": cfg.optim.lr, "seed": cfg.seed, "protocol": protocol}
    if not HydraConfig.initialized():
        return params
    hydra, flat = HydraConfig.get(), flatten(config)
    params |= {group: hydra.runtime.choices[group] for group in ("data", "head", "model", "optim")}
    for override in hydra.overrides.task:
        key = override.partition("=")[0].lstrip("+~")
        if key in hydra.runtime.choices:
            params[key] = str(hydra.runtime.choices[key])
        elif key in flat and key != "data.root" and has_effect(key):
            params[key] = flat[key]
    return params
