"""Decisions at an age limit: rates by hand and by scikit-learn, and intervals that hold without any error."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t
from sklearn.metrics import confusion_matrix, precision_score, recall_score, roc_auc_score

from agebench.errors import UserError
from agebench.metrics import decisions
from agebench.metrics.age_limit import AgeLimit, make_age_limit
from agebench.metrics.bootstrap import draw, intervals
from agebench.metrics.compute import summarise
from agebench.metrics.decision_summary import curve_means, decision_curves, decision_table, describe_decisions
from agebench.metrics.decisions import exact_bounds, widen
from agebench.metrics.predictions import Images, LabelledPredictions
from agebench.metrics.table import find, is_decision, monitor_keys

AGES = np.arange(14.0, 40.0)


def limit_of(age: int = 18, **settings) -> AgeLimit:
    found = make_age_limit({"age_limit": age, **settings}, values=AGES.tolist(), unit="years", bins=None)
    assert found is not None
    return found


def judged_as(true: list[float], point: list[float], limit: AgeLimit | None = None) -> LabelledPredictions:
    """Return predictions with these ages and estimates, and a posterior with all its mass on the nearest label."""
    nearest = np.abs(AGES[:, None] - np.array(point)).argmin(0)
    target = np.searchsorted(AGES, true)
    return LabelledPredictions(
        np.eye(len(AGES))[nearest], np.array(point), target, AGES, True, "years", age_limit=limit or limit_of()
    )


def drawn(count: int = 600, *, seed: int = 0) -> LabelledPredictions:
    """Return noisy predictions for ages from 14 to 39."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, len(AGES), size=count)
    centre = AGES[target] + rng.normal(0, 4, size=count)
    scores = np.exp(-0.5 * ((AGES - centre[:, None]) / 3) ** 2)
    posterior = scores / scores.sum(1, keepdims=True)
    return LabelledPredictions(posterior, posterior @ AGES, target, AGES, True, "years", age_limit=limit_of())


def test_the_rates_of_seven_images_are_those_counted_by_hand() -> None:
    true = [16, 17, 17, 17, 18, 25, 30]
    point = [15.0, 17.9, 18.0, 22.0, 17.5, 20.0, 31.0]

    found = summarise(judged_as(true, point))

    assert found["false_adult_rate"] == found["false_adult_rate_at_18"] == 2 / 4  # 18.0 and 22.0
    assert found["false_adult_rate_at_21"] == 1 / 4
    assert found["false_adult_rate_at_25"] == 0
    assert found["false_minor_rate"] == 1 / 3  # 17.5
    assert found["false_minor_rate_at_21"] == found["false_minor_rate_at_25"] == 2 / 3
    assert found["minor_recall"] == 1 / 2
    assert found["minor_precision_0.1"] == pytest.approx(0.1 * 0.5 / (0.1 * 0.5 + 0.9 / 3))


def test_rates_and_auc_equal_those_of_scikit_learn() -> None:
    predictions = drawn()
    adult = AGES[predictions.target] >= 18

    found = summarise(predictions)

    for age in (18, 21, 25, 30):
        (_, false_adult), (false_minor, _) = confusion_matrix(adult, predictions.point >= age, normalize="true")
        assert found[f"false_adult_rate_at_{age}"] == pytest.approx(false_adult)
        assert found[f"false_minor_rate_at_{age}"] == pytest.approx(false_minor)
    assert found["limit_auc"] == pytest.approx(roc_auc_score(adult, predictions.posterior[:, AGES >= 18].sum(1)))
    assert found["minor_recall"] == pytest.approx(recall_score(~adult, predictions.point < 18))
    for prior in (0.1, 0.2, 0.3):
        weights = np.where(adult, (1 - prior) / adult.sum(), prior / (~adult).sum())
        expected = precision_score(~adult, predictions.point < 18, sample_weight=weights)
        assert found[f"minor_precision_{prior}"] == pytest.approx(expected)


def test_equal_probabilities_count_half_in_the_auc() -> None:
    predictions = judged_as([16, 17, 20, 30], [15.0, 20.0, 20.0, 20.0])

    found = summarise(predictions)

    assert found["limit_auc"] == roc_auc_score([0, 0, 1, 1], [0, 1, 1, 1]) == 0.75


def test_every_resample_of_people_gives_the_metric_of_its_images() -> None:
    predictions, people = drawn(120), np.random.default_rng(1).integers(0, 30, size=120)
    adult, score = AGES[predictions.target] >= 18, predictions.posterior[:, AGES >= 18].sum(1)
    (times,) = draw(30, resamples=200, seed=0)
    rates, areas = [], []
    for each in times[:, people]:
        rows = np.repeat(np.arange(120), each)
        areas.append(roc_auc_score(adult[rows], score[rows]))
        rates.append((predictions.point[rows][~adult[rows]] >= 18).mean())

    found = intervals(predictions, people, resamples=200, seed=0)

    counts = np.bincount(people)
    effective = counts.sum() ** 2 / (counts**2).sum()  # Kish
    tail = norm.sf(t.ppf(0.975, effective - 1) * np.sqrt(effective / (effective - 1)))  # Hesterberg
    np.testing.assert_allclose(found["limit_auc"], np.quantile(areas, [tail, 1 - tail]), rtol=1e-9)
    low, high = found["false_adult_rate"]
    assert low <= np.quantile(rates, 0.025)
    assert high >= np.quantile(rates, 0.975)


def test_decades_and_bins_are_judged_by_the_nearest_label() -> None:
    decades = LabelledPredictions(
        np.eye(3)[[0, 0, 1, 2]],
        np.array([1.4, 1.6, 1.4, 3.0]),
        np.array([0, 0, 1, 2]),
        np.arange(1.0, 4),
        True,
        "decades",
    )
    bins = LabelledPredictions(
        np.eye(3)[[0, 1, 1, 2]], np.array([0.4, 0.6, 0.2, 2.0]), np.array([0, 0, 1, 2]), np.arange(3.0), True, "bins"
    )
    of_decades = make_age_limit({"age_limit": 20}, values=[1, 2, 3], unit="decades", bins=None)
    of_bins = make_age_limit({"age_limit": 18}, values=[0, 1, 2], unit="bins", bins=[18, 30])

    for known, limit in ((decades, of_decades), (bins, of_bins)):
        found = summarise(LabelledPredictions(*list(vars(known).values())[:6], age_limit=limit))

        assert found["false_adult_rate"] == found["false_minor_rate"] == 1 / 2
        assert found["false_adult_rate_at_30"] == 0  # 30 is an edge of both
        assert "false_adult_rate_at_25" not in found


@pytest.mark.parametrize("people", [1, 5, 40, 367])
def test_without_an_error_the_upper_bound_is_that_of_clopper_and_pearson(people: int) -> None:
    true, point = [16.0] * people + [30.0] * 3, [15.0] * people + [31.0] * 3

    found = intervals(judged_as(true, point), np.arange(people + 3), resamples=20)

    expected = binomtest(0, people).proportion_ci(0.95, method="exact").high
    assert found["false_adult_rate"] == pytest.approx([0, expected])
    assert found["minor_recall"] == pytest.approx([1 - expected, 1])
    assert found["minor_precision_0.1"][0] < 1


def test_images_of_one_person_do_not_narrow_the_bound() -> None:
    """Ten people with fifty images each are ten people."""
    true, point = [16.0] * 500 + [30.0] * 3, [15.0] * 500 + [31.0] * 3
    people = np.concatenate([np.repeat(np.arange(10), 50), [10, 11, 12]])

    found = intervals(judged_as(true, point), people, resamples=20)

    assert found["false_adult_rate"][1] == pytest.approx(1 - 0.025 ** (1 / 10))


@pytest.mark.parametrize(("events", "people"), [(0, 20), (1, 20), (7, 30), (20, 20)])
def test_bounds_of_whole_events_are_those_of_clopper_and_pearson(events: int, people: int) -> None:
    expected = binomtest(events, people).proportion_ci(0.95, method="exact")

    found = exact_bounds(events / people, people)

    assert found == pytest.approx([expected.low, expected.high])


def test_people_with_more_images_lower_the_effective_number() -> None:
    codes = np.array([0, 1, 2, 2, 2, 9])

    assert decisions.people(codes, codes < 9) == (3, pytest.approx((1 + 1 + 3) ** 2 / (1 + 1 + 9)))
    assert decisions.people(codes, codes < 2) == (2, 2.0)
    assert decisions.people(codes, codes > 9) == (0, 0.0)


def test_an_interval_of_a_rate_contains_both_intervals() -> None:
    images = Images(judged_as([16, 17, 17, 17, 25], [15.0, 16.0, 20.0, 22.0, 30.0]))  # 2 errors of 4 people
    exact = binomtest(2, 4).proportion_ci(method="exact")

    for low, high in ((0.01, 0.6), (0.4, 0.99), (0.4, 0.6)):
        found = widen({"false_adult_rate_at_18": np.array([low, high])}, images, np.arange(5))

        expected = [min(low, exact.low), max(high, exact.high)]
        np.testing.assert_allclose(found["false_adult_rate_at_18"], expected, rtol=1e-6)


def test_the_upper_bound_covers_a_rare_rate_of_people_with_correlated_images() -> None:
    """40 people, images of a person are judged alike: the bootstrap alone would cover the rate in half of the cases."""
    rng = np.random.default_rng(0)
    people = np.concatenate([np.repeat(np.arange(40), 5), np.arange(40, 60)])
    covered = 0
    for _ in range(60):
        wrong = np.repeat(rng.random(40) < 0.02, 5)
        point = np.concatenate([np.where(wrong, 20.0, 15.0), np.full(20, 31.0)])
        found = intervals(judged_as([16.0] * 200 + [30.0] * 20, point.tolist()), people, resamples=50)
        covered += found["false_adult_rate"][0] <= 0.02 <= found["false_adult_rate"][1]

    assert covered >= 56  # 95% of 60 is 57


@pytest.mark.parametrize(
    ("true", "absent", "note"),
    [
        ([20.0, 30.0], "false_adult", "only 0 images are below 18: false-adult rate, AUC and precision are undefined"),
        (
            [15.0, 16.0],
            "false_minor",
            "only 0 images are at or above 18: false-minor rate, AUC and precision are undefined",
        ),
    ],
)
def test_a_side_without_images_is_reported_and_has_no_metric(true, absent, note) -> None:
    predictions = judged_as(true, [19.0, 17.0])
    bounds = intervals(predictions, np.arange(2), means=curve_means(predictions), resamples=20)
    curves = decision_curves(predictions, bounds, np.arange(2))

    found, described = summarise(predictions), describe_decisions(predictions, curves, over="identity")

    assert not [name for name in found if name.startswith((absent, "limit_auc", "minor_precision"))]
    assert all(np.isfinite(value) for value in found.values())
    assert note in described["notes"]
    assert describe_decisions(predictions, curves, over="image")["below"] == {
        "images": int(np.sum(np.array(true) < 18))
    }


def described(minors: int, **settings):
    """Return `decision` for so many minors, judged 20 years old but for the first, and 30 adults."""
    true, point = [16.0] * minors + [30.0] * 30, [17.0] + [20.0] * (minors - 1) + [31.0] * 30
    predictions, people = judged_as(true, point, limit_of(**settings)), np.arange(minors + 30)
    bounds = intervals(predictions, people, means=curve_means(predictions), resamples=50)
    curves = decision_curves(predictions, bounds, people)
    return describe_decisions(predictions, curves, over="identity"), curves


def test_the_sentence_names_the_lowest_challenge_age_with_an_acceptable_upper_bound() -> None:
    found, _ = described(400)

    assert found["challenge_age"] == 21
    assert found["sentence"] == (
        "21 is the lowest of the challenge ages 18, 21, 25, 30 whose false-adult rate has an upper bound of at most "
        "1%: it is 0% (at most 0.918%); the false-minor rate is 0% (at most 11.6%)."  # 1 - 0.025^(1/400) and ^(1/30)
    )
    assert found["notes"] == []


def test_too_few_people_for_any_challenge_age_are_reported() -> None:
    found, _ = described(12)

    assert found["challenge_age"] is None
    assert found["sentence"] == (
        "None of the challenge ages 18, 21, 25, 30 has a false-adult rate with an upper bound of at most 1%: at 30 it "
        "is 0% (at most 26.5%), with 12 people below 18; it takes at least 368 people without an error to show it."
    )
    assert found["notes"] == ["only 12 images of 12 people are below 18: the false-adult rate is uncertain"]


def test_a_larger_acceptable_rate_needs_fewer_people() -> None:
    found, _ = described(12, acceptable=0.3)

    assert found["challenge_age"] == 21


def test_the_table_has_one_row_per_age_and_both_rates() -> None:
    _, curves = described(12)

    header, rows = decision_table(curves)

    assert header[:4] == ["challenge_age", "false_adult_rate", "false_adult_rate_low", "false_adult_rate_high"]
    assert [float(str(row[0])) for row in rows] == list(AGES[1:])
    by_age = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert by_age["18"]["false_adult_rate"] == f"{11 / 12:.6g}"
    assert by_age["31"]["false_minor_rate"] == "0"
    assert by_age["32"]["false_minor_rate"] == "1"
    assert (by_age["18"]["people_below"], by_age["18"]["people_above"]) == ("12", "30")


@pytest.mark.parametrize(
    ("settings", "unit", "bins", "sentence"),
    [
        ({"age_limit": 18}, "", None, "age_limit=18 needs ages, and data.target is class"),
        ({"age_limit": 18}, "decades", None, "age_limit=18 must be an edge of the decades 10, 20, 30"),
        ({"age_limit": 18}, "bins", [21, 30], r"age_limit=18 must be an edge of data.bins=\[21,30\]"),
        ({"age_limit": 18}, "bins", None, r"must be an edge of data.bins=\[\]"),
        ({"age_limit": 3}, "years", None, "needs labels on both sides, and these start at 3 and end at 5 years"),
        ({"age_limit": 6}, "years", None, "needs labels on both sides, and these start at 3 and end at 5 years"),
        ({"age_limit": 30}, "decades", None, "needs labels on both sides, and these start at 30 and end at 50"),
        ({"age_limit": 60}, "decades", None, "needs labels on both sides, and these start at 30 and end at 50"),
    ],
)
def test_labels_that_a_limit_cannot_divide_are_refused(settings, unit, bins, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        make_age_limit(settings, values=[3.0, 4.0, 5.0], unit=unit, bins=bins)


def test_challenge_ages_below_the_limit_or_between_edges_are_left_out() -> None:
    years = make_age_limit({"age_limit": 21, "challenge_ages": [30, 18, 24.5]}, values=AGES, unit="years", bins=None)
    bins = make_age_limit({"age_limit": 18}, values=[0, 1, 2], unit="bins", bins=[18, 25])

    assert years is not None
    assert bins is not None
    assert years.challenge_ages == (21, 24.5, 30)
    assert bins.challenge_ages == (18, 25)


def test_lower_error_rates_are_better_and_none_selects_an_epoch() -> None:
    assert find("test/false_adult_rate_at_21").better == find("false_minor_rate").better == "lower"
    assert find("test/minor_precision_0.1").better == find("limit_auc").better == "higher"
    assert is_decision("test/false_adult_rate_at_24.5")
    assert not is_decision("test/cs5")
    assert not [key for key in monitor_keys(ordered=True, unit="years") if is_decision(key)]
