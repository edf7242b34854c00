"""What results.json says about the data of a run and about its test."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from agebench.data.plan import Plan
from agebench.data.split import PARTS, test_sha
from agebench.groups import group_codes
from agebench.leakage.audit import leak
from agebench.leakage.seen_in_training import audit_tested
from agebench.metrics.bootstrap import intervals, resamples_for
from agebench.metrics.predictions import Array, Predictions

SEED = 0  # of the bootstrap, whatever the run's seed: the same predictions have the same intervals


def data_sha(plan: Plan) -> str:
    """Return 16 hex digits for every image of every part with its label.

    They change with missing and broken images and with edited lists and labels, although the config is the same.
    """
    rows = [plan.split.part(part) for part in PARTS]
    lines = [
        f"{part}|{name}|{label}"
        for part, each in zip(PARTS, rows, strict=True)
        for name, label in zip(plan.records.names[each], plan.target.labels[each], strict=True)
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class DataDescription:
    """The data of a run and what its split leaks, worked out once.

    Args:
        plan: Of the data.
        tested: Rows of the test part that are tested, int64, shape (n,); a trainer limit leaves some out.
    """

    plan: Plan
    tested: Array

    @classmethod
    def of(cls, plan: Plan) -> "DataDescription":
        """Describe data whose whole test part is tested."""
        return cls(plan, np.arange(len(plan.split.test)))

    def limited_to(self, predictions: Predictions) -> "DataDescription":
        """Return the description for the images that were really tested."""
        if len(predictions.rows) == len(self.tested):
            return self
        return DataDescription(self.plan, predictions.rows)

    @cached_property
    def audited(self) -> dict[str, Any]:
        """The audit of the split, see agebench.leakage.audit."""
        return audit_tested(self.plan, self.tested)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Return `data_sha`, `split_sha`, `data` and `leak` of results.json."""
        plan = self.plan
        return {
            "data_sha": data_sha(plan),
            "split_sha": test_sha(plan.records, plan.split.test[self.tested]),
            "data": {
                **plan.counts,
                "test": len(self.tested),
                "val_is_test": plan.split.val_is_test,
                "missing": len(plan.missing),
                "broken": len(plan.broken),
            },
            "leak": leak(self.audited),
        }


def describe_test(plan: Plan, predictions: Predictions) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return what results.json says about a test, and all intervals as `agebench.metrics.bootstrap` returns them.

    The former holds `metrics`, their 95% `intervals`, and `bootstrap`: what was resampled, and how often. A loss that
    is not a mean over images under the head's own weights has no interval.
    """
    people = identities_of(plan, predictions)
    groups = group_codes(people, len(predictions.rows))[1]
    resamples = resamples_for(groups)
    losses, weights = predictions.losses, predictions.weights
    mean = np.average(losses, weights=weights)
    is_mean = np.isclose(mean, predictions.metrics["test/loss"], rtol=1e-4, equal_nan=True)
    means = {"loss": (losses, weights)} if is_mean else {}
    bounds = intervals(predictions, people, means=means, resamples=resamples, seed=SEED)
    found = {name: bounds[short].tolist() for name in predictions.metrics if (short := name[len("test/") :]) in bounds}
    over = "image" if people is None else "identity"
    about = {"over": over, "groups": groups, "resamples": resamples, "seed": SEED}
    return {"metrics": predictions.metrics, "intervals": found, "bootstrap": about}, bounds


def identities_of(plan: Plan, predictions: Predictions) -> Array | None:
    """Return the identity of each predicted image, shape (N,), or None if the data has none."""
    people = plan.records.columns.get("identity")
    return None if people is None else people[plan.split.test[predictions.rows]]
