"""Metrics against scikit-learn, or against values computed manually."""

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
from agebench.metrics.predictions import Images, LabelledPredictions, nearest_labels

AGES = np.array([14.0, 19.0, 24.0, 31.0, 36.0, 60.0, 62.0])


def drawn(
    values: np.ndarray = AGES, *, seed: int = 0, count: int = 400, ordered: bool = True, unit: str = "years"
) -> LabelledPredictions:
    """Return predictions that correlate with the target. The point is the mean; the fourth label never occurs."""
    rng = np.random.default_rng(seed)
    labels = len(values)
    target = rng.choice(np.delete(np.arange(labels), 3), size=count)
    scores = np.exp(-0.5 * np.abs(np.arange(labels) - target[:, None]) + rng.normal(size=(count, labels)))
    posterior = (scores / scores.sum(1, keepdims=True)).astype(np.float32)
    return LabelledPredictions(posterior, posterior.astype(np.float64) @ values, target, values, ordered, unit)


def calibration_error(posterior: np.ndarray, target: np.ndarray) -> float:
    """Compute the error bin by bin."""
    confidence, correct, total = posterior.max(1).astype(np.float64), posterior.argmax(1) == target, 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return float(total)


def test_every_metric_of_ages_equals_that_of_scikit_learn() -> None:
    predictions = drawn()
    posterior, target, point = predictions.posterior, predictions.target, predictions.point
    most_probable, true = posterior.argmax(1), AGES[target]
    every = {"y_true": true, "y_pred": point}

    found = metrics.summarise(predictions)

    nearest = [min(range(7), key=lambda label: abs(AGES[label] - p)) for p in point]
    by_decade = [mean_absolute_error(true[true // 10 == d], point[true // 10 == d]) for d in (1, 2, 3, 6)]
    expected = {
        "accuracy": accuracy_score(target, most_probable),
        "top5": top_k_accuracy_score(target, posterior, k=5, labels=range(7)),
        "balanced_accuracy": np.mean(
            [accuracy_score(target[target == k], most_probable[target == k]) for k in set(target)]
        ),
        "macro_f1": f1_score(target, most_probable, average="macro"),
        "nll": -np.log(posterior[np.arange(400), target].astype(np.float64)).mean(),
        "ece": calibration_error(posterior, target),
        "mae": mean_absolute_error(**every),
        "rmse": math.sqrt(mean_squared_error(**every)),
        "median_error": median_absolute_error(**every),
        "bias": (point - true).mean(),
        **{f"cs{k}": np.mean([abs(p - t) <= k for p, t in zip(point, true, strict=True)]) for k in range(11)},
        "qwk": cohen_kappa_score(target, most_probable, weights="quadratic", labels=range(7)),
        "qwk_point": cohen_kappa_score(target, nearest, weights="quadratic", labels=range(7)),
        "balanced_mae": np.mean(by_decade),
    }
    assert found == pytest.approx(expected, rel=1e-12)
    assert list(found) == list(expected)


def test_every_metric_of_nominal_labels_equals_that_of_scikit_learn() -> None:
    predictions = drawn(np.arange(4.0), ordered=False, unit="")
    posterior, target = predictions.posterior.astype(np.float64), predictions.target
    every_label = np.arange(len(target)) % 4  # scikit-learn's balanced accuracy and log loss need every label

    found = metrics.summarise(
        LabelledPredictions(predictions.posterior, predictions.point, every_label, predictions.values, False, "")
    )

    assert found == pytest.approx(
        {
            "accuracy": accuracy_score(every_label, posterior.argmax(1)),
            "balanced_accuracy": balanced_accuracy_score(every_label, posterior.argmax(1)),
            "macro_f1": f1_score(every_label, posterior.argmax(1), average="macro"),
            "nll": log_loss(every_label, posterior / posterior.sum(1, keepdims=True)),
            "ece": calibration_error(predictions.posterior, every_label),
        },
        rel=1e-6,
    )


def test_decades_have_within_1_and_a_balanced_mae_over_labels() -> None:
    point, target = np.array([1.0, 3.0, 3.0, 1.0, 2.0]), np.array([0, 1, 2, 3, 1])  # errors 0, 1, 0, -3, 0
    predictions = LabelledPredictions(
        np.eye(4)[[0, 1, 2, 3, 1]], point, target, np.arange(1.0, 5.0), ordered=True, unit="decades"
    )

    found = metrics.summarise(predictions)

    assert metrics.per_image(Images(predictions))["within_1"].tolist() == [1, 1, 1, 0, 1]
    assert found["mae"] == pytest.approx(4 / 5)
    assert found["balanced_mae"] == pytest.approx((0 + 0.5 + 0 + 3) / 4)
    assert not [name for name in found if name.startswith("cs") or name == "top5"]


def test_an_error_of_exactly_k_years_counts_for_cs_k() -> None:
    predictions = LabelledPredictions(
        np.eye(3), np.array([25.0, 31.0, 20.0]), np.array([0, 1, 2]), np.array([20, 25, 31]), True, "years"
    )

    found = metrics.per_image(Images(predictions))  # errors 5, 6, -11

    assert found["cs4"].tolist() == [0, 0, 0]
    assert found["cs5"].tolist() == [1, 0, 0]
    assert found["cs6"].tolist() == found["cs10"].tolist() == [1, 1, 0]


def test_the_balanced_mae_of_ages_is_a_mean_over_decades() -> None:
    point, target = np.array([20.0, 21.0, 23.0, 30.0]), np.array([0, 0, 1, 2])  # errors 0, 1, 2 | 0
    predictions = LabelledPredictions(
        np.eye(3)[target], point, target, np.array([20.0, 21.0, 30.0]), ordered=True, unit="years"
    )

    assert metrics.summarise(predictions)["balanced_mae"] == pytest.approx((1 + 0) / 2)


def test_the_top5_of_equally_probable_labels_are_the_first_five() -> None:
    """A network with a constant posterior must not have a good score."""
    predictions = LabelledPredictions(
        np.full((8, 8), 1 / 8), np.zeros(8), np.arange(8), np.arange(8.0), ordered=False, unit=""
    )

    found = metrics.summarise(predictions)

    assert found["top5"] == 5 / 8
    assert found["accuracy"] == 1 / 8


def test_the_nll_of_a_zero_probability_is_that_of_the_floor() -> None:
    posterior, target = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32), np.array([1, 1])

    found = metrics.summarise(
        LabelledPredictions(posterior, np.array([0, 1]), target, np.arange(2.0), ordered=False, unit="")
    )

    assert found["nll"] == pytest.approx(12 * math.log(10) / 2)


def test_the_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    posterior = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    target = np.array([0, 1, 0, 1])  # accuracy 0.5 at 0.9, accuracy 1 at 0.6

    found = metrics.summarise(
        LabelledPredictions(posterior, np.zeros(4), target, np.arange(2.0), ordered=False, unit="")
    )

    assert found["ece"] == pytest.approx(0.5 * (0.9 - 0.5) + 0.5 * (1 - 0.6))


def test_a_probability_on_a_bin_edge_or_slightly_above_one_belongs_to_a_bin() -> None:
    posterior = np.array([[np.nextafter(np.float32(1), np.float32(2)), 0], [1, 0], [0.5, 0.5]], dtype=np.float32)

    found = metrics.summarise(LabelledPredictions(posterior, np.zeros(3), np.zeros(3, int), np.arange(2.0), False, ""))

    assert found["ece"] == pytest.approx(0.5 / 3, abs=1e-6)


def test_the_upper_edge_of_a_bin_belongs_to_it() -> None:
    posterior = np.array([[0.6, 0.4], [0.55, 0.45]])  # both in the bin from 8/15 to 9/15
    target = np.array([0, 1])

    found = metrics.summarise(
        LabelledPredictions(posterior, np.zeros(2), target, np.arange(2.0), ordered=False, unit="")
    )

    assert found["ece"] == pytest.approx(abs((1 - 0.6) + (0 - 0.55)) / 2)


def test_the_last_two_bins_are_different_bins() -> None:
    posterior = np.array([[0.92, 0.08], [0.99, 0.01]])
    target = np.array([0, 1])

    found = metrics.summarise(
        LabelledPredictions(posterior, np.zeros(2), target, np.arange(2.0), ordered=False, unit="")
    )

    assert found["ece"] == pytest.approx(0.5 * (1 - 0.92) + 0.5 * (0.99 - 0))


def test_labels_that_never_occur_do_not_change_means_over_labels() -> None:
    target, predicted = np.array([0, 0, 3, 3, 4]), np.array([0, 3, 3, 3, 0])
    predictions = LabelledPredictions(np.eye(10)[predicted], predicted, target, np.arange(10.0), ordered=False, unit="")

    found = metrics.summarise(predictions)

    assert found["macro_f1"] == pytest.approx(f1_score(target, predicted, average="macro"))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(target, predicted))


def test_precision_recall_and_f1_of_each_label_equal_those_of_scikit_learn() -> None:
    predictions = drawn()
    added = metrics.sums(Images(predictions), np.zeros(400, dtype=np.int64), 1)

    found = metrics.from_sums(added, metrics.rows_of(predictions))

    expected = precision_recall_fscore_support(
        predictions.target, predictions.posterior.argmax(1), labels=range(7), zero_division=np.nan
    )
    for name, numbers in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        np.testing.assert_allclose(found[name][0], numbers, rtol=1e-12)
    assert np.isnan(found["recall"][0, 3])  # never true


def test_kappa_is_zero_if_the_expected_disagreement_is_zero() -> None:
    predictions = LabelledPredictions(
        np.eye(3)[[1] * 7], np.ones(7), np.ones(7, int), np.arange(3.0), ordered=True, unit="bins"
    )

    assert metrics.summarise(predictions)["qwk"] == 0


def test_the_label_of_an_estimate_is_the_nearest_one_and_the_lower_one_of_two() -> None:
    values = np.array([20, 30, 50], dtype=np.uint8)

    found = nearest_labels(np.array([-7.0, 25.0, 25.1, 39.9, 40.0, 40.1, 90.0]), values)

    assert found.tolist() == [0, 0, 1, 1, 1, 2, 2]


def test_both_kappas_differ_if_the_estimate_and_the_most_likely_label_do() -> None:
    posterior = np.array([[0.4, 0.3, 0.3], [0.3, 0.3, 0.4], [0.3, 0.4, 0.3], [0.4, 0.3, 0.3]])
    target = np.array([0, 2, 1, 2])
    predictions = LabelledPredictions(posterior, np.array([0.1, 1.9, 1.2, 1.6]), target, np.arange(3.0), True, "bins")

    found = metrics.summarise(predictions)

    assert found["qwk"] == pytest.approx(cohen_kappa_score(target, [0, 2, 1, 0], weights="quadratic"))
    assert found["qwk_point"] == 1  # every estimate rounds to the true label


def test_unsigned_labels_and_estimates_do_not_overflow() -> None:
    target, most_probable = np.array([30, 31, 48], dtype=np.uint8), np.array([48, 31, 30], dtype=np.uint8)
    values = np.arange(14, 63, dtype=np.uint8)
    predictions = LabelledPredictions(
        np.eye(49)[most_probable], values[most_probable], target, values, ordered=True, unit="years"
    )

    found = metrics.summarise(predictions)

    assert found["mae"] == 12  # 18, 0, 18
    assert found["bias"] == 0
    assert found["median_error"] == 18
    assert found["accuracy"] == found["macro_f1"] == pytest.approx(1 / 3)
    assert found["qwk"] == pytest.approx(
        cohen_kappa_score([30, 31, 48], [48, 31, 30], weights="quadratic", labels=range(49))
    )
    assert found["balanced_mae"] == pytest.approx(
        (9 + 18) / 2
    )  # the forties, with 44 and 45 years, and the sixties, with 62


@pytest.mark.parametrize("field", ["posterior", "point"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_all_metrics_of_a_diverged_network_are_nan(field, bad) -> None:
    predictions = drawn()
    getattr(predictions, field)[7] = bad

    found = metrics.summarise(predictions)

    assert list(found) == list(metrics.summarise(drawn()))
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize(("ordered", "unit"), [(True, "years"), (True, "bins"), (False, "")])
def test_a_metric_that_gives_each_label_the_same_weight_is_the_weighted_mean_that_its_row_says(ordered, unit) -> None:
    rng = np.random.default_rng(0)
    values, target = np.arange(15.0, 45.0), rng.integers(0, 30, size=50)  # some labels have no image
    posterior = rng.dirichlet(np.ones(30), size=50)
    predictions = LabelledPredictions(posterior, posterior @ values, target, values, ordered, unit)
    rows = [row for row in metrics.rows_of(predictions) if row.weighted is not None]

    found = {}
    for row in rows:
        value, weight = (each(Images(predictions)) for each in row.weighted or ())
        found[row.name] = np.average(value, weights=weight)

    assert set(found) == {"balanced_accuracy", "macro_f1"} | ({"balanced_mae"} if ordered else set())
    assert found == pytest.approx({name: metrics.summarise(predictions)[name] for name in found}, rel=1e-12)
