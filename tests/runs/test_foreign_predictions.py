"""Predictions of other programs: reading a CSV file, matching it to a test list, and what bad files get."""

import csv
from pathlib import Path

import numpy as np
import pytest

from agebench.data.plan import Plan
from agebench.data.records import Records
from agebench.data.split import Split
from agebench.data.target import make_target
from agebench.errors import UserError
from agebench.metrics.predictions import Predictions
from agebench.runs.foreign_predictions import predictions_of
from agebench.runs.foreign_sheet import match_sheet, read_sheet

AGES = (20, 22, 21, 30, 20, 22)  # of train (3 images), val (1) and test (2)
NAMES = ("a/0.jpg", "a/1.jpg", "b/1.jpg", "b/3.jpg", "b/4.jpg", "b/é.jpg")


def make_plan(target: str = "age") -> Plan:
    columns = {"age": np.array(AGES), "class": np.array([0, 1, 2, 0, 1, 2])}
    records = Records(np.array(NAMES), columns, ("cat", "cow", "dog"))
    split = Split("mine", np.array([0, 1, 2]), np.array([3]), np.array([5, 4]))
    labels = make_target(records, target, bins=[21] if target == "bins" else None)
    return Plan("pets", f"pets/mine/{target}", records, np.arange(6), records, labels, split, np.array([]))


@pytest.fixture
def write(tmp_path):
    """Return a function that writes the rows of a file of predictions."""

    def make(*rows: list[object], encoding: str = "utf-8", name: str = "theirs.csv") -> Path:
        with (tmp_path / name).open("w", newline="", encoding=encoding) as file:
            csv.writer(file).writerows(rows)
        return tmp_path / name

    return make


def predict(file: Path, target: str = "age") -> tuple[Plan, Predictions]:
    sheet, plan = read_sheet(file), make_plan(target)
    return predictions_of(sheet, match_sheet(sheet, plan), plan, settings={})[:2]


P_AGES = [f"p({age})" for age in range(20, 31)]
CERTAIN = [1, *[0] * 10]
BAD = {
    "no column name": ([["photo", "point"], ["4.jpg", 20]], "age", "has no column name, only photo, point"),
    "no prediction": ([["name", "age"], ["4.jpg", 20]], "age", "has no column point and no columns p"),
    "empty file": ([], "age", "is empty"),
    "no rows": ([["name", "point"]], "age", "has a header but no rows"),
    "NaN": ([["name", "point"], ["4.jpg", "nan"]], "age", "the prediction for 4.jpg is 'nan', which is not a number"),
    "infinity": ([["name", "point"], ["4.jpg", "inf"]], "age", "is 'inf', which is not a number"),
    "empty cell": ([["name", "point"], ["4.jpg", ""]], "age", "is '', which is not a number"),
    "text": ([["name", "point"], ["4.jpg", "adult"]], "age", "is 'adult', which is not a number"),
    "decimal comma": ([["name", "point"], ["4.jpg", "20,5"]], "age", "is '20,5', which is not a number"),
    "only unknown images": ([["name", "point"], ["z.jpg", 20]], "age", "it lists z.jpg, the test part has b/é.jpg"),
    "only train images": ([["name", "point"], ["a/0.jpg", 20]], "age", "(1 rows are images of train or val)"),
    "every image doubled": ([["name", "point"], ["4.jpg", 20], ["4.jpg", 21]], "age", "several times with different"),
    "too few p columns": (
        [["name", "p(cat)", "p(cow)"], ["4.jpg", 0.5, 0.5]],
        "class",
        "has 2 columns p(LABEL), and the data has 3 labels: it lacks p(dog)",
    ),
    "an unknown label": (
        [["name", "p(cat)", "p(cow)", "p(dog)", "p(pig)"], ["4.jpg", 1, 0, 0, 0]],
        "class",
        "has 4 columns p(LABEL), and the data has 3 labels: p(pig) are unknown",
    ),
    "an unknown class": ([["name", "point"], ["4.jpg", "pig"]], "class", "is 'pig', which is not a label of the data"),
    "a gap in the ages": ([["name", "p(20)", "p(22)"], ["4.jpg", 1, 0]], "age", "no column for the label before p(22)"),
    "other bins": ([["name", "p(<18)", "p(18+)"], ["4.jpg", 1, 0]], "bins", "it lacks p(<21), p(21+)"),
    "years for decades": (
        [["name", "point"], ["4.jpg", 24]],
        "decade",
        "has values from 2 to 3: for predictions in years",
    ),
    "years for bins": ([["name", "point"], ["4.jpg", 24]], "bins", "for predictions in years set data.target=age"),
    "ages for decades": ([["name", "p(20)", "p(21)"], ["4.jpg", 1, 0]], "decade", "ages in years set data.target=age"),
    "a column twice": ([["name", "p(20)", "p(20)"], ["4.jpg", 1, 0]], "age", "has the column p(20) twice"),
    "percent": ([["name", *P_AGES], ["4.jpg", *(100 * p for p in CERTAIN)]], "age", "sum to 100"),
    "a sum of 0.9": ([["name", *P_AGES], ["4.jpg", 0.9, *[0] * 10]], "age", "of 4.jpg sum to 0.9"),
    "a negative probability": ([["name", *P_AGES], ["4.jpg", 1.5, -0.5, *[0] * 9]], "age", "the lowest is -0.5"),
    "a probability missing": ([["name", *P_AGES], ["4.jpg", 1, "", *[0] * 9]], "age", "is '', which is not a number"),
    "only empty probabilities": ([["name", *P_AGES], ["4.jpg", *[""] * 11]], "age", "has no prediction"),
    "a short row": ([["name", "point", "x"], ["4.jpg", 20]], "age", "row 1 below the header has 2 cells, the header 3"),
    "a long row": ([["name", "point"], ["4.jpg", 20, 1]], "age", "row 1 below the header has 3 cells, the header 2"),
    "a huge cell": (
        [["name", "point"], ["4.jpg", "9" * 200_000]],
        "age",
        "as a CSV file (field larger than field limit",
    ),
}


@pytest.mark.parametrize(("rows", "target", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_in_one_sentence(write, rows, target, message) -> None:
    with pytest.raises(UserError) as raised:
        predict(write(*rows), target)

    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "as a CSV file (it is not text"), (b'{"4.jpg": 20}', "has no column name")],
)
def test_a_file_that_is_no_csv_is_refused(tmp_path, content, message) -> None:
    (tmp_path / "theirs.csv").write_bytes(content)

    with pytest.raises(UserError) as raised:
        read_sheet(tmp_path / "theirs.csv")

    assert message in str(raised.value)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"no file .*theirs\.csv: predictions=FILE must be"):
        read_sheet(tmp_path / "theirs.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp932"])
def test_any_usual_encoding_is_read(write, encoding) -> None:
    file = write(["memo", "name", "point"], ["メモ", "4.jpg", 25], encoding=encoding)

    _, found = predict(file)

    assert found.point.tolist() == [25.0]


def test_rows_are_matched_by_name_or_by_a_unique_file_name_in_the_order_of_the_test_list(write) -> None:
    decomposed = "b/e\u0301.jpg"  # as macOS writes é
    sheet = read_sheet(
        write(["File", "Prediction"], ["C:\\x\\4.jpg", 1], [decomposed, 2], ["1.jpg", 3], ["a/0.jpg", 4])
    )

    found = match_sheet(sheet, make_plan())

    assert found.rows.tolist() == [0, 1]  # é, 4
    assert found.lines.tolist() == [1, 0]
    assert found.unknown == ["1.jpg"]  # two images have this file name
    assert found.elsewhere == 1
    assert found.missing == []


def test_missing_and_doubled_images_are_listed_and_only_equal_rows_count(write) -> None:
    equal = read_sheet(write(["name", "point"], ["4.jpg", 20], ["4.jpg", 20]))
    differing = read_sheet(write(["name", "point"], ["4.jpg", 20], ["4.jpg", 21], ["b/é.jpg", 22]))

    first, second = (match_sheet(sheet, make_plan()) for sheet in (equal, differing))

    assert (first.rows.tolist(), first.missing, first.doubled) == ([1], ["b/é.jpg"], ["b/4.jpg"])
    assert (second.rows.tolist(), second.missing, second.doubled) == ([0], [], ["b/4.jpg"])


def test_points_alone_have_only_the_metrics_of_points(write) -> None:
    _, found = predict(write(["name", "point"], ["4.jpg", 24], ["b/é.jpg", 21.5]))  # true ages 20 and 22

    assert found.metrics["test/mae"] == (4 + 0.5) / 2
    assert found.metrics["test/bias"] == (4 - 0.5) / 2
    assert found.metrics["test/rmse"] == np.sqrt((16 + 0.25) / 2)
    assert found.metrics["test/median_error"] == 2.25
    assert (found.metrics["test/cs3"], found.metrics["test/cs4"]) == (0.5, 1.0)
    assert {"test/accuracy", "test/nll", "test/ece", "test/qwk", "test/top5"} & found.metrics.keys() == set()


def test_class_names_alone_have_the_metrics_of_labels(write) -> None:
    _, found = predict(write(["name", "point"], ["4.jpg", "cow"], ["b/é.jpg", "cat"]), "class")  # true: cow, dog

    assert found.metrics["test/accuracy"] == 0.5
    assert found.metrics["test/balanced_accuracy"] == 0.5
    assert {"test/nll", "test/ece"} & found.metrics.keys() == set()


def test_the_columns_of_labels_may_be_in_any_order(write) -> None:
    _, found = predict(write(["name", "p(dog)", "p(cat)", "p(cow)"], ["4.jpg", 0.2, 0.7, 0.1]), "class")

    np.testing.assert_array_equal(found.posterior, np.array([[0.7, 0.1, 0.2]], dtype=np.float32))
    assert found.point.tolist() == [0]  # cat


def test_columns_of_more_ages_than_the_data_has_may_be_in_any_order(write) -> None:
    ages = range(31, 18, -1)
    likely = {20: 0.75, 31: 0.25}

    plan, found = predict(write(["name", *(f"p({age})" for age in ages)], ["4.jpg", *(likely.get(a, 0) for a in ages)]))

    assert plan.target.label_names == tuple(str(age) for age in range(19, 32))
    np.testing.assert_array_equal(found.posterior[0], [likely.get(age, 0) for age in range(19, 32)])
    assert found.metrics["test/nll"] == pytest.approx(-np.log(0.75))
    assert found.metrics["test/mae"] == 0.25 * 11


def test_a_posterior_without_a_point_is_estimated_by_its_mean(write) -> None:
    _, found = predict(write(["name", *P_AGES], ["4.jpg", 0.5, 0, 0, 0, 0.5, *[0] * 6]))

    assert found.point.tolist() == [22.0]
    assert found.metrics["test/nll"] == pytest.approx(np.log(2))


def test_a_posterior_over_more_ages_than_the_data_has_keeps_every_metric(write) -> None:
    ages = range(101)
    plan, found = predict(
        write(["name", *(f"p({a})" for a in ages)], ["4.jpg", *(float(a in (20, 90)) / 2 for a in ages)])
    )

    assert plan.target.label_names == tuple(map(str, ages))
    assert found.metrics["test/nll"] == pytest.approx(np.log(2))
    assert found.metrics["test/mae"] == 35


def test_a_posterior_over_fewer_ages_than_the_data_has_keeps_the_metrics_of_points(write) -> None:
    plan, found = predict(write(["name", "p(10)", "p(11)"], ["4.jpg", 0.5, 0.5]))

    assert plan.target.label_names == tuple(map(str, range(10, 31)))
    assert found.metrics["test/mae"] == 9.5
    assert "test/nll" not in found.metrics
    assert found.posterior[0, :3].tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("20.1", float(np.float32(20.1))),
        ("20.10000038", 20.10000038),
        ("0.000123456789", float(np.float32(0.000123456789))),
    ],
)
def test_numbers_of_up_to_nine_digits_are_read_as_float32(write, cell, expected) -> None:
    _, found = predict(write(["name", "point"], ["4.jpg", cell]))

    assert float(found.point[0]) == expected
