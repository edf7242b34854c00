"""The hyperparameters of a run on TensorBoard's HPARAMS page."""

from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from agebench.config import flatten
from agebench.runs.identity import has_effect


def hparams(cfg: DictConfig, config: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    """Return hyperparameters by column: the choices that name a run, overrides that affect the result, the protocol.

    There are few columns because TensorBoard initially shows only five: those in which runs differ, in alphabetical
    order.

    Args:
        cfg: The composed config.
        config: The same config as plain data.
        protocol: The protocol that runs must share to be comparable.
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
