"""Metrics against scikit-learn, intervals against the normal approximation."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix, f1_score, mean_absolute_error

from agebench import metrics


def drawn(seed: int = 0, count: int = 400, num_labels: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A posterior that knows something, its likeliest label, and the target."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, num_labels, size=count)
    closeness = -0.5 * np.abs(np.arange(num_labels)[None] - target[:, None])
    scores = np.exp(closeness + rng.normal(size=(count, num_labels)))
    posterior = scores / scores.sum(1, keepdims=True)
    return posterior, posterior.argmax(1), target


def test_every_metric_of_ordered_labels_is_scikit_learns() -> None:
    posterior, likeliest, target = drawn()
    values = np.array([14.0, 20.0, 24.0, 31.0, 36.0, 60.0])
    point = values[likeliest]

    found = metrics.summarise(posterior, point, target, values=values, ordered=True, unit="years")

    error = point - values[target]
    assert found == pytest.approx(
        {
            "accuracy": accuracy_score(target, likeliest),
            "macro_f1": f1_score(target, likeliest, average="macro"),
            "qwk": cohen_kappa_score(target, likeliest, weights="quadratic", labels=range(6)),
            "mae": mean_absolute_error(values[target], point),
            "bias": error.mean(),
            "cs5": (np.abs(error) <= 5).mean(),
        },
        rel=1e-12,
    )


def test_nominal_labels_have_no_distances() -> None:
    posterior, likeliest, target = drawn()

    found = metrics.summarise(posterior, likeliest, target, values=np.arange(6.0), ordered=False, unit="")

    assert found == pytest.approx(
        {
            "accuracy": accuracy_score(target, likeliest),
            "macro_f1": f1_score(target, likeliest, average="macro"),
        },
        rel=1e-12,
    )


def test_decades_count_what_is_within_one() -> None:
    posterior = np.eye(4)[[0, 1, 2, 3]]
    point, target = np.array([1.0, 3.0, 3.0, 1.0]), np.array([0, 1, 2, 3])  # errors 0, 1, 0, -3 on values 1 2 3 4

    found = metrics.per_image(posterior, point, target, values=np.arange(1.0, 5.0), ordered=True, unit="decades")

    assert found["within_1"].tolist() == [1, 1, 1, 0]
    assert found["mae"].tolist() == [0, 1, 0, 3]
    assert found["bias"].tolist() == [0, 1, 0, -3]
    assert "cs5" not in found


def test_an_error_of_exactly_five_years_is_within_five() -> None:
    about = {"values": np.array([20.0, 25.0, 31.0]), "ordered": True, "unit": "years"}

    found = metrics.per_image(np.eye(3)[[1, 2]], np.array([25.0, 31.0]), np.array([0, 1]), **about)

    assert found["cs5"].tolist() == [1, 0]


def test_labels_that_nobody_has_and_nobody_predicts_leave_macro_f1_alone() -> None:
    target, predicted = np.array([0, 0, 3, 3, 4]), np.array([0, 3, 3, 3, 0])
    counts = metrics.confusion(predicted, target, 10)

    assert metrics.macro_f1(counts) == pytest.approx(f1_score(target, predicted, average="macro"))


def test_confusion_counts_actual_in_rows() -> None:
    _, predicted, target = drawn(1)

    np.testing.assert_array_equal(
        metrics.confusion(predicted, target, 6), confusion_matrix(target, predicted, labels=range(6))
    )


def test_kappa_is_zero_where_chance_explains_everything() -> None:
    assert metrics.quadratic_kappa(np.array([[5, 0], [0, 0]])) == 0


def test_unsigned_labels_and_estimates_do_not_wrap_round() -> None:
    target, likeliest = np.array([30, 31, 48], dtype=np.uint8), np.array([48, 31, 30], dtype=np.uint8)
    posterior, values = np.eye(49)[likeliest], np.arange(14, 63, dtype=np.uint8)
    point = values[likeliest]

    found = metrics.summarise(posterior, point, target, values=values, ordered=True, unit="years")

    assert found["mae"] == 12  # 18, 0, 18
    assert found["bias"] == 0
    assert found["macro_f1"] == pytest.approx(1 / 3)
    counts = metrics.confusion(likeliest, target, 49)
    assert [counts[30, 48], counts[31, 31], counts[48, 30]] == [1, 1, 1]


def test_the_interval_of_independent_images_is_the_normal_one() -> None:
    numbers = np.random.default_rng(0).normal(3, 2, size=2_000)
    half = 1.96 * numbers.std() / np.sqrt(2_000)

    low, high = metrics.bootstrap({"mae": numbers})["mae"]

    assert low == pytest.approx(numbers.mean() - half, abs=0.08 * half)
    assert high == pytest.approx(numbers.mean() + half, abs=0.08 * half)


def test_the_interval_of_people_with_like_images_is_that_of_so_many_people() -> None:
    people = np.random.default_rng(0).normal(3, 2, size=100)
    numbers, groups = np.repeat(people, 20), np.repeat([f"person {i}" for i in range(100)], 20)
    half = 1.96 * people.std() / np.sqrt(100)

    low, high = metrics.bootstrap({"mae": numbers}, groups=groups)["mae"]
    alone_low, alone_high = metrics.bootstrap({"mae": numbers})["mae"]

    assert (high - low) / 2 == pytest.approx(half, rel=0.08)
    assert (high - low) / (alone_high - alone_low) == pytest.approx(np.sqrt(20), rel=0.1)


def test_people_of_different_numbers_of_images_count_by_image() -> None:
    numbers = {"accuracy": np.array([1.0] * 90 + [0.0] * 10)}
    groups = np.array([0] * 90 + [1] * 10)  # drawn twice the first, both, or twice the second: 1, 0.9 or 0

    low, high = metrics.bootstrap(numbers, groups=groups)["accuracy"]

    assert (low, high) == (0, 1)


def test_resamples_follow_from_the_seed() -> None:
    numbers = {"accuracy": np.random.default_rng(0).random(50)}

    first = metrics.bootstrap(numbers, seed=0)

    assert metrics.bootstrap(numbers, seed=0) == first
    assert metrics.bootstrap(numbers, seed=1) != first


def test_metrics_share_their_resamples() -> None:
    accuracy = np.random.default_rng(0).random(50)

    found = metrics.bootstrap({"right": accuracy, "wrong": 1 - accuracy})

    assert found["wrong"] == pytest.approx([1 - found["right"][1], 1 - found["right"][0]])
    assert metrics.bootstrap({}) == {}
