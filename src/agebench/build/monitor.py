"""Which metric is monitored, and which way it is better."""

from typing import Any

from omegaconf import DictConfig

from agebench.metrics.table import find, main_metric, monitor_mode


def build_monitor(cfg: DictConfig, *, unit: str) -> tuple[str, str]:
    """Return the logged value that chooses the best epoch, and `min` or `max`.

    `auto` is the MAE for ages in years, else the accuracy. `val/bias` is watched as `val/abs_bias`.
    """
    return monitor_mode(f"val/{main_metric(unit)}" if cfg.monitor == "auto" else cfg.monitor)


def watched(node: DictConfig, *, monitor: str, mode: str, default: str | None = None) -> dict[str, Any]:
    """Return what to change in the node of a callback or schedule that watches a metric.

    Args:
        node: With or without the keys `monitor` and `mode`.
        monitor: The run's own metric, for `auto`.
        mode: `min` or `max`, of that metric.
        default: What a node without a monitor watches; None if it watches nothing.
    """
    own = node.get("monitor", default)
    if own == "auto":
        return {"monitor": monitor, "mode": mode}
    if own is None or node.get("mode") is not None or not find(own).known:
        return {}  # the user chose the mode as well, or logs a metric of their own
    return dict(zip(("monitor", "mode"), monitor_mode(own), strict=True))
