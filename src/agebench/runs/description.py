"""The parts of results.json that describe the data of a run and its test."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from agebench.calibration.calibration import Calibration
from agebench.data.plan import Plan
from agebench.data.split import PARTS, test_sha
from agebench.identity_groups import group_codes, resampled
from agebench.leakage.audit import UNKNOWN_PEOPLE, leak
from agebench.leakage.seen_in_training import audit_tested
from agebench.metrics import decision_summary
from agebench.metrics.bootstrap import METHOD, few_groups, few_in_cell, intervals, resamples_for
from agebench.metrics.breakdown import coverage_by_decade
from agebench.metrics.predictions import Array, Predictions, is_finite
from agebench.metrics.table import find
from agebench.runs.predictions_csv import unit_of
from agebench.runs.read import mapping

log = logging.getLogger(__name__)
DIFFERENCE = "baseline_difference"  # a key of results.json
MIN_JUMP = 0.02  # of a training loss, as a share; dropout and augmentation move it less
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
        """Return `data_sha`, `split_sha`, `data`, `leak`, `leak_checked` and `baseline` of results.json."""
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
            "leak_checked": self.audited["test_identity_in_train"] is not None,
            "baseline": {
                "median_mae": self.audited["median_mae"],
                "majority_accuracy": self.audited["majority_accuracy"],
            },
        }


def describe_test(plan: Plan, predictions: Predictions) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the keys of results.json about a test, and all intervals as `agebench.metrics.bootstrap` returns them.

    The keys are `metrics`, their 95% `intervals`, `bootstrap` (the resampled units, the number of resamples and the
    method), `baseline_difference` (the paired difference from one answer for every image, see `beyond_baseline`), and
    with an age limit `decision`, see agebench.metrics.decision_summary. The loss has an interval only if
    it is a mean over images, weighted by the head's sample weights.
    """
    identities = identities_of(plan, predictions)
    groups = group_codes(identities, len(predictions.rows))[1]
    resamples = resamples_for(groups)
    losses, weights = predictions.losses, predictions.weights
    means = decision_summary.curve_means(predictions)
    if losses is not None and weights is not None:
        mean = np.average(losses, weights=weights)
        if np.isclose(mean, predictions.metrics["test/loss"], rtol=1e-4, equal_nan=True):
            means = {"loss": (losses, weights)} | means
    beyond = beyond_baseline(plan, predictions)
    if beyond is not None:
        means |= {DIFFERENCE: (beyond, np.ones(len(beyond)))}
    bounds = intervals(predictions, identities, means=means, resamples=resamples, seed=SEED)
    found = {name: bounds[short].tolist() for name in predictions.metrics if (short := name[len("test/") :]) in bounds}
    over = "image" if identities is None else "identity"
    units = resampled(known=identities is not None, unit=predictions.unit)
    if warning := few_groups(groups, units):
        log.warning("%s", warning)
    for name, (low, _) in found.items():
        if find(name).balanced and np.isnan(low) and not np.isnan(predictions.metrics[name]) and groups > 1:
            log.warning("%s", few_in_cell(find(name).name, units))
    about = {"over": over, "groups": groups, "resamples": resamples, "seed": SEED, "method": METHOD}
    described = {"metrics": predictions.metrics, "intervals": found, "bootstrap": about}
    if beyond is not None:
        described[DIFFERENCE] = {"value": float(beyond.mean()), "interval": bounds[DIFFERENCE].tolist()}
    if (curves := decision_curves(plan, predictions, bounds)) is not None:
        described["decision"] = decision_summary.describe_decisions(predictions, curves, over=over)
    return described, bounds


def decision_curves(plan: Plan, predictions: Predictions, bounds: dict[str, Array]) -> dict[str, Array] | None:
    """Return the error rates of decisions at an age limit, see agebench.metrics.decision_summary.

    They are None without a limit, or if the predictions are not finite.
    """
    if predictions.age_limit is None or not is_finite(predictions):
        return None
    return decision_summary.decision_curves(predictions, bounds, identities_of(plan, predictions))


def beyond_baseline(plan: Plan, predictions: Predictions) -> Array | None:
    """Return the error of each image less that of one answer for every image, float64, shape (N,).

    The answer is the median of the train labels. For classes it is the most common train label, and the difference is
    that of being right (1) or wrong (0). None without train images, or if a prediction is not finite.
    """
    train = plan.target.labels[plan.split.train]
    same = len(predictions.values) == len(plan.target.label_names)  # the labels may be those of another data set
    if not len(train) or not same or not is_finite(predictions):
        return None
    if plan.target.ordered:
        truth = predictions.values[predictions.target]
        median = np.median(plan.target.values[train])
        errors: Array = np.abs(predictions.point - truth) - np.abs(median - truth)
        return errors
    right = predictions.posterior.argmax(1) == predictions.target
    guessed = predictions.target == np.bincount(train).argmax()
    gained: Array = right.astype(np.float64) - guessed
    return gained


def unknown_people(results: Mapping[str, Any]) -> str:
    """Return a sentence if a test is of ages, and the people in it or in train are unknown; else no text.

    Args:
        results: The content of results.json.
    """
    over = mapping(results.get("bootstrap")).get("over")  # older versions do not have leak_checked
    unknown = results.get("leak_checked") is False or over == "image"
    return UNKNOWN_PEOPLE if unknown and unit_of(str(results.get("protocol"))) else ""


def is_doubtful(results: Mapping[str, Any], name: str, guess: float) -> bool:
    """Return whether a test does not show that a run is better than one answer for every image.

    This is so if the 95% interval of the paired difference contains 0. Results of older versions do not have it: then
    the interval of the metric contains the value of the guess.

    Args:
        results: The content of results.json.
        name: The metric, such as `test/mae`.
        guess: Its value for the guess.
    """
    paired = mapping(results.get(DIFFERENCE)).get("interval")
    bounds, zero = (paired, 0.0) if paired is not None else (mapping(results.get("intervals")).get(name), guess)
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(isinstance(each, int | float) for each in bounds):
        return False
    return bool(bounds[0] <= zero <= bounds[1])


def no_better_than_guessing(results: Mapping[str, Any], losses: Sequence[float] = ()) -> str:
    """Return a sentence if a run is not, or not shown to be, better than one answer for every image; else no text.

    The answer is the median of the train labels, whose MAE is `median_mae` of `baseline`, or for classes the most
    common train label.

    Args:
        results: The content of results.json.
        losses: The training loss of each epoch.
    """
    baseline, metrics = results["baseline"], results["metrics"]
    if baseline["median_mae"] is not None:
        name, guess, answer = "test/mae", baseline["median_mae"], "the median of the train labels"
    else:
        name, guess, answer = "test/accuracy", baseline["majority_accuracy"], "the most common train label"
    value = metrics.get(name)
    if value is None or guess is None:  # diverged, or without train images
        return ""
    advice = "train for more epochs (trainer.max_epochs), or try another optim.lr (lr_find=true finds one)"
    if _jumps(losses):
        advice = "the training loss does not fall steadily: lower optim.lr (lr_find=true finds one)"
    if find(name).cost(value) >= find(name).cost(guess):
        return f"{name} is {value:.4g}, no better than the {guess:.4g} of always answering {answer}: {advice}"
    if is_doubtful(results, name, guess):
        return (
            f"{name} is {value:.4g}, not shown to be better than the {guess:.4g} of always answering {answer}: "
            "the 95% interval of the difference contains 0; train for more epochs, or test on more images"
        )
    return ""


def _jumps(losses: Sequence[float]) -> bool:
    """Return whether a loss goes up and down instead of falling. With a too low rate it hardly changes at all."""
    if len(losses) < 2 or losses[-1] < min(losses[:-1]):
        return False
    return max(losses) - min(losses) > MIN_JUMP * abs(min(losses))


def log_decision(results: Mapping[str, Any]) -> None:
    """Log what decisions at an age limit amount to, and warn about few people, if results.json has `decision`."""
    decision = results.get("decision", {})
    if decision:
        log.info("%s", decision["sentence"])
    for note in decision.get("notes", ()):
        log.warning("age_limit=%g: %s", decision["age_limit"], note)


def identities_of(plan: Plan, predictions: Predictions, *, part: str = "test") -> Array | None:
    """Return the identity of each predicted image of a part, shape (N,), or None if the data has none."""
    identities = plan.records.columns.get("identity")
    return None if identities is None else identities[getattr(plan.split, part)[predictions.rows]]


def describe_calibration(
    plan: Plan, calibration: Calibration, predictions: Predictions, bounds: Mapping[str, Array]
) -> dict[str, Any]:
    """Return `calibration` of results.json: how it was fitted, and its coverage and width by decade of the true age.

    Args:
        plan: The plan of the data.
        calibration: The calibration.
        predictions: The calibrated predictions for the test part.
        bounds: The intervals of their metrics.
    """
    if not (predictions.ordered and is_finite(predictions)):
        return calibration.facts
    (_, *names), rows = coverage_by_decade(predictions, plan.target.label_names, bounds)
    by_decade = {
        str(cell): dict(zip(names, [images, *(float(str(each)) if each else None for each in numbers)], strict=True))
        for cell, images, *numbers in rows
    }
    return {**calibration.facts, "by_decade": by_decade}
