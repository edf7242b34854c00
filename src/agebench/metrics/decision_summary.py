"""What decisions at an age limit amount to: the table for decision.csv, the counts, and one sentence."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from agebench.identity_groups import group_codes
from agebench.metrics import decisions
from agebench.metrics.age_limit import AgeLimit
from agebench.metrics.decisions import FALSE_ADULT, FALSE_MINOR, TAIL, at_age, rates
from agebench.metrics.predictions import Array, Images, LabelledPredictions

FEW_PEOPLE = 20  # on one side of the limit; with fewer, a warning says so
Curves = dict[str, Array]


def curve_means(predictions: LabelledPredictions) -> dict[str, tuple[Array, Array]]:
    """Return both error rates at the ages that are no challenge ages, as `means` of agebench.metrics.bootstrap."""
    limit = predictions.age_limit
    if limit is None:
        return {}
    return rates(Images(predictions), [age for age in limit.ages if age not in limit.challenge_ages])


def decision_curves(predictions: LabelledPredictions, bounds: Mapping[str, Array], groups: Array | None) -> Curves:
    """Return both error rates over the age from which a person passes, with 95% intervals.

    Args:
        predictions: N images, all finite, with an age limit.
        bounds: The result of `intervals` with the means of `curve_means`.
        groups: The group of each image, as for `intervals`.

    Returns:
        The columns of decision.csv, float64, shape (A,). A rate of which there are no images is NaN.
    """
    limit, images = _limit(predictions), Images(predictions)
    found, codes = rates(images, limit.ages), group_codes(groups, len(predictions.target))[0]
    columns = {"challenge_age": np.array(limit.ages)}
    for name, chosen in ((FALSE_ADULT, ~images.at_limit), (FALSE_MINOR, images.at_limit)):
        names = [at_age(name, age) for age in limit.ages]
        shares = [np.average(found[each][0], weights=found[each][1]) if each in found else np.nan for each in names]
        low_high = np.stack([bounds.get(each, np.full(2, np.nan)) for each in names])  # (A, 2)
        columns |= {name: np.array(shares), f"{name}_low": low_high[:, 0], f"{name}_high": low_high[:, 1]}
        side = "below" if name == FALSE_ADULT else "above"
        columns[f"images_{side}"] = np.full(len(names), float(chosen.sum()))
        columns[f"people_{side}"] = np.full(len(names), float(decisions.people(codes, chosen)[0]))
    return columns


def decision_table(curves: Curves) -> tuple[list[str], list[list[object]]]:
    """Return the columns and rows of decision.csv. NaN is an empty cell."""
    rows = [["" if np.isnan(x) else f"{x:.6g}" for x in row] for row in zip(*curves.values(), strict=True)]
    return list(curves), [list(row) for row in rows]


def describe_decisions(predictions: LabelledPredictions, curves: Curves, *, over: str) -> dict[str, Any]:
    """Return `decision` of results.json: the settings, the images and people on each side, and what they allow to say.

    Args:
        predictions: N images with an age limit.
        curves: The result of `decision_curves`.
        over: What the intervals resample: `identity` or `image`.
    """
    limit = _limit(predictions)
    allowed = [age for age in limit.challenge_ages if _row(curves, age)["false_adult_rate_high"] <= limit.acceptable]
    sides = {
        side: {unit: int(curves[f"{unit}_{side}"][0]) for unit in ("images", "people")} for side in ("below", "above")
    }
    if over != "identity":
        for counts in sides.values():
            del counts["people"]  # unknown
    return {
        "age_limit": limit.limit,
        "challenge_ages": list(limit.challenge_ages),
        "acceptable": limit.acceptable,
        "priors": list(limit.priors),
        **sides,
        "challenge_age": allowed[0] if allowed else None,
        "sentence": _sentence(limit, curves, allowed, people="people" if over == "identity" else "images"),
        "notes": _notes(limit, sides),
    }


def _sentence(limit: AgeLimit, curves: Curves, allowed: list[float], *, people: str) -> str:
    count = int(curves["people_below"][0])
    if count == 0:
        return f"No test image is below {limit.limit:g}, so no challenge age can be recommended."
    ages = ", ".join(f"{age:g}" for age in limit.challenge_ages)
    bound = f"an upper bound of at most {_percent(limit.acceptable)}"
    if allowed:
        row = _row(curves, allowed[0])
        return (
            f"{allowed[0]:g} is the lowest of the challenge ages {ages} whose false-adult rate has {bound}: it is "
            f"{_rate(row, FALSE_ADULT)}; the false-minor rate is {_rate(row, FALSE_MINOR)}."
        )
    row = _row(curves, limit.challenge_ages[-1])
    needed = math.ceil(math.log(TAIL) / math.log1p(-limit.acceptable))
    more = f"; it takes at least {needed:,} {people} without an error to show it" if count < needed else ""
    return (
        f"None of the challenge ages {ages} has a false-adult rate with {bound}: at {limit.challenge_ages[-1]:g} it is "
        f"{_rate(row, FALSE_ADULT)}, with {count:,} {people} below {limit.limit:g}{more}."
    )


def _rate(row: Mapping[str, float], name: str) -> str:
    if math.isnan(row[name]):
        return "unknown"
    return f"{_percent(row[name])} (at most {_percent(row[f'{name}_high'])})"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _notes(limit: AgeLimit, sides: Mapping[str, Mapping[str, int]]) -> list[str]:
    notes = []
    for side, name in (("below", "below"), ("above", "at or above")):
        counts = sides[side]
        count = counts.get("people", counts["images"])
        if count >= FEW_PEOPLE:
            continue
        images = f"{counts['images']:,} image{'' if counts['images'] == 1 else 's'}"
        of = f" of {count:,} {'person' if count == 1 else 'people'}" if "people" in counts and count else ""
        rate = "false-adult rate" if side == "below" else "false-minor rate"
        effect = f"{rate}, AUC and precision are undefined" if count == 0 else f"the {rate} is uncertain"
        notes.append(f"only {images}{of} {'is' if counts['images'] == 1 else 'are'} {name} {limit.limit:g}: {effect}")
    return notes


def _row(curves: Curves, age: float) -> dict[str, float]:
    index = int(np.flatnonzero(curves["challenge_age"] == age)[0])
    return {name: float(column[index]) for name, column in curves.items()}


def _limit(predictions: LabelledPredictions) -> AgeLimit:
    if predictions.age_limit is None:
        raise ValueError("these predictions have no age limit")
    return predictions.age_limit
