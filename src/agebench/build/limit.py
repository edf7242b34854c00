"""Build the age limit of a config."""

import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from agebench.metrics.age_limit import DEFAULTS, AgeLimit, left_out, make_age_limit
from agebench.runs.label_alignment import OrderedLabels

log = logging.getLogger(__name__)


def build_age_limit(
    cfg: DictConfig, stamp: Mapping[str, Any], *, labels: OrderedLabels | None = None
) -> AgeLimit | None:
    """Return the age limit of a command, or None if there is none.

    Args:
        cfg: The config of the command. Keys that are null have the value of the run's config.
        stamp: The metadata of the run, as in its checkpoints.
        labels: The labels of the tested data, if they are not those of the run.

    Raises:
        UserError: If the labels of the run cannot be divided at the limit.
    """
    trained = stamp["config"]
    given = {key: cfg.get(key) if cfg.get(key) is not None else trained.get(key) for key in DEFAULTS}
    values, unit, bins = stamp["values"], stamp["unit"], (trained.get("data") or {}).get("bins")
    if labels is not None:
        values, unit, bins = labels.values.tolist(), labels.unit, labels.bins
    limit = make_age_limit(given, values=values, unit=unit, bins=bins)
    if limit is not None and (ages := left_out(given, limit)):
        why = "below the limit" if unit == "years" else "below the limit or no edge of the labels"
        log.info("challenge ages that are %s are left out: %s", why, ", ".join(f"{age:g}" for age in ages))
    return limit
