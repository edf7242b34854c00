"""Bootstrap intervals against direct computations, against the normal approximation, and their coverage."""

import math
import warnings
from collections import Counter

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    median_absolute_error,
    precision_score,
    recall_score,
    top_k_accuracy_score,
)

from agebench.identity_groups import group_codes
from agebench.metrics.bootstrap import (
    central_levels,
    corrected_p_value,
    draw,
    effective_groups,
    few_groups,
    intervals,
    resamples_for,
)
from agebench.metrics.compute import summarise
from agebench.metrics.predictions import LabelledPredictions

AGES = np.arange(18.0, 26.0)


def drawn(count: int, *, seed: int = 0, ordered: bool = True, unit: str = "years") -> LabelledPredictions:
    """Return predictions correlated with the target, for ages from 18 to 25."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 8, size=count)
    scores = np.exp(-0.7 * np.abs(np.arange(8) - target[:, None]) + rng.normal(size=(count, 8)))
    posterior = scores / scores.sum(1, keepdims=True)
    return LabelledPredictions(posterior, posterior @ AGES, target, AGES, ordered, unit)


def of_means(numbers: np.ndarray, groups: np.ndarray | None = None, **settings) -> np.ndarray:
    """Return the interval of the mean of numbers."""
    blank = LabelledPredictions(
        np.eye(2)[[0] * len(numbers)], np.zeros(len(numbers)), np.zeros(len(numbers), int), np.arange(2), False, ""
    )
    return intervals(blank, groups, means={"mean": (numbers, np.ones(len(numbers)))}, **settings)["mean"]


def calibration_error(posterior: np.ndarray, target: np.ndarray) -> float:
    confidence, correct = posterior.max(1), posterior.argmax(1) == target
    bins = np.digitize(confidence, np.linspace(0, 1, 16), right=True)
    return sum(abs((correct[bins == b] - confidence[bins == b]).sum()) for b in set(bins)) / len(target)


def direct_computation(
    predictions: LabelledPredictions, codes: np.ndarray, times: np.ndarray, loss: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return every metric of one resample. Each image is repeated as often as its group was drawn.

    The metrics that are a mean over labels have the weights of all images.
    """
    answers = predictions.posterior.argmax(1)
    actual, answered = Counter(predictions.target), Counter(answers)
    of_labels = np.array([1 / actual[k] for k in predictions.target])
    of_f1 = [
        1 / (actual[k] + answered[k]) + 1 / (actual[j] + answered[j])
        for k, j in zip(predictions.target, answers, strict=True)
    ]
    rows = np.repeat(np.arange(len(codes)), times[codes])
    posterior, point, target = predictions.posterior[rows], predictions.point[rows], predictions.target[rows]
    most_probable, true = posterior.argmax(1), AGES[target]
    error = np.abs(point - true)
    nearest = np.abs(AGES[:, None] - point).argmin(0)
    each = {"y_true": target, "y_pred": most_probable, "labels": range(8), "average": None, "zero_division": np.nan}
    found = {
        "accuracy": accuracy_score(target, most_probable),
        "top5": top_k_accuracy_score(target, posterior, k=5, labels=range(8)),
        "balanced_accuracy": accuracy_score(target, most_probable, sample_weight=of_labels[rows]),
        "macro_f1": accuracy_score(target, most_probable, sample_weight=np.array(of_f1)[rows]),
        "nll": -np.log(posterior[np.arange(len(rows)), target]).mean(),
        "ece": calibration_error(posterior, target),
        "mae": mean_absolute_error(true, point),
        "rmse": math.sqrt(mean_squared_error(true, point)),
        "median_error": median_absolute_error(true, point),
        "bias": (point - true).mean(),
        **{f"cs{k}": (error <= k).mean() for k in range(11)},
        "within_1": (error <= 1).mean(),
        "qwk": cohen_kappa_score(target, most_probable, weights="quadratic", labels=range(8)),
        "qwk_point": cohen_kappa_score(target, nearest, weights="quadratic", labels=range(8)),
        "loss": np.average(loss[rows], weights=weights[rows]),
        "precision": precision_score(**each),
        "recall": recall_score(**each),
        "f1": f1_score(**each),
    }
    if predictions.ordered:
        cells = [true // 10 == d for d in (1, 2)] if predictions.unit == "years" else [target == k for k in range(8)]
        found["cell_mae"] = np.array([error[cell].mean() if cell.any() else np.nan for cell in cells])
        found["cell_bias"] = np.array([(point - true)[cell].mean() if cell.any() else np.nan for cell in cells])
        decade = AGES[predictions.target] // (10 if predictions.unit == "years" else 1)
        of_cells = [1 / (decade == each).sum() for each in decade[rows]]
        found["balanced_mae"] = mean_absolute_error(true, point, sample_weight=of_cells)
    return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}


@pytest.mark.parametrize("people", [7, 12, None])
@pytest.mark.parametrize(("ordered", "unit"), [(True, "years"), (True, "bins"), (False, "")])
def test_every_interval_equals_a_direct_computation_on_the_same_resamples(people, ordered, unit) -> None:
    predictions, (loss, weights) = drawn(60, ordered=ordered, unit=unit), np.random.default_rng(1).random((2, 60))
    groups = None if people is None else np.random.default_rng(2).integers(0, people, size=60)
    codes, count = group_codes(groups, 60)

    found = intervals(predictions, groups, means={"loss": (loss, weights)}, resamples=20, seed=3)

    (times,) = draw(count, resamples=20, seed=3)
    sizes = [(codes == code).sum() for code in range(count)]
    effective = sum(sizes) ** 2 / sum(size**2 for size in sizes)
    tail = norm.sf(t.ppf(0.975, effective - 1) * math.sqrt(effective / (effective - 1)))
    levels = [tail, 1 - tail]
    resamples = [direct_computation(predictions, codes, each, loss, weights) for each in times]
    tables = {"precision", "recall", "f1"} | ({"cell_mae", "cell_bias"} if ordered else set())
    assert set(found) == {*summarise(predictions), "loss"} | tables
    for name, bounds in found.items():
        expected = np.nanquantile([each[name] for each in resamples], levels, axis=0)
        if name == "balanced_mae" and min(len(set(codes[predictions.target == k])) for k in range(8)) < 5:
            expected = np.where(unit == "years", expected, np.nan)  # all decades have 5 people
        np.testing.assert_allclose(bounds, expected, atol=1e-9, rtol=0, err_msg=name)


def test_each_resample_draws_as_many_groups_as_there_are_with_equal_probability() -> None:
    times = np.concatenate(list(draw(50, resamples=4_000, seed=0)))

    assert times.shape == (4_000, 50)
    assert (times.sum(1) == 50).all()
    # A multinomial distribution: mean 1, variance 1 - 1/50.
    np.testing.assert_allclose(times.mean(0), 1, atol=5 / math.sqrt(4_000))
    assert times.var() == pytest.approx(1 - 1 / 50, rel=0.02)


def test_resamples_do_not_depend_on_the_batch_size() -> None:
    narrow = np.concatenate(list(draw(30, resamples=50, seed=1)))
    wide = list(draw(30, resamples=50, seed=1, width=400_000))

    assert len(wide) == 5
    np.testing.assert_array_equal(np.concatenate(wide), narrow)


def test_the_interval_of_independent_images_is_close_to_the_normal_approximation() -> None:
    numbers = np.random.default_rng(0).normal(3, 2, size=2_000)
    half = 1.96 * numbers.std() / np.sqrt(2_000)

    low, high = of_means(numbers, resamples=4_000)

    assert low == pytest.approx(numbers.mean() - half, abs=0.08 * half)
    assert high == pytest.approx(numbers.mean() + half, abs=0.08 * half)


def test_the_interval_for_identical_images_per_person_depends_on_the_number_of_people() -> None:
    people = np.random.default_rng(0).normal(3, 2, size=100)
    numbers, groups = np.repeat(people, 20), np.repeat([f"person {i}" for i in range(100)], 20)
    half = 1.96 * people.std() / np.sqrt(100)

    low, high = of_means(numbers, groups)
    alone_low, alone_high = of_means(numbers, resamples=2_000)

    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert (high - low) / (alone_high - alone_low) == pytest.approx(np.sqrt(20), rel=0.1)


def test_the_interval_of_a_mean_over_few_people_is_close_to_that_of_student() -> None:
    people = np.random.default_rng(4).normal(3, 2, size=10)
    half = t.ppf(0.975, 9) * people.std(ddof=1) / math.sqrt(10)

    low, high = of_means(people, resamples=20_000)

    assert (high - low) / 2 == pytest.approx(half, rel=0.06)
    assert (high - low) / 2 > 1.1 * 1.96 * people.std() / math.sqrt(10)  # the percentile interval is narrower


def test_for_many_groups_the_levels_are_those_of_the_percentile_interval() -> None:
    assert central_levels(10_571) == pytest.approx((0.025, 0.975), abs=5e-5)
    assert central_levels(10) == pytest.approx((0.0086, 0.9914), abs=1e-4)


def test_unequal_people_count_as_fewer() -> None:
    assert effective_groups(np.repeat(np.arange(8), 5), 8) == pytest.approx(8)
    assert effective_groups(np.array([0] * 9 + [1]), 2) == pytest.approx(100 / 82)


@pytest.mark.parametrize("groups", [2, 5, 22, 120])
def test_a_p_value_is_5_percent_where_the_interval_ends(groups) -> None:
    low, _ = central_levels(groups)

    assert corrected_p_value(2 * low, groups) == pytest.approx(0.05)
    assert corrected_p_value(1.0, groups) == 1
    assert corrected_p_value(2.0, groups) == 1
    assert corrected_p_value(0.01, groups) > 0.01


@pytest.mark.parametrize(("groups", "warns"), [(1, False), (2, True), (19, True), (20, False), (500, False)])
def test_intervals_over_fewer_than_20_people_have_a_warning(groups, warns) -> None:
    expected = f"95% intervals over only {groups} people hold less often than 95% of the time: see docs/heads.md"

    assert few_groups(groups, "people") == (expected if warns else "")


def test_people_are_weighted_by_their_number_of_images() -> None:
    groups = np.array([0] * 90 + [1] * 10)  # the mean of a resample is 1, 0.9 or 0

    low, high = of_means(np.array([1.0] * 90 + [0.0] * 10), groups)

    assert (low, high) == (0, 1)


def test_resamples_depend_only_on_the_seed() -> None:
    predictions = drawn(50)

    first, again, other = (intervals(predictions, resamples=100, seed=seed) for seed in (0, 0, 1))

    assert all(np.array_equal(first[name], again[name], equal_nan=True) for name in first)
    assert not np.array_equal(first["nll"], other["nll"])


def test_all_metrics_share_their_resamples() -> None:
    predictions = drawn(50)
    wrong = 1.0 - (predictions.posterior.argmax(1) == predictions.target)

    found = intervals(predictions, means={"wrong": (wrong, np.ones(50))}, resamples=100)

    assert found["wrong"] == pytest.approx(1 - found["accuracy"][::-1])


@pytest.mark.parametrize("people", [1, 60])
def test_a_single_person_or_a_diverged_network_has_no_interval(people) -> None:
    predictions = drawn(60)
    if people > 1:
        predictions.posterior[0] = np.nan

    found = intervals(predictions, np.arange(60) % people, means={"loss": (np.ones(60), np.ones(60))}, resamples=10)

    assert {name for name, each in found.items() if each.shape == (2,)} == {*summarise(predictions), "loss"}
    assert found["recall"].shape == (2, 8)
    assert found["cell_mae"].shape == (2, 2)
    assert all(np.isnan(each).all() for each in found.values())


def test_a_label_with_fewer_than_two_people_has_no_interval_and_no_warning() -> None:
    target, groups = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    predictions = LabelledPredictions(np.eye(3)[[0, 1, 1, 0]], target, target, np.arange(3.0), ordered=False, unit="")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = intervals(predictions, groups, resamples=100)

    assert np.isfinite(found["recall"][:, 0]).all()
    assert np.isnan(found["recall"][:, 1:]).all()


def test_many_groups_have_fewer_resamples() -> None:
    assert resamples_for(120) == resamples_for(10_000) == 10_000
    assert resamples_for(70_000) == 2_000


def draw_faces(rng: np.random.Generator, people: int) -> tuple[LabelledPredictions, np.ndarray]:
    """Return predictions for people with 1 to 10 images each, whose errors are correlated, and the groups."""
    groups = np.repeat(np.arange(people), rng.integers(1, 11, size=people))
    person = rng.normal(size=people)[groups]
    target = rng.integers(0, 8, size=len(groups))
    point = AGES[target] + 1.5 * person + 1.5 * rng.normal(size=len(groups))
    scores = np.exp(-0.5 * (AGES - point[:, None]) ** 2)
    return LabelledPredictions(scores / scores.sum(1, keepdims=True), point, target, AGES, True, "years"), groups


@pytest.mark.slow
def test_95_percent_of_the_intervals_contain_the_metric_of_the_population() -> None:
    rng = np.random.default_rng(0)
    true = summarise(draw_faces(rng, 200_000)[0])
    names = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "mae", "rmse", "median_error", "bias", "cs2", "qwk")
    covered, covered_by_images, rounds = dict.fromkeys(names, 0), 0, 200

    for seed in range(rounds):
        predictions, groups = draw_faces(rng, 120)
        found = intervals(predictions, groups, resamples=500, seed=seed)
        for name in names:
            covered[name] += found[name][0] <= true[name] <= found[name][1]
        low, high = intervals(predictions, resamples=200, seed=seed)["bias"]
        covered_by_images += low <= true["bias"] <= high

    # Three standard errors of a share of 0.95 in 200 rounds are 0.046.
    assert {name: share for name in names if not 0.89 <= (share := covered[name] / rounds) <= 0.99} == {}
    assert covered_by_images / rounds < 0.8  # too narrow: images of one person are not independent


@pytest.mark.parametrize("singles_are_right", [False, True])
def test_the_interval_of_a_balanced_metric_contains_it_if_most_labels_have_one_image(singles_are_right) -> None:
    target = np.concatenate([np.repeat(np.arange(14), 40), np.arange(14, 70)])
    right = np.where(target < 14, np.arange(len(target)) % 2 == 0, singles_are_right)
    answer = np.where(right, target, (target + 1) % 14)
    predictions = LabelledPredictions(np.eye(70)[answer], answer.astype(float), target, np.arange(70.0), True, "bins")

    values, found = summarise(predictions), intervals(predictions, resamples=2_000)

    for name in ("balanced_accuracy", "macro_f1"):
        assert found[name][0] < values[name] < found[name][1]


@pytest.mark.parametrize("people", [4, 5])
def test_a_balanced_error_has_an_interval_if_each_cell_has_five_people(people) -> None:
    target = np.concatenate([np.repeat(np.arange(7), 20), np.full(20, 7)])  # 18 to 24 and 25 years
    point = AGES[target] + np.random.default_rng(0).normal(size=160)
    predictions = LabelledPredictions(np.eye(8)[target], point, target, AGES, True, "bins")
    groups = np.where(target == 7, np.arange(160) % people, np.arange(160) + 10)

    found = intervals(predictions, groups, resamples=100)

    assert np.isnan(found["balanced_mae"]).all() == (people < 5)
    assert np.isfinite(found["balanced_accuracy"]).all()
