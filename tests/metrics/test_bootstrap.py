"""Intervals against brute force on the same resamples and the normal approximation, and how often they are right."""

import math
import warnings

import numpy as np
import pytest
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

from agebench.groups import group_codes
from agebench.metrics.answers import Answers
from agebench.metrics.bootstrap import draw, intervals, paired_difference, resamples_for
from agebench.metrics.compute import summarise

AGES = np.arange(18.0, 26.0)


def drawn(count: int, *, seed: int = 0, ordered: bool = True, unit: str = "years") -> Answers:
    """Answers of a model that knows something, about ages from 18 to 25."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 8, size=count)
    scores = np.exp(-0.7 * np.abs(np.arange(8) - target[:, None]) + rng.normal(size=(count, 8)))
    posterior = scores / scores.sum(1, keepdims=True)
    return Answers(posterior, posterior @ AGES, target, AGES, ordered, unit)


def of_means(numbers: np.ndarray, groups: np.ndarray | None = None, **settings) -> np.ndarray:
    """The interval of the mean of numbers."""
    blank = Answers(
        np.eye(2)[[0] * len(numbers)], np.zeros(len(numbers)), np.zeros(len(numbers), int), np.arange(2), False, ""
    )
    return intervals(blank, groups, means={"mean": (numbers, np.ones(len(numbers)))}, **settings)["mean"]


def calibration_error(posterior: np.ndarray, target: np.ndarray) -> float:
    confidence, right = posterior.max(1), posterior.argmax(1) == target
    bins = np.digitize(confidence, np.linspace(0, 1, 16), right=True)
    return sum(abs((right[bins == b] - confidence[bins == b]).sum()) for b in set(bins)) / len(target)


def brute_force(
    answers: Answers, codes: np.ndarray, times: np.ndarray, loss: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Every figure of one resample, from the images themselves, each repeated as often as its group was drawn."""
    rows = np.repeat(np.arange(len(codes)), times[codes])
    posterior, point, target = answers.posterior[rows], answers.point[rows], answers.target[rows]
    likeliest, true = posterior.argmax(1), AGES[target]
    error = np.abs(point - true)
    each = {"y_true": target, "y_pred": likeliest, "labels": range(8), "average": None, "zero_division": np.nan}
    found = {
        "accuracy": accuracy_score(target, likeliest),
        "top5": top_k_accuracy_score(target, posterior, k=5, labels=range(8)),
        "balanced_accuracy": np.mean([(likeliest[target == k] == k).mean() for k in set(target)]),
        "macro_f1": f1_score(target, likeliest, average="macro", zero_division=0),
        "nll": -np.log(posterior[np.arange(len(rows)), target]).mean(),
        "ece": calibration_error(posterior, target),
        "mae": mean_absolute_error(true, point),
        "rmse": math.sqrt(mean_squared_error(true, point)),
        "median_error": median_absolute_error(true, point),
        "bias": (point - true).mean(),
        **{f"cs{k}": (error <= k).mean() for k in range(11)},
        "within_1": (error <= 1).mean(),
        "qwk": cohen_kappa_score(target, likeliest, weights="quadratic", labels=range(8)),
        "loss": np.average(loss[rows], weights=weights[rows]),
        "precision": precision_score(**each),
        "recall": recall_score(**each),
        "f1": f1_score(**each),
    }
    if answers.ordered:
        cells = [true // 10 == d for d in (1, 2)] if answers.unit == "years" else [target == k for k in range(8)]
        found["cell_mae"] = np.array([error[cell].mean() if cell.any() else np.nan for cell in cells])
        found["cell_bias"] = np.array([(point - true)[cell].mean() if cell.any() else np.nan for cell in cells])
        found["balanced_mae"] = np.nanmean(found["cell_mae"])
    return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}


@pytest.mark.parametrize("people", [7, 12, None])
@pytest.mark.parametrize(("ordered", "unit"), [(True, "years"), (True, "bins"), (False, "")])
def test_every_interval_is_that_of_brute_force_on_the_same_resamples(people, ordered, unit) -> None:
    answers, (loss, weights) = drawn(60, ordered=ordered, unit=unit), np.random.default_rng(1).random((2, 60))
    groups = None if people is None else np.random.default_rng(2).integers(0, people, size=60)
    codes, count = group_codes(groups, 60)

    found = intervals(answers, groups, means={"loss": (loss, weights)}, resamples=60, seed=3)

    (times,) = draw(count, resamples=60, seed=3)
    resamples = [brute_force(answers, codes, each, loss, weights) for each in times]
    tables = {"precision", "recall", "f1"} | ({"cell_mae", "cell_bias"} if ordered else set())
    assert set(found) == {*summarise(answers), "loss"} | tables
    for name, bounds in found.items():
        expected = np.nanquantile([each[name] for each in resamples], [0.025, 0.975], axis=0)
        np.testing.assert_allclose(bounds, expected, atol=1e-9, rtol=0, err_msg=name)


def test_resamples_draw_as_many_groups_as_there_are_each_as_likely_as_another() -> None:
    times = np.concatenate(list(draw(50, resamples=4_000, seed=0)))

    assert times.shape == (4_000, 50)
    assert (times.sum(1) == 50).all()
    # Of a multinomial: mean 1, variance 1 - 1/50.
    np.testing.assert_allclose(times.mean(0), 1, atol=5 / math.sqrt(4_000))
    assert times.var() == pytest.approx(1 - 1 / 50, rel=0.02)


def test_how_many_resamples_are_held_at_once_changes_none() -> None:
    narrow = np.concatenate(list(draw(30, resamples=50, seed=1)))
    wide = list(draw(30, resamples=50, seed=1, width=400_000))

    assert len(wide) == 5
    np.testing.assert_array_equal(np.concatenate(wide), narrow)


def test_the_interval_of_independent_images_is_the_normal_one() -> None:
    numbers = np.random.default_rng(0).normal(3, 2, size=2_000)
    half = 1.96 * numbers.std() / np.sqrt(2_000)

    low, high = of_means(numbers, resamples=4_000)

    assert low == pytest.approx(numbers.mean() - half, abs=0.08 * half)
    assert high == pytest.approx(numbers.mean() + half, abs=0.08 * half)


def test_the_interval_of_people_with_like_images_is_that_of_so_many_people() -> None:
    people = np.random.default_rng(0).normal(3, 2, size=100)
    numbers, groups = np.repeat(people, 20), np.repeat([f"person {i}" for i in range(100)], 20)
    half = 1.96 * people.std() / np.sqrt(100)

    low, high = of_means(numbers, groups)
    alone_low, alone_high = of_means(numbers, resamples=2_000)

    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert (high - low) / (alone_high - alone_low) == pytest.approx(np.sqrt(20), rel=0.1)


def test_people_of_different_numbers_of_images_count_by_image() -> None:
    groups = np.array([0] * 90 + [1] * 10)  # drawn twice the first, both, or twice the second: 1, 0.9 or 0

    low, high = of_means(np.array([1.0] * 90 + [0.0] * 10), groups)

    assert (low, high) == (0, 1)


def test_resamples_follow_from_the_seed() -> None:
    answers = drawn(50)

    first, again, other = (intervals(answers, resamples=100, seed=seed) for seed in (0, 0, 1))

    assert all(np.array_equal(first[name], again[name], equal_nan=True) for name in first)
    assert not np.array_equal(first["nll"], other["nll"])


def test_metrics_share_their_resamples() -> None:
    answers = drawn(50)
    wrong = 1.0 - (answers.posterior.argmax(1) == answers.target)

    found = intervals(answers, means={"wrong": (wrong, np.ones(50))}, resamples=100)

    assert found["wrong"] == pytest.approx(1 - found["accuracy"][::-1])


@pytest.mark.parametrize("people", [1, 60])
def test_a_single_person_or_a_diverged_network_has_figures_but_no_interval(people) -> None:
    answers = drawn(60)
    if people > 1:
        answers.posterior[0] = np.nan

    found = intervals(answers, np.arange(60) % people, means={"loss": (np.ones(60), np.ones(60))}, resamples=10)

    assert {name for name, each in found.items() if each.shape == (2,)} == {*summarise(answers), "loss"}
    assert found["recall"].shape == (2, 8)
    assert found["cell_mae"].shape == (2, 2)
    assert all(np.isnan(each).all() for each in found.values())


def test_a_label_that_one_person_or_nobody_has_gets_no_interval_and_no_warning() -> None:
    target, groups = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    answers = Answers(np.eye(3)[[0, 1, 1, 0]], target, target, np.arange(3.0), ordered=False, unit="")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = intervals(answers, groups, resamples=100)

    assert np.isfinite(found["recall"][:, 0]).all()
    assert np.isnan(found["recall"][:, 1:]).all()


def test_many_groups_are_resampled_less_often() -> None:
    assert resamples_for(120) == resamples_for(10_000) == 10_000
    assert resamples_for(70_000) == 2_000


def draw_faces(rng: np.random.Generator, people: int) -> tuple[Answers, np.ndarray]:
    """People of 1 to 10 images each, whose errors are alike; a posterior is as sure as its estimate is right."""
    groups = np.repeat(np.arange(people), rng.integers(1, 11, size=people))
    person = rng.normal(size=people)[groups]
    target = rng.integers(0, 8, size=len(groups))
    point = AGES[target] + 1.5 * person + 1.5 * rng.normal(size=len(groups))
    scores = np.exp(-0.5 * (AGES - point[:, None]) ** 2)
    return Answers(scores / scores.sum(1, keepdims=True), point, target, AGES, True, "years"), groups


@pytest.mark.slow
def test_nineteen_of_twenty_intervals_cover_the_figure_of_all_people() -> None:
    rng = np.random.default_rng(0)
    true = summarise(draw_faces(rng, 200_000)[0])
    watched = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "mae", "rmse", "median_error", "bias", "cs2", "qwk")
    covered, covered_by_images, rounds = dict.fromkeys(watched, 0), 0, 200

    for seed in range(rounds):
        answers, groups = draw_faces(rng, 120)
        found = intervals(answers, groups, resamples=500, seed=seed)
        for name in watched:
            covered[name] += found[name][0] <= true[name] <= found[name][1]
        low, high = intervals(answers, resamples=200, seed=seed)["bias"]
        covered_by_images += low <= true["bias"] <= high

    # Three standard deviations of 200 draws are 0.046.
    assert {name: share for name in watched if not 0.89 <= (share := covered[name] / rounds) <= 0.99} == {}
    assert covered_by_images / rounds < 0.8  # whoever takes the images of one person for independent is too sure


def test_the_difference_of_independent_images_is_the_normal_one() -> None:
    rng = np.random.default_rng(0)
    common, noise = 10 * rng.random(2_000), rng.normal(size=2_000)
    noise -= noise.mean()
    error = noise.std() / math.sqrt(2_000)
    ours, theirs = common + noise + 2.2 * error, common  # what both find hard tells nothing of who is better

    found = paired_difference(ours, theirs)

    assert found.value == pytest.approx(2.2 * error)
    assert found.low == pytest.approx((2.2 - 1.96) * error, abs=0.08 * error)
    assert found.high == pytest.approx((2.2 + 1.96) * error, abs=0.08 * error)
    assert found.p == pytest.approx(math.erfc(2.2 / math.sqrt(2)), abs=0.006)  # 0.028


def test_the_difference_of_people_is_that_of_so_many_people() -> None:
    people = np.random.default_rng(1).normal(size=200)
    people += 1.5 * people.std() / math.sqrt(200) - people.mean()
    groups = np.repeat(np.arange(200), 5)

    by_person = paired_difference(people[groups], np.zeros(1_000), groups)
    by_image = paired_difference(people[groups], np.zeros(1_000), resamples=2_000)

    assert by_person.p == pytest.approx(math.erfc(1.5 / math.sqrt(2)), abs=0.02)  # 0.134
    assert by_image.p < 0.01


def test_a_difference_turned_round_is_the_same_with_the_other_sign() -> None:
    a, b = np.random.default_rng(2).normal(size=(2, 100))

    one, other = paired_difference(a, b, resamples=500), paired_difference(b, a, resamples=500)

    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p == other.p


def test_the_p_value_is_below_a_twentieth_just_where_the_interval_leaves_zero_out() -> None:
    base = np.random.default_rng(3).normal(size=80)

    for shift in np.linspace(-0.5, 0.5, 21):
        found = paired_difference(base + shift, np.zeros(80), resamples=1_000)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0) or found.p == pytest.approx(0.05, abs=0.004)


def test_equal_models_do_not_differ_and_no_p_value_is_nought() -> None:
    same = paired_difference(np.ones(30), np.ones(30), resamples=100)
    apart = paired_difference(np.full(30, 5.0), np.ones(30), resamples=100)

    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert (apart.value, apart.low, apart.high) == (4, 4, 4)
    assert apart.p == pytest.approx(2 / 101)


def test_differences_of_one_person_or_of_what_is_no_number_have_no_interval() -> None:
    alone = paired_difference(np.ones(3), np.zeros(3), np.zeros(3, int))
    diverged = paired_difference(np.array([1, np.nan]), np.zeros(2))

    assert alone.value == 1
    assert math.isnan(alone.p)
    assert math.isnan(alone.low)
    assert math.isnan(diverged.value)
    assert math.isnan(diverged.p)


def test_models_tested_on_different_images_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same shape"):
        paired_difference(np.ones(1), np.ones(2))


def test_images_of_unknown_identity_are_resampled_one_by_one() -> None:
    numbers = np.random.default_rng(0).normal(size=40)
    unknown, own = np.full(40, ""), np.arange(40)

    bounds = [paired_difference(numbers, np.zeros(40), groups) for groups in (unknown, own)]

    assert bounds[0] == bounds[1]
    assert bounds[0].low < numbers.mean() < bounds[0].high
