"""The table of metrics: its rows, which values are better, monitors and paired comparisons."""

from dataclasses import replace

import numpy as np
import pytest

from agebench.errors import UserError
from agebench.metrics.bootstrap import intervals
from agebench.metrics.compute import summarise
from agebench.metrics.predictions import Calibrated, LabelledPredictions
from agebench.metrics.table import METRICS, find, headline, live_keys, main_metric, monitor_keys, monitor_mode

# Independent of the table.
SIZES = ("range_width", "range_width_uncalibrated", "set_size", "set_size_uncalibrated")
LOWER = (
    "loss",
    "nll",
    "ece",
    "mae",
    "rmse",
    "median_error",
    "balanced_mae",
    "nll_calibrated",
    "ece_calibrated",
    *SIZES,
)
SHARES = (
    "accuracy",
    "top5",
    "balanced_accuracy",
    "macro_f1",
    *(f"cs{years}" for years in range(11)),
    "within_1",
    "qwk",
    "qwk_point",
    "coverage",
    "coverage_uncalibrated",
)
CALIBRATED = {"nll_calibrated", "ece_calibrated", "coverage", "coverage_uncalibrated", *SIZES}
TARGETS = {"years": (True, "years"), "decades": (True, "decades"), "bins": (True, "bins"), "classes": (False, "")}


def drawn(kind: str, labels: int = 7) -> LabelledPredictions:
    """Return random predictions for 120 images."""
    ordered, unit = TARGETS[kind]
    rng = np.random.default_rng(0)
    posterior = rng.dirichlet(np.ones(labels), size=120)
    values = np.arange(18.0, 18 + labels)
    return LabelledPredictions(posterior, posterior @ values, rng.integers(0, labels, size=120), values, ordered, unit)


def test_the_table_has_each_metric_once() -> None:
    assert sorted(metric.name for metric in METRICS) == sorted((*LOWER, *SHARES, "bias"))


@pytest.mark.parametrize(
    ("kind", "labels", "absent"),
    [
        ("years", 7, {"within_1"}),
        ("decades", 7, {f"cs{years}" for years in range(11)}),
        ("bins", 5, {"top5", *(f"cs{years}" for years in range(11))}),
        (
            "classes",
            6,
            {
                *("mae", "rmse", "median_error", "bias", "balanced_mae", "qwk", "qwk_point", "within_1"),
                *(f"cs{k}" for k in range(11)),
            },
        ),
    ],
)
def test_every_metric_of_a_target_is_computed_with_an_interval(kind, labels, absent) -> None:
    predictions = drawn(kind, labels)

    found, bounds = summarise(predictions), intervals(predictions, resamples=50)

    # The head computes the loss.
    assert set(found) == {metric.name for metric in METRICS} - absent - {"loss"} - CALIBRATED
    assert all(np.isfinite(value) for value in found.values())
    assert all(np.isfinite(bounds[name]).all() for name in found)


@pytest.mark.parametrize(("kind", "absent"), [("years", "set_size"), ("bins", "set_size"), ("classes", "range_width")])
def test_calibrated_predictions_have_further_metrics_with_intervals(kind, absent) -> None:
    plain = drawn(kind)
    sets = np.random.default_rng(1).random((2, 120, 7)) < 0.5
    sets[:, :, 3] = True
    calibrated = replace(plain, calibrated=Calibrated(plain.posterior**2, *sets))

    found, bounds = summarise(calibrated), intervals(calibrated, resamples=50)

    assert set(found) - set(summarise(plain)) == CALIBRATED - {absent, f"{absent}_uncalibrated"}
    assert {name: found[name] for name in summarise(plain)} == summarise(plain)
    assert all(np.isfinite(bounds[name]).all() for name in found)
    rows = range(120)
    for suffix, each in (("", sets[0]), ("_uncalibrated", sets[1])):
        assert found[f"coverage{suffix}"] == pytest.approx(np.mean([each[i, plain.target[i]] for i in rows]))
        if kind == "classes":
            assert found[f"set_size{suffix}"] == pytest.approx(np.mean([sum(each[i]) for i in rows]))
        else:
            widths = [max(plain.values[each[i]]) - min(plain.values[each[i]]) for i in rows]
            assert found[f"range_width{suffix}"] == pytest.approx(np.mean(widths))
    assert found["nll_calibrated"] == pytest.approx(2 * found["nll"])
    squared = replace(plain, posterior=plain.posterior**2)
    assert found["ece_calibrated"] == summarise(squared)["ece"]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_row_except_the_loss_has_exactly_one_function(metric) -> None:
    functions = [metric.per_image, metric.of_sums, metric.of_images]

    assert sum(function is not None for function in functions) == (metric.name != "loss")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_only_metrics_of_ordered_labels_are_in_the_unit_balanced_or_from_the_point(metric) -> None:
    special = metric.in_unit or metric.balanced or metric.from_point

    assert not special or metric.targets not in ("all", "classes")


@pytest.mark.parametrize("kind", ["years", "decades"])
@pytest.mark.parametrize("unknown", [{"has_posterior": False}, {"same_labels": False}])
def test_the_metrics_without_a_posterior_are_those_from_the_point_with_the_same_values(kind, unknown) -> None:
    known = drawn(kind)
    uniform = replace(known, posterior=np.full_like(known.posterior, 1 / 7), **unknown)

    found, expected = summarise(uniform), summarise(known)

    assert found == {
        metric.name: expected[metric.name] for metric in METRICS if metric.from_point and metric.name in expected
    }
    assert {"mae", "rmse", "median_error", "bias", "qwk_point", "balanced_mae"} <= found.keys()


def test_the_metrics_of_classes_without_a_posterior_are_those_of_the_labels_with_the_same_values() -> None:
    known = drawn("classes")
    certain = np.eye(7)[known.posterior.argmax(1)]

    found, expected = summarise(replace(known, posterior=certain, has_posterior=False)), summarise(known)

    assert found == {name: expected[name] for name in ("accuracy", "balanced_accuracy", "macro_f1")}


@pytest.mark.parametrize("name", LOWER)
@pytest.mark.parametrize("prefix", ["", "test/"])
def test_lower_values_of_a_loss_or_an_error_are_better(prefix, name) -> None:
    assert find(f"{prefix}{name}").cost(0.25) < find(f"{prefix}{name}").cost(0.5)
    assert monitor_mode(f"val/{name}") == (f"val/{name}", "min")


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("prefix", ["", "test/"])
def test_higher_values_of_a_share_or_an_agreement_are_better(prefix, name) -> None:
    assert find(f"{prefix}{name}").cost(0.5) < find(f"{prefix}{name}").cost(0.25)
    assert monitor_mode(f"val/{name}") == (f"val/{name}", "max")


@pytest.mark.parametrize(("better", "worse"), [(-0.1, 0.2), (0.1, -0.2), (0, -1), (0, 1)])
def test_the_bias_nearest_to_zero_is_best(better, worse) -> None:
    assert find("test/bias").cost(better) < find("test/bias").cost(worse)


def test_biases_of_opposite_sign_are_equally_good() -> None:
    assert find("test/bias").cost(-0.5) == find("test/bias").cost(0.5)


@pytest.mark.parametrize("key", ["val/bias", "val/abs_bias"])
def test_the_monitor_of_a_bias_is_its_absolute_value(key) -> None:
    assert monitor_mode(key) == ("val/abs_bias", "min")


def test_an_unknown_monitor_raises_an_error_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"monitor=val/acuracy is not a metric \(did you mean 'accuracy'\?\)"):
        monitor_mode("val/acuracy")


def test_higher_values_of_an_unknown_metric_are_better() -> None:
    found = find("test/their_score")

    assert (found.name, found.known, found.can_pair) == ("their_score", False, False)
    assert found.cost(0.5) < found.cost(0.25)


def test_metrics_that_are_means_over_images_can_be_paired_except_for_the_bias() -> None:
    paired = {"accuracy", "top5", "nll", "mae", "within_1", *(f"cs{years}" for years in range(11))}

    assert {metric.name for metric in METRICS if metric.can_pair} == paired


@pytest.mark.parametrize(
    ("name", "unit", "images", "digits"),
    [
        ("mae", "years", 9_000, 2),
        ("balanced_mae", "years", 100, 2),
        ("mae", "decades", 9_000, 3),
        ("bias", "bins", 100, 3),
        ("accuracy", "years", 2_000, 4),
        ("accuracy", "", 1_999, 3),
        ("nll", "", 9_000, 3),
        ("loss", "years", 9_000, 3),
        ("ece", "", 9_000, 4),
    ],
)
def test_the_number_of_decimals_depends_on_the_metric_the_unit_and_the_test_size(name, unit, images, digits) -> None:
    assert find(name).decimals(unit=unit, images=images) == digits


@pytest.mark.parametrize(
    ("ordered", "unit", "few"),
    [
        (False, "", ["loss", "accuracy", "macro_f1", "nll"]),
        (True, "years", ["loss", "accuracy", "macro_f1", "nll", "mae", "bias", "cs5", "qwk"]),
        (True, "bins", ["loss", "accuracy", "macro_f1", "nll", "mae", "bias", "within_1", "qwk"]),
    ],
)
def test_only_headline_metrics_are_logged_at_every_epoch(ordered, unit, few) -> None:
    assert headline(ordered=ordered, unit=unit) == few
    absolute = ["val/abs_bias"] if ordered else []
    logged = ["train/loss", "train/accuracy", *(f"val/{name}" for name in few)]
    assert monitor_keys(ordered=ordered, unit=unit) == logged + absolute


def test_loss_accuracy_and_mae_are_shown_during_training() -> None:
    assert live_keys() == ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/mae"]


def test_the_main_metric_is_mae_for_ages_in_years_and_else_accuracy() -> None:
    assert [main_metric(unit) for unit in ("years", "decades", "bins", "")] == ["mae", *["accuracy"] * 3]
