"""A run's row on TensorBoard's HPARAMS page: what was chosen, and the metrics that it is compared by."""

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from agebench import metrics, run
from agebench.module import ImageModule


def test_metrics(module: ImageModule) -> list[str]:
    """Return the names of the metrics that a test of the module logs."""
    return metrics.headline(ordered=module.head.ordered, unit=module.unit)


def hparams(cfg: DictConfig, config: dict[str, Any], protocol: str) -> dict[str, Any]:
    """Return the columns of a table of runs: the choices that name a run, whatever was typed, and the protocol.

    Few, for TensorBoard orders them by the alphabet and shows the first five.

    Args:
        cfg: The composed config.
        config: The same as plain data.
        protocol: What runs must share to be compared.
    """
    params: dict[str, Any] = {"optim.lr": cfg.optim.lr, "seed": cfg.seed, "protocol": protocol}
    if not HydraConfig.initialized():
        return params
    hydra, flat = HydraConfig.get(), run.flatten(config)
    params |= {group: hydra.runtime.choices[group] for group in ("data", "head", "model", "optim")}
    for override in hydra.overrides.task:
        key = override.partition("=")[0].lstrip("+~")
        if key in hydra.runtime.choices:
            params[key] = str(hydra.runtime.choices[key])
        elif key in flat and key not in ("data.root", "report", "sweep") and not key.startswith("paths."):
            params[key] = flat[key]
    return params
