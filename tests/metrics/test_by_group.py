"""Metrics by group, and the gap between the worst and the best group."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import norm, ttest_ind
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, log_loss, mean_absolute_error

from agebench.metrics.age_limit import make_age_limit
from agebench.metrics.bootstrap import intervals
from agebench.metrics.breakdown import by_group
from agebench.metrics.by_group import (
    LEAST,
    Gap,
    find_gaps,
    gap_of_means,
    labels_by,
    measure_groups,
    members,
    standardise,
)
from agebench.metrics.holm import holm
from agebench.metrics.predictions import LabelledPredictions, take

VALUES = np.arange(20.0, 30.0)


def faces(target: np.ndarray, error: np.ndarray, seed: int = 0) -> LabelledPredictions:
    """Return predictions of ages from 20 to 29 with the given label indices and errors in years."""
    posterior = np.random.default_rng(seed).dirichlet(np.ones(10), size=len(target))
    return LabelledPredictions(posterior, VALUES[target] + error, target, VALUES, ordered=True, unit="years")


def gap_of(gaps: list[Gap], by: str, metric: str) -> Gap:
    return next(gap for gap in gaps if (gap.by, gap.metric) == (by, metric))


def sample(sizes: dict[str, int], shifts: dict[str, float], seed: int = 0) -> tuple[LabelledPredictions, np.ndarray]:
    """Return predictions of groups whose errors are spread around a shift, and the group of each image."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(list(sizes), list(sizes.values()))
    error = rng.normal(0, 2, len(labels)) + np.array([shifts.get(name, 0.0) for name in labels])
    return faces(rng.integers(0, 10, len(labels)), error, seed), labels


def test_the_metrics_of_a_group_are_those_of_its_images_alone() -> None:
    predictions, sex = sample({"f": 40, "m": 50}, {"m": 1.0})

    groups = {group.name: group for group in measure_groups(predictions, {"sex": sex}, None, resamples=50)}

    own = sex == "m"
    target, likely = predictions.target[own], predictions.posterior[own].argmax(1)
    true, point = VALUES[target], predictions.point[own]
    expected = {
        "accuracy": accuracy_score(target, likely),
        "macro_f1": f1_score(target, likely, average="macro"),
        "nll": log_loss(target, predictions.posterior[own], labels=range(10)),
        "mae": mean_absolute_error(true, point),
        "bias": np.mean(point - true),
        "cs5": np.mean(np.abs(point - true) <= 5),
        "qwk": cohen_kappa_score(target, likely, weights="quadratic", labels=range(10)),
    }
    assert groups["m"].people == len(groups["m"].rows) == 50
    assert groups["m"].values == pytest.approx(expected)
    assert groups["m"].bounds["mae"].tolist() == intervals(take(predictions, own), resamples=50)["mae"].tolist()


def test_groups_are_sorted_by_name_numbers_by_value_and_unknown_is_last() -> None:
    numbers = np.array(["10", "9", "unknown", "2", "10"])
    names = np.array(["zoe", "unknown", "Ann", "10"])

    orders = [[name for name, _ in members(labels)] for labels in (numbers, names)]

    assert orders == [["2", "9", "10", "unknown"], ["10", "Ann", "zoe", "unknown"]]
    assert dict(members(numbers))["10"].tolist() == [0, 4]


def test_every_pair_of_columns_is_a_further_grouping() -> None:
    columns = {"sex": np.array(["f", "m"]), "race": np.array(["a", "b"]), "hand": np.array(["l", "r"])}

    labels = labels_by(columns)

    assert list(labels) == ["sex", "race", "hand", "sex x race", "sex x hand", "race x hand"]
    assert labels["sex x race"].tolist() == ["f x a", "m x b"]


def test_a_small_group_has_metrics_but_a_small_pair_has_only_counts() -> None:
    predictions, sex = sample({"f": LEAST, "m": LEAST - 1}, {})
    hand = np.where(np.arange(len(sex)) < 2, "left", "right")

    groups = measure_groups(predictions, {"sex": sex, "hand": hand}, None, resamples=20)
    notes = ["small" if group.is_small else "" for group in groups]
    header, rows = by_group(predictions, groups, notes, with_people=True)
    _, unknown = by_group(predictions, groups, notes, with_people=False)

    shown = {(row[0], row[1]): dict(zip(header, row, strict=True)) for row in rows}
    assert {row[header.index("people")] for row in unknown} == {""}
    assert [row[2] for row in unknown] == [row[2] for row in rows]  # the images
    assert [(key, cells["images"], bool(cells["mae"]), cells["note"]) for key, cells in shown.items()] == [
        (("sex", "f"), 30, True, ""),
        (("sex", "m"), 29, True, "small"),
        (("hand", "left"), 2, True, "small"),
        (("hand", "right"), 57, True, ""),
        (("sex x hand", "f x left"), 2, False, "small"),
        (("sex x hand", "f x right"), 28, False, "small"),
        (("sex x hand", "m x right"), 29, False, "small"),
    ]
    assert find_gaps(predictions, groups, None, resamples=20) == []


def test_the_size_of_a_group_is_its_number_of_people() -> None:
    predictions, sex = sample({"f": 60, "m": 60}, {})
    people = np.array([f"p{i // 2}" for i in range(60)] + [f"q{i // 3}" for i in range(60)])

    groups = measure_groups(predictions, {"sex": sex}, people, resamples=20)

    assert [(group.name, group.people, group.is_small) for group in groups] == [("f", 30, False), ("m", 20, True)]


def test_the_gap_of_two_groups_of_images_is_that_of_welch() -> None:
    predictions, sex = sample({"f": 150, "m": 100}, {"m": 1.2})

    groups = measure_groups(predictions, {"sex": sex}, None, resamples=20)
    gap = gap_of(find_gaps(predictions, groups, None), "sex", "mae")

    error = np.abs(predictions.point - VALUES[predictions.target])
    welch = ttest_ind(error[sex == "m"], error[sex == "f"], equal_var=False)
    low, high = welch.confidence_interval()
    assert (gap.worst, gap.best, gap.groups) == ("m", "f", 2)
    assert gap.value == pytest.approx(error[sex == "m"].mean() - error[sex == "f"].mean())
    assert [gap.low, gap.high] == pytest.approx([low, high], abs=0.05 * (high - low))
    assert 0.02 < welch.pvalue < 0.3
    assert gap.p == pytest.approx(welch.pvalue, abs=0.02)


def by_hand(error: np.ndarray, labels: np.ndarray, people: np.ndarray, resamples: int) -> tuple[float, float, float]:
    """Return the gap of the MAE, half the width of its interval and its p-value, with a loop over resamples."""
    rng = np.random.default_rng(99)
    names, images_of = sorted(set(labels)), {who: np.flatnonzero(people == who) for who in set(people)}
    who = sorted(images_of)

    def means(rows: np.ndarray) -> list[float]:
        return [np.abs(error[rows][labels[rows] == name]).mean() for name in names]

    values = means(np.arange(len(error)))
    drawn = np.array(
        [means(np.concatenate([images_of[each] for each in rng.choice(who, len(who))])) for _ in range(resamples)]
    )
    ratios, errors = [], {}
    for i, j in combinations(range(len(names)), 2):
        differences = drawn[:, i] - drawn[:, j]
        errors[i, j] = differences.std(ddof=1)
        ratios.append(np.abs(differences - (values[i] - values[j])) / errors[i, j])
    largest = np.max(ratios, axis=0)
    gap, error_of_gap = max(values) - min(values), errors[tuple(sorted((np.argmax(values), np.argmin(values))))]
    return gap, np.quantile(largest, 0.95) * error_of_gap, np.mean(largest >= gap / error_of_gap)


def test_the_gap_of_several_groups_resamples_people_and_allows_for_the_choice_of_the_groups() -> None:
    rng = np.random.default_rng(5)
    people = np.repeat(np.arange(120), 3)
    race = np.array(["a", "b", "c"])[people % 3]
    race[::7] = "a"  # some people are in two groups
    own = rng.normal(0, 2, 120)[people] + rng.normal(0, 1, 360) + np.where(race == "c", 0.8, 0)
    predictions = faces(rng.integers(0, 10, 360), own)

    groups = measure_groups(predictions, {"race": race}, people, resamples=20)
    gap = gap_of(find_gaps(predictions, groups, people, resamples=4000), "race", "mae")

    value, half, p = by_hand(own, race, people, 4000)
    assert gap.value == pytest.approx(value)
    assert [gap.value - gap.low, gap.high - gap.value] == pytest.approx([half, half], rel=0.06)
    assert gap.p == pytest.approx(p, abs=0.03)
    assert 0.01 < p < 0.5


def test_the_gap_of_a_mean_of_single_values_is_that_of_welch_and_leaves_small_groups_out() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(["m", "f", "x"], [100, 150, 20])
    values = rng.normal(5, 1, 270) + 0.4 * (groups == "m") + 9 * (groups == "x")

    gap = gap_of_means(values, groups, None, by="sex", metric="mae")

    welch = ttest_ind(values[groups == "m"], values[groups == "f"], equal_var=False)
    low, high = welch.confidence_interval()
    assert gap is not None
    assert (gap.worst, gap.best, gap.groups) == ("m", "f", 2)
    assert gap.value == pytest.approx(values[groups == "m"].mean() - values[groups == "f"].mean())
    assert [gap.low, gap.high] == pytest.approx([low, high], abs=0.05 * (high - low))


def test_the_gap_of_a_mean_resamples_people_and_allows_for_the_choice_of_the_groups() -> None:
    rng = np.random.default_rng(6)
    people = np.repeat(np.arange(120), 3)
    race = np.array(["a", "b", "c"])[people % 3]
    race[::7] = "a"  # some people are in two groups
    own = np.abs(rng.normal(0, 2, 120)[people] + rng.normal(0, 1, 360)) + np.where(race == "c", 0.6, 0)

    gap = gap_of_means(own, race, people, by="race", metric="mae")

    value, half, p = by_hand(own, race, people, 4000)
    assert gap is not None
    assert gap.value == pytest.approx(value)
    assert [gap.value - gap.low, gap.high - gap.value] == pytest.approx([half, half], rel=0.06)
    assert gap.p == pytest.approx(p, abs=0.03)


def test_groups_that_differ_only_in_their_ages_have_no_standardised_gap() -> None:
    decade = np.array([2] * 60 + [6] * 20 + [2] * 15 + [6] * 85)
    sex, values = np.repeat(["f", "m"], [80, 100]), np.where(decade == 6, 9.0, 4.0)

    plain = gap_of_means(values, sex, None, by="sex", metric="mae")
    numbers, weights = standardise(values, sex, decade, None)
    adjusted = gap_of_means(numbers, sex, None, by="sex", metric="mae", weights=weights)

    assert plain is not None
    assert adjusted is not None
    assert plain.value == pytest.approx((15 * 4 + 85 * 9) / 100 - (60 * 4 + 20 * 9) / 80)
    assert adjusted.value == pytest.approx(0, abs=1e-12)
    assert list(adjusted.values.values()) == pytest.approx([(75 * 4 + 105 * 9) / 180] * 2)  # 75 images are of the 20s


def test_a_standardised_gap_has_the_value_and_the_variance_of_direct_standardisation() -> None:
    rng = np.random.default_rng(8)
    sex, decade = np.repeat(["f", "m", "x"], [150, 120, 20]), rng.integers(1, 5, 290)
    sex[decade == 4] = "f"
    sex[np.flatnonzero(decade == 4)[:4]] = "m"  # too few: the 40s are left out
    values = rng.normal(5, 1, 290) + 3 * decade + 0.5 * (sex == "m")

    numbers, weights = standardise(values, sex, decade, None)
    gap = gap_of_means(numbers, sex, None, by="sex", metric="mae", weights=weights)

    used = (decade < 4) & (sex != "x")
    shares = {age: np.mean(decade[used] == age) for age in (1, 2, 3)}
    means, variances = {}, {}
    for name in "fm":
        own = [values[(sex == name) & (decade == age)] for age in shares]
        means[name] = sum(share * each.mean() for share, each in zip(shares.values(), own, strict=True))
        terms = [share**2 * each.var(ddof=1) / len(each) for share, each in zip(shares.values(), own, strict=True)]
        variances[name] = sum(terms)
    assert gap is not None
    assert (weights > 0).tolist() == used.tolist()
    assert (gap.worst, gap.best, gap.groups) == ("m", "f", 2)
    assert gap.value == pytest.approx(means["m"] - means["f"])
    half = norm.ppf(0.975) * sum(variances.values()) ** 0.5
    assert [gap.value - gap.low, gap.high - gap.value] == pytest.approx([half, half], rel=0.06)


@pytest.mark.ci
def test_groups_with_equal_errors_at_each_age_seldom_have_a_significant_standardised_gap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agebench.metrics.by_group.resamples_for", lambda _: 500)
    groups, false_gaps = np.repeat(["a", "b", "c"], 80), {"plain": 0, "standardised": 0}

    for seed in range(100):
        rng = np.random.default_rng(seed)
        shares = {"a": (0.5, 0.3, 0.2), "b": (0.3, 0.4, 0.3), "c": (0.2, 0.3, 0.5)}
        decade = np.array([rng.choice(3, p=shares[name]) for name in groups])
        values = np.abs(rng.normal(0, 1 + 2 * decade))
        numbers, weights = standardise(values, groups, decade, None)
        plain = gap_of_means(values, groups, None, by="race", metric="mae")
        adjusted = gap_of_means(numbers, groups, None, by="race", metric="mae", weights=weights)
        assert plain is not None
        assert adjusted is not None
        false_gaps["plain"] += plain.low > 0
        false_gaps["standardised"] += adjusted.low > 0

    assert false_gaps["plain"] > 30
    assert 0 < false_gaps["standardised"] <= 12  # 5 are expected


def test_a_decade_needs_people_and_not_images_to_be_compared() -> None:
    sex, decade = np.repeat(["f", "m"], [60, 60]), np.tile(np.repeat([2, 3], 30), 2)
    people = np.arange(120)
    people[30:60] = 30 + np.arange(30) % 4  # 4 women in their thirties
    sizes = {name: len(set(people[sex == name])) for name in "fm"}

    _, weights = standardise(np.ones(120), sex, decade, people)

    assert sizes == {"f": 34, "m": 60}
    assert set(decade[weights > 0]) == {2}


def test_the_worst_group_of_a_metric_where_higher_is_better_is_the_lowest() -> None:
    gap = gap_of_means(np.repeat([0.0, 1.0], 40), np.repeat(["a", "b"], 40), None, by="sex", metric="accuracy")

    assert gap is not None
    assert (gap.worst, gap.best, gap.value) == ("a", "b", 1.0)


def test_a_single_group_of_enough_people_has_no_gap() -> None:
    sex = np.repeat(["a", "b"], [40, 29])

    assert gap_of_means(np.ones(69), sex, None, by="sex", metric="mae") is None


def test_more_images_of_the_same_people_do_not_make_a_gap_more_certain() -> None:
    predictions, sex = sample({"f": 40, "m": 40}, {"m": 0.8})
    people, fourfold = np.arange(80), np.repeat(np.arange(80), 4)
    many = take(predictions, fourfold)

    once = find_gaps(
        predictions, measure_groups(predictions, {"sex": sex}, people, resamples=20), people, resamples=1000
    )
    often = find_gaps(
        many,
        measure_groups(many, {"sex": sex[fourfold]}, people[fourfold], resamples=20),
        people[fourfold],
        resamples=1000,
    )

    first, second = (gap_of(gaps, "sex", "mae") for gaps in (once, often))
    numbers = [[gap.value, gap.low, gap.high, gap.p] for gap in (first, second)]
    assert numbers[1] == pytest.approx(numbers[0])


def test_the_gap_of_a_bias_is_between_the_highest_and_the_lowest() -> None:
    target = np.arange(90) % 10
    race = np.repeat(["a", "b", "c"], 30)
    predictions = faces(target, np.repeat([3.0, -4.0, 0.0], 30) + np.tile([-0.1, 0.1], 45))

    groups = measure_groups(predictions, {"race": race}, None, resamples=20)
    gap = gap_of(find_gaps(predictions, groups, None, resamples=200), "race", "bias")

    assert (gap.worst, gap.best) == ("b", "a")
    assert gap.value == pytest.approx(7)
    assert gap.low == pytest.approx(7, abs=0.2)


def test_groups_with_the_same_constant_value_have_no_gap_and_no_interval() -> None:
    target, sex = np.zeros(60, dtype=np.int64), np.repeat(["f", "m"], 30)
    predictions = faces(target, np.ones(60))

    groups = measure_groups(predictions, {"sex": sex}, None, resamples=20)
    gap = gap_of(find_gaps(predictions, groups, None, resamples=100), "sex", "mae")

    assert {gap.worst, gap.best} == {"f", "m"}
    assert (gap.value, gap.p) == (0, 1)
    assert np.isnan([gap.low, gap.high]).all()


def test_a_p_value_is_never_below_that_of_the_sample_itself_among_the_resamples() -> None:
    predictions, sex = sample({"f": 40, "m": 40}, {"m": 50.0})
    groups = measure_groups(predictions, {"sex": sex}, None, resamples=20)

    gap = gap_of(find_gaps(predictions, groups, None, resamples=20), "sex", "mae")

    assert gap.p == 1 / 21


def test_the_p_values_of_a_metric_are_corrected_for_the_groupings() -> None:
    predictions, sex = sample({"f": 150, "m": 150}, {"m": 0.9})
    hand = np.where(np.arange(300) % 2, "left", "right")

    groups = measure_groups(predictions, {"sex": sex, "hand": hand}, None, resamples=20)
    gaps = [gap for gap in find_gaps(predictions, groups, None, resamples=500) if gap.metric == "mae"]

    assert [gap.by for gap in gaps] == ["sex", "hand", "sex x hand"]
    p = sorted(gap.p for gap in gaps)
    expected = np.maximum.accumulate(np.minimum(1, np.array([3, 2, 1]) * p))
    assert sorted(gap.adjusted for gap in gaps) == pytest.approx(expected)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_five_equal_groups_seldom_have_a_significant_gap() -> None:
    significant = 0
    for seed in range(30):
        predictions, race = sample(dict.fromkeys("abcde", 40), {}, seed)

        groups = measure_groups(predictions, {"race": race}, None, resamples=2)
        gap = gap_of(find_gaps(predictions, groups, None, resamples=200, seed=seed), "race", "mae")

        significant += gap.p < 0.05
    assert significant <= 5  # 1.5 are expected; if the choice of the two groups is ignored, about 9


def test_error_rates_at_an_age_limit_need_enough_people_on_their_side_of_it() -> None:
    target = np.concatenate([np.repeat([0, 9], 40), np.repeat([0, 9], [29, 41])])  # 29 men are below 25 years
    sex = np.repeat(["f", "m"], [80, 70])
    limit = make_age_limit({"age_limit": 25}, values=VALUES.tolist(), unit="years", bins=None)
    errors = np.where(np.arange(150) % 3 == 0, 6.0, -6.0)
    predictions = replace(faces(target, errors), age_limit=limit)

    groups = measure_groups(predictions, {"sex": sex}, None, resamples=20)
    gaps = {gap.metric: gap for gap in find_gaps(predictions, groups, None, resamples=50)}

    wrong = (predictions.point >= 25) & (target == 0)
    rates = {group.name: group.values["false_adult_rate"] for group in groups}
    assert rates == pytest.approx({"f": wrong[:80].sum() / 40, "m": wrong[80:].sum() / 29})
    assert "false_adult_rate" not in gaps
    missed = (predictions.point < 25) & (target == 9)
    assert gaps["false_minor_rate"].value == pytest.approx(abs(missed[:80].sum() / 40 - missed[80:].sum() / 41))
