"""How often do 95% intervals over people hold? python -m benchmarks.interval_coverage

Draws people from a population, computes intervals from their images, and counts how often an interval contains the
metric of the population. The errors have the correlation within people of real runs (`icc` in the report): 0.7 for the
error, 0.45 for its absolute value, 0.25 for `cs5`.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.stats import norm, t

from agebench.metrics.bootstrap import draw
from agebench.metrics.compute import from_sums, rows_of, sums
from agebench.metrics.predictions import Images, LabelledPredictions

AGES = np.arange(14.0, 63.0)
METRICS = ("mae", "accuracy", "qwk", "cs5", "difference")
Array = np.ndarray


def draw_people(rng: np.random.Generator, people: int) -> tuple[LabelledPredictions, Array, Array]:
    """Return predictions, the people, and the difference of the absolute errors of a second model, per image.

    As on the demo faces: an age varies little within a person, and estimates regress to the mean age.
    """
    groups = np.repeat(np.arange(people), 1 + np.exp(rng.normal(2.5, 0.6, size=people)).astype(np.int64))
    count = len(groups)
    age = np.clip(np.round(rng.uniform(14, 62, size=people)[groups] + rng.uniform(-5, 5, size=count)), 14, 62)
    person, image = rng.normal(size=(2, people))[:, groups], rng.normal(size=(2, count))
    points = []
    for slope, own in ((-0.4, 0.0), (-0.5, 0.5)):  # the second model shares most of the error of the first
        error = slope * (age - 38)
        error += 5.5 * ((1 - own) * person[0] + own * person[1]) + 5 * ((1 - own) * image[0] + own * image[1])
        points.append(np.clip(np.round(age + error), 14, 62))
    posterior = np.eye(49, dtype=np.float32)[(points[0] - 14).astype(np.int64)]
    target = (age - 14).astype(np.int64)
    difference = np.abs(points[1] - age) - np.abs(points[0] - age)
    return LabelledPredictions(posterior, points[0], target, AGES, True, "years"), groups, difference


def totals(predictions: LabelledPredictions, groups: Array, difference: Array) -> dict[str, Array]:
    """Return the sums over the images of each person that the metrics need."""
    count = groups.max() + 1
    added = sums(Images(predictions), groups, count)
    return {**added, "difference": np.bincount(groups, weights=difference, minlength=count)[:, None]}


def evaluate(added: dict[str, Array], rows: list, times: Array) -> Array:
    """Return METRICS of B sets of people, shape (B, metrics), from how often each set contains each person, (B, G)."""
    resampled = {name: times @ each for name, each in added.items()}
    difference = resampled.pop("difference")[:, 0] / resampled["actual"].sum(1)
    found = from_sums(resampled, rows) | {"difference": difference}
    return np.stack([found[name] for name in METRICS], axis=1)


def percentile(value: Array, resampled: Array, jackknife: Array, z: float) -> Array:
    return np.quantile(resampled, norm.cdf([-z, z]), axis=0)


def bca(value: Array, resampled: Array, jackknife: Array, z: float) -> Array:
    below = ((resampled < value).mean(0) + (resampled <= value).mean(0)) / 2
    shift = norm.ppf(np.clip(below, 1e-3, 1 - 1e-3))
    centred = jackknife.mean(0) - jackknife
    spread = np.maximum((centred**2).sum(0), 1e-30)  # zero if no image of any person is correct
    acceleration = (centred**3).sum(0) / (6 * spread**1.5)
    ends = []
    for sign in (-1, 1):
        moved = shift + sign * z
        levels = norm.cdf(shift + moved / (1 - acceleration * moved))
        ends.append([np.quantile(resampled[:, i], level) for i, level in enumerate(levels)])
    return np.array(ends)


def student(value: Array, resampled: Array, jackknife: Array, z: float) -> Array:
    half = z * np.sqrt((len(jackknife) - 1) * jackknife.var(0))
    return np.stack([value - half, value + half])


def standard_errors(sums_of_means: Array, sizes: Array, times: Array) -> Array:
    """Return the linearised standard error of means over images in each of B sets of people, shape (B, M).

    Args:
        sums_of_means: Sum over the images of each person, shape (G, M).
        sizes: Images of each person, shape (G,).
        times: How often each set contains each person, shape (B, G).
    """
    images = times @ sizes  # (B,)
    means = times @ sums_of_means / images[:, None]
    squares = times @ sums_of_means**2 - 2 * means * (times @ (sums_of_means * sizes[:, None]))
    squares += means**2 * (times @ sizes**2)[:, None]
    people = len(sizes)
    return np.sqrt(np.maximum(squares, 0) * people / (people - 1)) / images[:, None]


def studentised(value: Array, resampled: Array, errors: tuple[Array, Array]) -> Array:
    """Return the bootstrap-t interval, for means over images only."""
    own, of_resamples = errors
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.nan_to_num((resampled - value) / of_resamples, nan=0.0, posinf=1e9, neginf=-1e9)
    low, high = np.quantile(ratio, [0.025, 0.975], axis=0)
    return np.stack([value - high * own, value - low * own])


def expanded(people: float) -> float:
    """Return the number of standard errors of an expanded percentile interval."""
    return float(t.ppf(0.975, people - 1) * np.sqrt(people / (people - 1)))


def methods(people: int, effective: float) -> dict[str, tuple[Callable[..., Array], float]]:
    """Return the intervals to compare: a function, and the number of standard errors in place of 1.96."""
    normal, small = norm.ppf(0.975), expanded(people)
    return {
        "percentile": (percentile, normal),
        "expanded percentile": (percentile, small),
        "expanded percentile, effective people": (percentile, expanded(effective)),
        "BCa": (bca, normal),
        "expanded BCa": (bca, small),
        "jackknife t": (student, t.ppf(0.975, people - 1)),
    }


def simulate(people: int, *, rounds: int, resamples: int, true: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the share of intervals that contain the true value, and their mean width, for each method."""
    rng = np.random.default_rng(people)
    names = [*methods(people, people), "studentised"]
    held = {name: np.zeros(len(METRICS)) for name in names}
    width = {name: np.zeros(len(METRICS)) for name in names}
    for i in range(rounds):
        predictions, groups, difference = draw_people(rng, people)
        added, rows = totals(predictions, groups, difference), rows_of(predictions)
        value = evaluate(added, rows, np.ones((1, people)))[0]
        jackknife = evaluate(added, rows, 1 - np.eye(people))
        times = np.concatenate(list(draw(people, resamples=resamples, seed=i))).astype(float)
        resampled, sizes = evaluate(added, rows, times), np.bincount(groups).astype(float)
        intervals = {
            name: method(value, resampled, jackknife, z)
            for name, (method, z) in methods(people, sizes.sum() ** 2 / (sizes**2).sum()).items()
        }
        order = [metric.name for metric in rows if metric.per_image is not None and not metric.balanced]
        columns = [added["means"][:, order.index(name)] for name in ("mae", "accuracy", "cs5")]
        parts = np.stack([*columns, added["difference"][:, 0]], axis=1)
        errors = standard_errors(parts, sizes, np.ones((1, people)))[0], standard_errors(parts, sizes, times)
        are_means = [0, 1, 3, 4]  # all of METRICS but qwk
        intervals["studentised"] = np.full((2, len(METRICS)), np.nan)
        intervals["studentised"][:, are_means] = studentised(value[are_means], resampled[:, are_means], errors)
        for name, (low, high) in intervals.items():
            held[name] += (low <= true) & (true <= high)
            width[name] += high - low
    return {n: each / rounds for n, each in held.items()}, {n: each / rounds for n, each in width.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    start = time.monotonic()
    population = draw_people(np.random.default_rng(0), 20_000)
    true = evaluate(totals(*population), rows_of(population[0]), np.ones((1, 20_000)))[0]
    print("population:", ", ".join(f"{name} {value:.4f}" for name, value in zip(METRICS, true, strict=True)))
    print(f"| people | interval | {' | '.join(METRICS)} | mean width of mae |")
    for people in (10, 22, 80, 120):
        held, width = simulate(people, rounds=arguments.rounds, resamples=arguments.resamples, true=true)
        for name, shares in held.items():
            pairs = zip(shares, width[name], strict=True)
            cells = " | ".join("-" if np.isnan(size) else f"{share:.3f}" for share, size in pairs)
            print(f"| {people} | {name} | {cells} | {width[name][0]:.2f} |", flush=True)
    print(f"{arguments.rounds} rounds of {arguments.resamples} resamples, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
