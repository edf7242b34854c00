"""How often do 95% intervals of balanced metrics hold? python -m benchmarks.balanced_coverage

Draws test sets of labels with few and with many images from a classifier whose recall of each label is known, computes
intervals in several ways, and counts how often an interval contains the metric of the population, and the metric of the
test set itself.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from agebench.metrics.bootstrap import central_levels, draw, effective_groups

METRICS = ("balanced_accuracy", "macro_f1")
Array = np.ndarray


@dataclass(frozen=True)
class Case:
    """A population and a test set drawn from it.

    Args:
        name: What it is.
        confusion: Probability of each predicted label, shape (R, R).
        target: The true label of each image, int64, shape (N,).
        people: The person of each image, int64, shape (N,).
        shared: The share of the images of a person that have the same luck: 0 is independent images.
    """

    name: str
    confusion: Array
    target: Array
    people: Array
    shared: float = 0.0

    def draw(self, rng: np.random.Generator) -> Array:
        """Return the predicted label of each image, int64, shape (N,)."""
        own, together = rng.random(len(self.target)), rng.random(self.people.max() + 1)[self.people]
        luck = np.where(rng.random(len(self.target)) < self.shared, together, own)
        return (luck[:, None] > np.cumsum(self.confusion[self.target], axis=1)[:, :-1]).sum(1)

    @property
    def true(self) -> Array:
        """Return METRICS of the population, in which labels are as frequent as in the test set."""
        share = np.bincount(self.target, minlength=len(self.confusion)) / len(self.target)
        recall = np.diag(self.confusion)
        return np.array([recall.mean(), (2 * share * recall / (share + share @ self.confusion)).mean()])


def confusion(recalls: Array, *, spread: float) -> Array:
    """Return a confusion matrix with these recalls, shape (R, R). Errors decay with the distance between labels."""
    distance = np.abs(np.subtract.outer(np.arange(len(recalls)), np.arange(len(recalls))))
    errors = np.exp(-distance / spread) * (distance > 0)
    found = errors / errors.sum(1, keepdims=True) * (1 - recalls)[:, None]
    np.fill_diagonal(found, recalls)
    return found


def cases() -> list[Case]:
    ten, ages = np.linspace(0.6, 0.98, 10), np.arange(70) % 5 + 1  # images of each age
    counts = {f"70 ages, {n} images each": np.repeat(np.arange(70), n) for n in (2, 5)}
    few = np.where(ages == 5, 40, 1)
    return [
        Case("10 labels, 50 images each", confusion(ten, spread=3), np.repeat(np.arange(10), 50), np.arange(500)),
        Case(
            "the same, 100 people of 5 images",
            confusion(ten, spread=3),
            np.tile(np.arange(10), 50),
            np.arange(500) // 5,
            0.5,
        ),
        Case(
            "70 ages, 1 to 5 images each, rarer ages are harder",
            confusion(0.1 * ages, spread=4),
            np.repeat(np.arange(70), ages),
            np.arange(ages.sum()),
        ),
        Case(
            "70 ages, 1 to 5 images each, all equally hard",
            confusion(np.full(70, 0.3), spread=4),
            np.repeat(np.arange(70), ages),
            np.arange(ages.sum()),
        ),
        Case(
            "70 ages, 14 with 40 images, 56 with a single one and harder",
            confusion(np.where(few > 1, 0.6, 0.1), spread=4),
            np.repeat(np.arange(70), few),
            np.arange(few.sum()),
        ),
        *(
            Case(name, confusion(np.linspace(0.05, 0.6, 70), spread=4), target, np.arange(len(target)))
            for name, target in counts.items()
        ),
    ]


@dataclass(frozen=True)
class Counts:
    """Images by label: true, predicted, and predicted correctly, float64, shape (B, R) each."""

    actual: Array
    predicted: Array
    correct: Array

    @classmethod
    def of(cls, times: Array, target: Array, predicted: Array, labels: int) -> "Counts":
        """Count the images of B resamples, from how often each contains each image, shape (B, N)."""
        eye = np.eye(labels)
        return cls(times @ eye[target], times @ eye[predicted], times @ (eye[target] * (target == predicted)[:, None]))

    def terms(self) -> tuple[Array, Array]:
        """Return recall and F1 of each label, shape (B, R). NaN for labels without images."""
        with np.errstate(invalid="ignore"):
            return self.correct / self.actual, 2 * self.correct / (self.actual + self.predicted)


def resampled_metrics(method: str, case: Case, predicted: Array, times: Array) -> Array:
    """Return METRICS of B resamples, shape (B, 2), from how often each contains each image, shape (B, N)."""
    target, labels = case.target, len(case.confusion)
    if method == "fixed weights":
        sizes, total = np.bincount(target, minlength=labels), np.bincount(predicted, minlength=labels)
        correct, both = target == predicted, 1 / np.maximum(sizes + total, 1)
        weights = np.stack([1 / sizes[target], both[target] + both[predicted]], axis=1)  # (N, 2)
        return (times @ (weights * correct[:, None])) / (times @ weights)
    drawn = Counts.of(times, target, predicted, labels).terms()
    if method == "absent labels keep their term":
        ones = Counts.of(np.ones((1, len(target))), target, predicted, labels).terms()
        drawn = tuple(np.where(np.isnan(each), original, each) for each, original in zip(drawn, ones, strict=True))
    return np.stack([np.nanmean(each, axis=1) for each in drawn], axis=1)


def stratified(target: Array, resamples: int, seed: int) -> Array:
    """Return how often each of B resamples contains each image, if the images of each label are drawn apart."""
    rng, times = np.random.default_rng(seed), np.zeros((resamples, len(target)))
    for label in np.unique(target):
        rows = np.flatnonzero(target == label)
        times[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
    return times


def intervals(case: Case, predicted: Array, *, resamples: int, seed: int) -> dict[str, Array]:
    """Return the intervals of METRICS of each method, shape (2, 2): bounds, metrics. The value is under `value`."""
    groups = case.people.max() + 1
    times = np.concatenate(list(draw(groups, resamples=resamples, seed=seed))).astype(float)[:, case.people]
    levels = central_levels(effective_groups(case.people, groups))
    found = {}
    for method in ("labels of the resample (before)", "absent labels keep their term", "fixed weights"):
        found[method] = np.quantile(resampled_metrics(method, case, predicted, times), levels, axis=0)
    before = resampled_metrics("", case, predicted, times)
    value = resampled_metrics("", case, predicted, np.ones((1, len(predicted))))[0]
    found["basic"] = 2 * value - np.quantile(before, levels[::-1], axis=0)
    left_out = 1 - np.eye(groups)[:, case.people]
    found["BCa"] = bca(value, before, resampled_metrics("", case, predicted, left_out))
    if groups == len(predicted):
        drawn = resampled_metrics("", case, predicted, stratified(case.target, resamples, seed))
        found["stratified by label"] = np.quantile(drawn, levels, axis=0)
    return {"value": value, **found}


def bca(value: Array, resampled: Array, jackknife: Array) -> Array:
    z, ends = norm.ppf(0.975), []
    below = ((resampled < value).mean(0) + (resampled <= value).mean(0)) / 2
    shift = norm.ppf(np.clip(below, 1e-3, 1 - 1e-3))
    centred = jackknife.mean(0) - jackknife
    acceleration = (centred**3).sum(0) / (6 * np.maximum((centred**2).sum(0), 1e-30) ** 1.5)
    for sign in (-1, 1):
        moved = shift + sign * z
        levels = norm.cdf(shift + moved / (1 - acceleration * moved))
        ends.append([np.quantile(resampled[:, i], level) for i, level in enumerate(levels)])
    return np.array(ends)


def errors_of_cells(rounds: int, resamples: int) -> None:
    """Print how often intervals of balanced_mae hold, for ten decades with few images in the hardest one."""
    means = np.array([12, 8, 7, 7, 8, 10, 13, 18, 25, 30.0])  # years; the errors are gamma-distributed
    for sizes in (*([60, 60, 50, 40, 30, 30, 15, 12, 12, few] for few in (1, 2, 3, 5, 10)), [50] * 10):
        cell, rng = np.repeat(np.arange(10), sizes), np.random.default_rng(0)
        own, weights, held = np.eye(10)[cell], 1 / np.array(sizes)[cell], []
        for i in range(rounds):
            error = rng.gamma(1.6, 1 / 1.6, len(cell)) * means[cell]
            times = np.concatenate(list(draw(len(cell), resamples=resamples, seed=i))).astype(float)
            with np.errstate(invalid="ignore"):
                before = np.nanmean((times @ (own * error[:, None])) / (times @ own), axis=1)
            fixed = (times @ (weights * error)) / (times @ weights)
            bounds = [np.quantile(each, central_levels(len(cell))) for each in (before, fixed)]
            held.append([(low <= means.mean() <= high, high - low) for low, high in bounds])
        (before_holds, before_width), (holds, width) = np.mean(held, axis=0)
        print(f"balanced_mae, images {sizes}: before {before_holds:.3f} (width {before_width:.2f}), ", end="")
        print(f"fixed weights {holds:.3f} (width {width:.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    start = time.monotonic()
    errors_of_cells(arguments.rounds, arguments.resamples)
    print("| test set | interval | " + " | ".join(f"{m}: holds | excludes its value | width" for m in METRICS) + " |")
    for case in cases():
        rng, rows, values = np.random.default_rng(0), dict[str, list[Array]](), []
        for i in range(arguments.rounds):
            found = intervals(case, case.draw(rng), resamples=arguments.resamples, seed=i)
            values.append(value := found.pop("value"))
            for method, (low, high) in found.items():
                facts = np.stack([(low <= case.true) & (case.true <= high), (value < low) | (value > high), high - low])
                rows.setdefault(method, []).append(facts)
        bias = np.mean(values, axis=0) - case.true
        print(f"{case.name}: metrics {case.true.round(3)}, mean of the metric less that {bias.round(3)}")
        for method, each in rows.items():
            share = np.mean(each, axis=0)  # (3, metrics)
            cells = " | ".join(
                f"{share[0, i]:.3f} | {share[1, i]:.3f} | {share[2, i]:.3f}" for i in range(len(METRICS))
            )
            print(f"| {case.name} | {method} | {cells} |", flush=True)
    print(f"{arguments.rounds} rounds of {arguments.resamples} resamples, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
