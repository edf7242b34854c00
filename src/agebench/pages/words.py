"""The sentences of the page of a run: its verdict, its warnings, and what each metric means."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from agebench.metrics.table import find, main_metric
from agebench.pages.material import Material
from agebench.runs.description import is_doubtful
from agebench.runs.read import mapping, number

# A name and a sentence for each metric that the page lists. Shares are shown in percent.
METRICS: Mapping[str, tuple[str, str]] = {
    "mae": ("mean absolute error", "how far the estimate is from the truth, on average"),
    "rmse": ("root mean squared error", "the same, but large errors count more"),
    "median_error": ("median error", "half of the images have a smaller error"),
    "bias": ("bias", "mean of estimate minus truth: positive is too high (too old), negative too low"),
    "cs5": ("error of 5 years or less", "share of images (the cumulative score CS@5)"),
    "within_1": ("at most one label off", "share of images"),
    "qwk": ("quadratic weighted kappa", "agreement with the truth: 1 perfect, 0 chance; large mistakes cost more"),
    "accuracy": ("accuracy", "share of images whose most likely label is the true one"),
    "balanced_accuracy": ("balanced accuracy", "the same for each label alone, then averaged over the labels"),
    "macro_f1": ("macro F1", "harmonic mean of precision and recall, averaged over the labels"),
    "top5": ("top-5 accuracy", "share of images whose true label is among the five most likely; easy with few labels"),
    "nll": ("negative log-likelihood", "surprise by the truth, in nats: lower is better; guessing has ln(n labels)"),
    "ece": ("calibration error", "mean gap between the probability that it states and how often it is right"),
    "false_adult_rate": ("false adults", "share of the people below the age limit who are judged above it"),
    "false_minor_rate": ("false minors", "share of the people above the age limit who are judged below it"),
    "coverage": ("coverage", "share of images whose range (or set of labels) contains the truth"),
    "range_width": ("width of a range", "mean width of the calibrated ranges"),
    "set_size": ("size of a set", "mean number of labels in the calibrated sets"),
}
RATES = ("false_adult_rate", "false_minor_rate")
SHARES = {"accuracy", "balanced_accuracy", "top5", "cs5", "within_1", "coverage", *RATES}


def show(name: str, value: float | None, *, unit: str, images: int) -> str:
    """Return the value of a metric as text: a share in percent, an error with its unit."""
    if value is None or not math.isfinite(value):
        return "undefined"
    if name in SHARES:
        return f"{100 * value:.{2 if images >= 2_000 else 1}f}%"
    row = find(name)
    text = f"{value:{'+' if name == 'bias' else ''}.{row.decimals(unit=unit, images=images)}f}"
    return f"{text} {unit}" if unit and row.in_unit else text


def metric_rows(run: Material) -> list[dict[str, str]]:
    """Return a row for each metric of the page, the main one first: name, value, 95% interval and meaning."""
    images, metrics, rows, main = _images(run), run.run.metrics, [], main_metric(run.unit)
    for name, (label, meaning) in sorted(METRICS.items(), key=lambda each: each[0] != main):
        key = f"test/{name}"
        if key in metrics:
            interval = _interval(run, key)
            ends = [show(name, each, unit=run.unit, images=images) for each in interval or ()]
            rows.append(
                {
                    "name": label,
                    "key": key,
                    "value": show(name, metrics[key], unit=run.unit, images=images),
                    "interval": " to ".join(each.removesuffix(f" {run.unit}") for each in ends),
                    "meaning": meaning,
                }
            )
    return rows


def verdict(run: Material) -> str:
    """Return the result of the run in one sentence, with its 95% interval."""
    name = main_metric(run.unit)
    value, images = run.run.metrics.get(f"test/{name}"), _images(run)
    if f"test/{name}" not in run.run.metrics:
        return {
            "completed": "This run has no test results.",
            "running": "This run is still running, so it has no test results yet.",
        }.get(run.run.status, f"This run {_is(run.run.status)}, so it has no test results.")
    if value is None:
        return "The predictions are not finite: training diverged."
    of = f"{images:,} test image{'s' if images != 1 else ''}"
    who = f"The network ({run.model})" if run.model else "The network"
    shown, interval = show(name, value, unit=run.unit, images=images), _interval(run, f"test/{name}")
    ends = [show(name, each, unit=run.unit, images=images) for each in interval or ()]
    within = f" (95% interval: {' to '.join(ends)})" if ends else ""
    if name == "accuracy":
        return f"{who} recognises {shown} of {of}{within}.{_versus(run, name)}"
    return f"{who} is {shown} off on average on {of}{within}.{_versus(run, name)}"


def _versus(run: Material, name: str) -> str:
    """Return a sentence with the score of a guess that looks at no image; empty if it is unknown."""
    guess = constant_guess(run).get(name)
    if guess is None:
        return ""
    shown = show(name, guess, unit=run.unit, images=_images(run))
    value, doubt = run.run.metrics.get(f"test/{name}"), ""
    better = value is not None and find(name).cost(value) < find(name).cost(guess)
    if better and is_doubtful(run.run.results, f"test/{name}", guess):
        answer = "the median" if name == "mae" else "the most common label"
        doubt = f" The network is not shown to be better than always answering {answer}: the difference may be chance."
    what = "the median age of train" if name == "mae" and run.unit == "years" else "the most common label of train"
    if name == "mae":
        return f" Always guessing {what} is {shown} off.{doubt}"
    return f" Always guessing {what} gets {shown}.{doubt}"


def constant_guess(run: Material) -> dict[str, float]:
    """Return the test metrics of the best constant guess: the median of train, or its most common label."""
    train, test = run.counts.get("train"), run.counts.get("test")
    if not train or not test:
        return {}
    common = train.most_common(1)[0][0]
    found = {"accuracy": test[common] / test.total()}
    if run.unit == "years":
        try:
            values, weights = zip(*sorted((float(label), count) for label, count in train.items()), strict=True)
            median = float(np.median(np.repeat(values, weights)))
            found["mae"] = sum(abs(float(label) - median) * n for label, n in test.items()) / test.total()
        except ValueError:
            return found
    return found


def warnings(run: Material) -> list[str]:
    """Return what a reader must know before the results."""
    found = []
    if run.run.status != "completed" and run.run.metrics:
        found.append(f"This run {_is(run.run.status)}: its results may be those of an earlier start.")
    if run.run.error:
        found.append(f"The run failed: {run.run.error}")
    if run.leak:
        what = "images" if run.leak.get("identities") == 0 else "identities"
        sentence = run.leak_sentence.removeprefix("for comparison: ") if what == "images" else run.leak_sentence
        found.append(f"Train and test share {what}: {sentence or 'see results.json'}.")
    if mapping(run.run.result("data")).get("val_is_test"):
        found.append(
            "The validation images are the test images: the epoch was chosen on them, so the test result is optimistic."
        )
    name = main_metric(run.unit)
    value, guess = run.run.metrics.get(f"test/{name}"), constant_guess(run).get(name)
    if value is not None and guess is not None and find(name).cost(value) >= find(name).cost(guess):
        found.append("The network is no better than a constant guess, which looks at no image.")
    return found


def leak_note(run: Material) -> str:
    """Return a sentence about people who are in several parts, or about what the run of an evaluation has seen."""
    if run.seen_sentence:
        return f"{run.seen_sentence[0].upper()}{run.seen_sentence[1:]}."
    if run.leak:
        return "Some identities of the test images are in train: see the note at the top."
    if not run.identities:
        return "The data set does not say who or what an image shows, so it is unknown whether train and test share it."
    return "No identity of the test images is in train."


def _images(run: Material) -> int:
    return int(number(mapping(run.run.result("data")).get("test")) or 0)


def _interval(run: Material, key: str) -> tuple[float, float] | None:
    found: Any = mapping(run.run.result("intervals")).get(key)
    if not isinstance(found, list) or len(found) != 2 or any(number(each) is None for each in found):
        return None
    return float(found[0]), float(found[1])


def _is(status: str) -> str:
    return status if status in ("failed", "crashed") else f"is {status}"
