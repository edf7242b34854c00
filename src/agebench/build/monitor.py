"""The monitored metric, and whether lower or higher is better."""

from typing import Any

from omegaconf import DictConfig

from agebench.metrics.table import find, main_metric, monitor_mode


def build_monitor(cfg: DictConfig, *, unit: str) -> tuple[str, str]:
    """Return the name of the logged metric that selects the best epoch, and `min` or `max`.

    `auto` is the MAE for ages in years, else the accuracy. `val/bias` is monitored as `val/abs_bias`.
    """
    return monitor_mode(f"val/{main_metric(unit)}" if cfg.monitor == "auto" else cfg.monitor)


def watched(node: DictConfig, *, monitor: str, mode: str, default: str | None = None) -> dict[str, Any]:
    """Return the keys `monitor` and `mode` to set in the node of a callback or schedule; empty to keep those it has.

    Args:
        node: Config node, with or without the keys `monitor` and `mode`.
        monitor: The run's monitored metric, for `auto`.
        mode: `min` or `max`, for that metric.
        default: Monitor of a node without one; None if such a node monitors nothing.
    """
    own = node.get("monitor", default)
    if own == "auto":
        return {"monitor": monitor, "mode": mode}
    if own is None or node.get("mode") is not None or not find(own).known:
        return {}  # the user set the mode too, or logs a custom metric
    return dict(zip(("monitor", "mode"), monitor_mode(own), strict=True))
