"""Metrics against scikit-learn, and by hand where it has none."""

import math

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    median_absolute_error,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from agebench.metrics import compute as metrics
from agebench.metrics.answers import Answers, Images

AGES = np.array([14.0, 19.0, 24.0, 31.0, 36.0, 60.0, 62.0])


def drawn(
    values: np.ndarray = AGES, *, seed: int = 0, count: int = 400, ordered: bool = True, unit: str = "years"
) -> Answers:
    """Answers of a model that knows something, decoded as the posterior's mean; the fourth label is never true."""
    rng = np.random.default_rng(seed)
    labels = len(values)
    target = rng.choice(np.delete(np.arange(labels), 3), size=count)
    scores = np.exp(-0.5 * np.abs(np.arange(labels) - target[:, None]) + rng.normal(size=(count, labels)))
    posterior = (scores / scores.sum(1, keepdims=True)).astype(np.float32)
    return Answers(posterior, posterior.astype(np.float64) @ values, target, values, ordered, unit)


def calibration_error(posterior: np.ndarray, target: np.ndarray) -> float:
    """One bin after the other."""
    confidence, right, total = posterior.max(1).astype(np.float64), posterior.argmax(1) == target, 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(total)


def test_every_metric_of_ages_is_scikit_learns() -> None:
    answers = drawn()
    posterior, target, point = answers.posterior, answers.target, answers.point
    likeliest, true = posterior.argmax(1), AGES[target]
    every = {"y_true": true, "y_pred": point}

    found = metrics.summarise(answers)

    by_decade = [mean_absolute_error(true[true // 10 == d], point[true // 10 == d]) for d in (1, 2, 3, 6)]
    expected = {
        "accuracy": accuracy_score(target, likeliest),
        "top5": top_k_accuracy_score(target, posterior, k=5, labels=range(7)),
        "balanced_accuracy": np.mean(
            [accuracy_score(target[target == k], likeliest[target == k]) for k in set(target)]
        ),
        "macro_f1": f1_score(target, likeliest, average="macro"),
        "nll": -np.log(posterior[np.arange(400), target].astype(np.float64)).mean(),
        "ece": calibration_error(posterior, target),
        "mae": mean_absolute_error(**every),
        "rmse": math.sqrt(mean_squared_error(**every)),
        "median_error": median_absolute_error(**every),
        "bias": (point - true).mean(),
        **{f"cs{k}": np.mean([abs(p - t) <= k for p, t in zip(point, true, strict=True)]) for k in range(11)},
        "qwk": cohen_kappa_score(target, likeliest, weights="quadratic", labels=range(7)),
        "balanced_mae": np.mean(by_decade),
    }
    assert found == pytest.approx(expected, rel=1e-12)
    assert list(found) == list(expected)


def test_every_metric_of_nominal_labels_is_scikit_learns() -> None:
    answers = drawn(np.arange(4.0), ordered=False, unit="")
    posterior, target = answers.posterior.astype(np.float64), answers.target
    everyone = np.arange(len(target)) % 4  # each label occurs, as scikit-learn's balanced accuracy and log loss expect

    found = metrics.summarise(Answers(answers.posterior, answers.point, everyone, answers.values, False, ""))

    assert found == pytest.approx(
        {
            "accuracy": accuracy_score(everyone, posterior.argmax(1)),
            "balanced_accuracy": balanced_accuracy_score(everyone, posterior.argmax(1)),
            "macro_f1": f1_score(everyone, posterior.argmax(1), average="macro"),
            "nll": log_loss(everyone, posterior / posterior.sum(1, keepdims=True)),
            "ece": calibration_error(answers.posterior, everyone),
        },
        rel=1e-6,
    )


def test_decades_count_what_is_within_one_and_balance_labels() -> None:
    point, target = np.array([1.0, 3.0, 3.0, 1.0, 2.0]), np.array([0, 1, 2, 3, 1])  # errors 0, 1, 0, -3, 0
    answers = Answers(np.eye(4)[[0, 1, 2, 3, 1]], point, target, np.arange(1.0, 5.0), ordered=True, unit="decades")

    found = metrics.summarise(answers)

    assert metrics.per_image(Images(answers))["within_1"].tolist() == [1, 1, 1, 0, 1]
    assert found["mae"] == pytest.approx(4 / 5)
    assert found["balanced_mae"] == pytest.approx((0 + 0.5 + 0 + 3) / 4)
    assert not [name for name in found if name.startswith("cs") or name == "top5"]


def test_an_error_of_exactly_k_years_is_within_k() -> None:
    answers = Answers(
        np.eye(3), np.array([25.0, 31.0, 20.0]), np.array([0, 1, 2]), np.array([20, 25, 31]), True, "years"
    )

    found = metrics.per_image(Images(answers))  # errors 5, 6, -11

    assert found["cs4"].tolist() == [0, 0, 0]
    assert found["cs5"].tolist() == [1, 0, 0]
    assert found["cs6"].tolist() == found["cs10"].tolist() == [1, 1, 0]


def test_balanced_mae_means_over_decades_and_not_over_years() -> None:
    point, target = np.array([20.0, 21.0, 23.0, 30.0]), np.array([0, 0, 1, 2])  # errors 0, 1, 2 | 0
    answers = Answers(np.eye(3)[target], point, target, np.array([20.0, 21.0, 30.0]), ordered=True, unit="years")

    assert metrics.summarise(answers)["balanced_mae"] == pytest.approx((1 + 0) / 2)


def test_of_equally_likely_labels_the_first_five_are_the_top_five() -> None:
    """A network that has collapsed to one posterior must not look good."""
    answers = Answers(np.full((8, 8), 1 / 8), np.zeros(8), np.arange(8), np.arange(8.0), ordered=False, unit="")

    found = metrics.summarise(answers)

    assert found["top5"] == 5 / 8
    assert found["accuracy"] == 1 / 8


def test_a_true_label_of_no_probability_costs_what_the_floor_says() -> None:
    posterior, target = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32), np.array([1, 1])

    found = metrics.summarise(Answers(posterior, np.array([0, 1]), target, np.arange(2.0), ordered=False, unit=""))

    assert found["nll"] == pytest.approx(12 * math.log(10) / 2)


def test_the_calibration_error_is_the_gap_within_each_bin() -> None:
    posterior = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    target = np.array([0, 1, 0, 1])  # at 0.9 half are right, at 0.6 all

    found = metrics.summarise(Answers(posterior, np.zeros(4), target, np.arange(2.0), ordered=False, unit=""))

    assert found["ece"] == pytest.approx(0.5 * (0.9 - 0.5) + 0.5 * (1 - 0.6))


def test_a_probability_on_the_edge_of_a_bin_or_rounded_above_one_has_a_bin() -> None:
    posterior = np.array([[np.nextafter(np.float32(1), np.float32(2)), 0], [1, 0], [0.5, 0.5]], dtype=np.float32)

    found = metrics.summarise(Answers(posterior, np.zeros(3), np.zeros(3, int), np.arange(2.0), False, ""))

    assert found["ece"] == pytest.approx(0.5 / 3, abs=1e-6)


def test_labels_that_nobody_has_and_nobody_predicts_leave_the_means_over_labels_alone() -> None:
    target, predicted = np.array([0, 0, 3, 3, 4]), np.array([0, 3, 3, 3, 0])
    answers = Answers(np.eye(10)[predicted], predicted, target, np.arange(10.0), ordered=False, unit="")

    found = metrics.summarise(answers)

    assert found["macro_f1"] == pytest.approx(f1_score(target, predicted, average="macro"))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(target, predicted))


def test_precision_recall_and_f1_of_each_label_are_scikit_learns() -> None:
    answers = drawn()
    added = metrics.sums(Images(answers), np.zeros(400, dtype=np.int64), 1)

    found = metrics.from_sums(added, metrics.rows_of(answers))

    expected = precision_recall_fscore_support(
        answers.target, answers.posterior.argmax(1), labels=range(7), zero_division=np.nan
    )
    for name, numbers in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        np.testing.assert_allclose(found[name][0], numbers, rtol=1e-12)
    assert np.isnan(found["recall"][0, 3])  # never true


def test_kappa_is_zero_where_chance_explains_everything() -> None:
    answers = Answers(np.eye(3)[[1] * 7], np.ones(7), np.ones(7, int), np.arange(3.0), ordered=True, unit="bins")

    assert metrics.summarise(answers)["qwk"] == 0


def test_unsigned_labels_and_estimates_do_not_wrap_round() -> None:
    target, likeliest = np.array([30, 31, 48], dtype=np.uint8), np.array([48, 31, 30], dtype=np.uint8)
    values = np.arange(14, 63, dtype=np.uint8)
    answers = Answers(np.eye(49)[likeliest], values[likeliest], target, values, ordered=True, unit="years")

    found = metrics.summarise(answers)

    assert found["mae"] == 12  # 18, 0, 18
    assert found["bias"] == 0
    assert found["median_error"] == 18
    assert found["accuracy"] == found["macro_f1"] == pytest.approx(1 / 3)
    assert found["qwk"] == pytest.approx(
        cohen_kappa_score([30, 31, 48], [48, 31, 30], weights="quadratic", labels=range(49))
    )
    assert found["balanced_mae"] == pytest.approx((9 + 18) / 2)  # 44 and 45 years old, 62


@pytest.mark.parametrize("field", ["posterior", "point"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_network_that_has_diverged_has_no_figure_at_all(field, bad) -> None:
    answers = drawn()
    getattr(answers, field)[7] = bad

    found = metrics.summarise(answers)

    assert list(found) == list(metrics.summarise(drawn()))
    assert all(math.isnan(value) for value in found.values())
