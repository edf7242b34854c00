"""Conformal sets: the threshold and the sets against loops, and their coverage in a simulation with clusters."""

import math

import numpy as np
import pytest

from agebench.calibration.calibration import Calibration, fit
from agebench.calibration.conformal import conformities, hierarchical_threshold, most_probable, needed_groups
from agebench.errors import UserError
from agebench.metrics.predictions import LabelledPredictions, ends_of

AGES = np.arange(14.0, 63.0)


def test_the_threshold_equals_a_loop_over_weighted_scores() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 30, size=200)
    codes[:30] = range(30)
    conformity = rng.random(200)

    found = hierarchical_threshold(conformity, codes, 30, coverage=0.8)

    mass, expected = 0.0, 1.0
    for value, code in sorted(zip(conformity, codes, strict=True), reverse=True):
        if mass < 0.8:
            mass, expected = mass + 1 / 31 / (codes == code).sum(), value
    assert found == pytest.approx(expected, rel=2e-5)
    assert found < expected


def test_for_single_images_the_threshold_is_that_of_split_conformal_prediction() -> None:
    conformity = np.random.default_rng(1).random(99)

    found = hierarchical_threshold(conformity, np.arange(99), 99, coverage=0.9)

    # The ceil((n + 1) 0.9) = 90 highest of 99 are covered.
    assert found == pytest.approx(np.sort(conformity)[9], rel=2e-5)


@pytest.mark.parametrize(("coverage", "needed"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_the_number_of_people_needed(coverage, needed) -> None:
    # The smallest G with G / (G + 1) >= coverage.
    assert needed_groups(coverage) == needed


def test_a_range_lies_between_two_quantiles_and_contains_the_point_estimate() -> None:
    rng = np.random.default_rng(2)
    posterior = rng.dirichlet(np.full(49, 0.3), size=300)
    point = np.concatenate([AGES[(posterior.cumsum(1) < 0.5).sum(1)][:150], rng.uniform(14, 62, size=150)])

    sets = conformities(posterior, point, AGES, ordered=True) >= 0.05

    for i, (first, last) in enumerate(zip(*ends_of(sets), strict=True)):
        below, above = posterior[i].cumsum(), posterior[i][::-1].cumsum()[::-1]
        inside = [k for k in range(49) if below[k] >= 0.05 and above[k] >= 0.05]
        inside += [math.floor(point[i]) - 14, math.ceil(point[i]) - 14]
        assert (first, last) == (min(inside), max(inside))
        assert sets[i, first : last + 1].all()


def test_an_uncalibrated_range_lies_between_the_quantiles_of_the_promised_coverage() -> None:
    posterior = np.array([[0.02, 0.02, 0.06, 0.40, 0.40, 0.04, 0.03, 0.03]])
    calibration = Calibration(
        coverage=0.9,
        temperature=1.0,
        threshold=0.2,
        ordered=True,
        values=tuple(range(8)),
        over="image",
        groups=9,
        images=9,
        nll=(1.0, 1.0),
        weights_sha="",
    )
    predictions = LabelledPredictions(posterior, np.array([3.0]), np.array([3]), np.arange(8.0), True, "years")

    found = calibration.calibrated(predictions)

    # From the 5% quantile, label 2, to the 95% quantile, label 6.
    assert found.uncalibrated_sets.tolist() == [[False, False, True, True, True, True, True, False]]


def test_a_class_belongs_to_the_set_if_it_is_probable_enough_or_the_most_probable() -> None:
    posterior = np.array([[0.5, 0.3, 0.2], [0.2, 0.4, 0.4], [0.34, 0.33, 0.33]])

    sets = conformities(posterior, posterior.argmax(1), np.arange(3), ordered=False) >= 0.35

    assert sets.tolist() == [[True, False, False], [False, True, True], [True, False, False]]


def test_the_most_probable_labels_reach_a_mass() -> None:
    found = most_probable(np.array([[0.2, 0.5, 0.25, 0.05], [0.95, 0.05, 0, 0]]), 0.9)

    assert found.tolist() == [[True, True, True, False], [True, False, False, False]]


def draw_people(rng: np.random.Generator, people: int, *, icc: float) -> tuple[LabelledPredictions, np.ndarray]:
    """Return predictions of an overconfident model, whose errors share a part for each person, and the people."""
    groups = np.repeat(np.arange(people), rng.integers(1, 9, size=people))
    error = 4 * (math.sqrt(icc) * rng.normal(size=people)[groups] + math.sqrt(1 - icc) * rng.normal(size=len(groups)))
    target = rng.integers(0, 25, size=len(groups))
    center = np.clip(target + error, 0, 24)
    posterior = np.exp(-0.5 * ((np.arange(25) - center[:, None]) / 2) ** 2)  # half of the true scale
    posterior /= posterior.sum(1, keepdims=True)
    return LabelledPredictions(posterior, center, target, np.arange(25.0), True, "years"), groups


@pytest.mark.parametrize(("people", "rounds"), [(20, 150), (80, 60), (300, 20)])
def test_the_coverage_for_new_people_is_what_is_promised(people, rounds) -> None:
    rng = np.random.default_rng(people)
    new, of_new = draw_people(rng, 500, icc=0.6)
    rows, shares = np.arange(len(of_new)), []

    for _ in range(rounds):
        val, groups = draw_people(rng, people, icc=0.6)
        calibration = fit(val, groups, coverage=0.9, weights_sha="")
        covered = calibration.sets(calibration.temper(new.posterior), new.point)[rows, new.target]
        of_person = np.bincount(of_new, weights=covered) / np.bincount(of_new)
        shares.append(of_person.mean())

    # The theorem: from 0.9 to 0.9 + 2 / (G + 1). The error has a part for val and a part for the 500 new people.
    error = math.hypot(np.std(shares) / math.sqrt(rounds), np.std(of_person) / math.sqrt(500))
    assert 0.9 - 2.5 * error < np.mean(shares) < 0.9 + 2 / (people + 1) + 2.5 * error
    uncalibrated = conformities(new.posterior, new.point, new.values, ordered=True) >= 0.05
    assert uncalibrated[rows, new.target].mean() < 0.75


def test_too_few_people_or_images_are_refused() -> None:
    val, groups = draw_people(np.random.default_rng(0), 8, icc=0.3)

    with pytest.raises(UserError, match=r"coverage=0\.9 needs at least 9 people in val, got 8: set a lower coverage"):
        fit(val, groups, coverage=0.9, weights_sha="")
    assert fit(val, groups, coverage=0.85, weights_sha="").groups == 8
    with pytest.raises(UserError, match=r"coverage=0\.999 needs at least 999 images in val"):
        fit(val, None, coverage=0.999, weights_sha="")
