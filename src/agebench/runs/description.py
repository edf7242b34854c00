"""The parts of results.json that describe the data of a run and its test."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from agebench.data.plan import Plan
from agebench.data.split import PARTS, test_sha
from agebench.identity_groups import group_codes
from agebench.leakage.audit import leak
from agebench.leakage.seen_in_training import audit_tested
from agebench.metrics.bootstrap import intervals, resamples_for
from agebench.metrics.predictions import Array, Predictions

SEED = 0  # of the bootstrap, independent of the run's seed: equal predictions have equal intervals


def data_sha(plan: Plan) -> str:
    """Return a hash of the name, part and label of every image, 16 hex digits.

    It changes with missing and broken images and with edited lists and labels, even if the config stays the same.
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
    """The data of a run and the leakage of its split, computed once.

    Args:
        plan: The plan of the data.
        tested: Rows of the test part that are tested, int64, shape (n,). A trainer limit may exclude some.
    """

    plan: Plan
    tested: Array

    @classmethod
    def of(cls, plan: Plan) -> "DataDescription":
        """Return the description of a plan whose complete test part is tested."""
        return cls(plan, np.arange(len(plan.split.test)))

    def limited_to(self, predictions: Predictions) -> "DataDescription":
        """Return the description for the images that were actually tested."""
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
    """Return the keys of results.json about a test, and all intervals as `agebench.metrics.bootstrap` returns them.

    The keys are `metrics`, their 95% `intervals`, and `bootstrap` (the resampled units and the number of resamples).
    The loss has an interval only if it is a mean over images, weighted by the head's sample weights.
    """
    identities = identities_of(plan, predictions)
    groups = group_codes(identities, len(predictions.rows))[1]
    resamples = resamples_for(groups)
    losses, weights = predictions.losses, predictions.weights
    means = {}
    if losses is not None and weights is not None:
        mean = np.average(losses, weights=weights)
        if np.isclose(mean, predictions.metrics["test/loss"], rtol=1e-4, equal_nan=True):
            means["loss"] = (losses, weights)
    bounds = intervals(predictions, identities, means=means, resamples=resamples, seed=SEED)
    found = {name: bounds[short].tolist() for name in predictions.metrics if (short := name[len("test/") :]) in bounds}
    over = "image" if identities is None else "identity"
    about = {"over": over, "groups": groups, "resamples": resamples, "seed": SEED}
    return {"metrics": predictions.metrics, "intervals": found, "bootstrap": about}, bounds


def identities_of(plan: Plan, predictions: Predictions) -> Array | None:
    """Return the identity of each predicted image, shape (N,), or None if the data has none."""
    identities = plan.records.columns.get("identity")
    return None if identities is None else identities[plan.split.test[predictions.rows]]
