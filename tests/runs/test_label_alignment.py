"""Ordered labels of a model and of data that differ, with expected values computed manually."""

import numpy as np
import pytest

from agebench.data.records import Records
from agebench.data.target import Target, make_target
from agebench.runs.label_alignment import OrderedLabels, align_labels


def ages(*years: int, target: str = "age", bins: list[float] | None = None) -> Target:
    records = Records(np.array([f"{i}.jpg" for i in range(len(years))]), {"age": np.array(years)})
    return make_target(records, target, bins=bins)


def model(low: int, high: int, unit: str = "years") -> OrderedLabels:
    return OrderedLabels(np.arange(low, high + 1, dtype=np.float64), unit)


@pytest.mark.parametrize(
    ("low", "high", "years", "names", "labels", "columns", "complete"),
    [
        (0, 3, (1, 3), "0 1 2 3", [1, 3], [0, 1, 2, 3], True),  # the model knows more
        (2, 3, (1, 4), "1 2 3 4", [0, 3], [1, 2], False),  # it knows less
        (0, 2, (1, 4), "0 1 2 3 4", [1, 4], [0, 1, 2], False),
        (8, 9, (5, 6), "5 6 7 8 9", [0, 1], [3, 4], False),  # nothing in common
    ],
)
def test_labels_in_the_same_unit_are_united(low, high, years, names, labels, columns, complete) -> None:
    found = align_labels(ages(*years), model(low, high), bins=None)

    assert found is not None
    assert " ".join(found.target.label_names) == names
    assert found.target.labels.tolist() == labels
    assert found.target.values[found.target.labels].tolist() == list(years)
    assert found.columns is not None
    assert found.columns.tolist() == columns
    assert found.complete == complete


def test_a_posterior_is_zero_for_labels_that_the_model_does_not_have() -> None:
    found = align_labels(ages(1, 4), model(2, 3), bins=None)

    assert found is not None
    assert found.spread(np.array([[0.25, 0.75]])).tolist() == [[0.0, 0.25, 0.75, 0.0]]


def test_classes_are_not_aligned() -> None:
    records = Records(np.array(["a"]), {"class": np.array([0])}, ("cat",))

    assert align_labels(make_target(records, "class"), model(0, 3), bins=None) is None


@pytest.mark.parametrize(
    ("labels", "points", "years"),
    [
        (model(0, 9), [3.5], [3.5]),
        (model(1, 5, "decades"), [2, 2.5], [24.5, 29.5]),  # 20 to 29; half way to 30 to 39
        # Under 18: 0 to 17. 18 to 29. 30 and over counts as 12 years: 30 to 41.
        (OrderedLabels(np.arange(3.0), "bins", (18, 30)), [0, 1, 1.5, 2], [8.5, 23.5, 29.5, 35.5]),
        (OrderedLabels(np.arange(2.0), "bins", (18,)), [0, 1], [8.5, 26.5]),
    ],
)
def test_an_estimate_of_a_decade_or_a_bin_is_its_middle_age(labels, points, years) -> None:
    np.testing.assert_allclose(labels.to_years(np.array(points)), years)


@pytest.mark.parametrize(
    ("target", "bins", "expected"),
    [("age", None, [17.9, 18, 29.99, 30]), ("decade", None, [1, 1, 2, 3]), ("bins", [18, 30], [0, 1, 1, 2])],
)
def test_an_age_is_in_the_decade_or_bin_between_whose_edges_it_is(target, bins, expected) -> None:
    found = align_labels(ages(10, 40, target=target, bins=bins), model(0, 50), bins=bins)

    assert found is not None
    np.testing.assert_allclose(found.convert(np.array([17.9, 18, 29.99, 30])), expected)


def test_bins_with_other_edges_are_converted_over_years() -> None:
    labels = OrderedLabels(np.arange(3.0), "bins", (18, 30))

    found = align_labels(ages(10, 40, target="bins", bins=[21, 36]), labels, bins=[21, 36])

    assert found is not None
    assert found.columns is None
    assert found.convert(np.array([0, 1, 2])).tolist() == [0, 1, 1]  # 8.5, 23.5 and 35.5 years


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (model(0, 69), (0, 69)),
        (model(1, 6, "decades"), (10, 69)),
        (OrderedLabels(np.arange(2.0), "bins", (18,)), (float("-inf"), float("inf"))),
    ],
)
def test_the_ages_of_labels_include_those_of_the_last_decade(labels, expected) -> None:
    assert labels.ages == expected
