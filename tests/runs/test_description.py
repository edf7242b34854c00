"""The results of a test: metrics with intervals over identities, and the tables of the target's unit."""

import csv
import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest

from agebench.data.plan import Plan
from agebench.data.records import Records
from agebench.data.split import Split
from agebench.data.target import make_target
from agebench.files import write_json
from agebench.metrics.predictions import Predictions
from agebench.runs.description import (
    DataDescription,
    describe_test,
    identities_of,
    is_doubtful,
    no_better_than_guessing,
    unknown_people,
)
from agebench.runs.tables import write_breakdown, write_split

PEOPLE = np.array(["a", "a", "b", "b", "c", "c"])


def make_predictions(
    *, unit: str = "years", people: np.ndarray | None = PEOPLE, loss: float = 3.5, weights: tuple[int, ...] = (1,) * 6
) -> tuple[SimpleNamespace, Predictions]:
    """Return data and predictions for rows 1 to 6 of the test part; a trainer limit left out row 0.

    The test part begins at the third image of the data.
    """
    identity = {} if people is None else {"identity": np.concatenate([["x", "y", "z"], people])}
    data = SimpleNamespace(
        records=SimpleNamespace(columns=identity),
        split=SimpleNamespace(test=np.arange(2, 9), train=np.array([0, 1])),
        target=SimpleNamespace(
            label_names=("20", "21", "22"),
            labels=np.array([0, 0, 0, 0, 1, 2, 0, 1, 2]),
            values=np.array([20.0, 21.0, 22.0]),
            ordered=bool(unit),
        ),
    )
    target = np.array([0, 1, 2, 0, 1, 2])
    predictions = Predictions(
        posterior=np.eye(3)[[0, 1, 2, 0, 0, 0]],
        point=np.array([20.0, 21.0, 22.0, 20.0, 20.0, 20.0]),
        target=target,
        values=np.array([20.0, 21.0, 22.0]),
        ordered=bool(unit),
        unit=unit,
        rows=np.arange(1, 7),
        losses=np.arange(1.0, 7.0),
        weights=np.array(weights, dtype=np.float64),
        metrics={"test/loss": loss, "test/accuracy": 4 / 6},
    )
    return data, predictions


def test_intervals_are_over_identities_if_they_are_known() -> None:
    over_people, over_images = (describe_test(*make_predictions(people=people))[0] for people in (PEOPLE, None))

    assert over_people["bootstrap"] == {
        "over": "identity",
        "groups": 3,
        "resamples": 10_000,
        "seed": 0,
        "method": "expanded percentile",
    }
    assert over_images["bootstrap"] == {
        "over": "image",
        "groups": 6,
        "resamples": 10_000,
        "seed": 0,
        "method": "expanded percentile",
    }
    assert over_people["intervals"]["test/accuracy"] == pytest.approx([0, 1])  # c, c, c has probability 1/27
    assert over_people["intervals"]["test/loss"] == pytest.approx([1.5, 5.5])  # a, a, a and c, c, c


def test_the_identities_of_val_are_those_of_its_images() -> None:
    plan = SimpleNamespace(
        records=SimpleNamespace(columns={"identity": np.array(list("abcdef"))}),
        split=Split("mine", np.array([0, 1]), np.array([4, 3, 2]), np.array([5])),
    )

    found = identities_of(plan, SimpleNamespace(rows=np.array([0, 2])), part="val")

    assert found.tolist() == ["e", "c"]


def test_a_weighted_loss_has_the_interval_of_the_weighted_mean() -> None:
    found, _ = describe_test(*make_predictions(loss=35 / 11, weights=(3, 1, 3, 1, 1, 2)))

    # a: (3 * 1 + 1 * 2) / 4; c: (1 * 5 + 2 * 6) / 3.
    assert found["intervals"]["test/loss"] == pytest.approx([5 / 4, 17 / 3])


def test_a_loss_that_is_not_a_mean_over_images_has_no_interval() -> None:
    found, _ = describe_test(*make_predictions(loss=3.4))

    assert found["metrics"]["test/loss"] == 3.4
    assert set(found["intervals"]) == {"test/accuracy"}


@pytest.mark.parametrize(
    ("unit", "files"),
    [
        ("", {"per_class.csv"}),
        ("bins", {"per_class.csv"}),
        ("decades", {"per_class.csv", "error_by_decade.csv"}),
        ("years", {"per_class.csv", "error_by_decade.csv", "cs_curve.csv"}),
    ],
)
def test_each_unit_has_its_tables(tmp_path, unit, files) -> None:
    data, predictions = make_predictions(unit=unit)

    write_breakdown(tmp_path, data, predictions, bounds=describe_test(data, predictions)[1])

    assert {path.name for path in tmp_path.iterdir()} == files
    with (tmp_path / "per_class.csv").open(newline="", encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["label"], row["images"], row["predicted"], row["precision"], row["recall"]) for row in rows] == [
        ("20", "2", "4", "0.5", "1"),
        ("21", "2", "1", "1", "0.5"),
        ("22", "2", "1", "1", "0.5"),
    ]


def test_a_diverged_network_has_null_intervals_and_no_tables(tmp_path) -> None:
    data, predictions = make_predictions(loss=float("nan"))
    predictions.posterior[:] = np.nan
    predictions.losses[:] = np.nan

    found, bounds = describe_test(data, predictions)
    write_breakdown(tmp_path, data, predictions, bounds=bounds)
    write_json(tmp_path / "results.json", found)

    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert json.loads((tmp_path / "results.json").read_text())["intervals"] == {
        "test/loss": [None, None],
        "test/accuracy": [None, None],
    }


def test_facts_describe_only_the_tested_images() -> None:
    records = Records(
        np.array(list("abcdef")), {"class": np.zeros(6, int), "identity": np.array(list("ppqpqr"))}, ("x",)
    )
    split = Split("mine", np.array([0, 1]), np.array([2]), np.array([3, 4, 5]))
    plan = Plan("d", "d/mine/class", records, np.arange(6), records, make_target(records, "class"), split, np.array([]))

    facts = DataDescription.of(plan).limited_to(SimpleNamespace(rows=np.array([0, 2]))).facts

    assert facts["split_sha"] == hashlib.sha256(b"d\nf").hexdigest()[:16]
    assert facts["data"] == {"train": 2, "val": 1, "test": 2, "val_is_test": False, "missing": 0, "broken": 0}
    assert facts["leak"]["test_identity_in_train"] == 0.5  # d shows p, f shows r
    assert facts["leak_checked"] is True


def test_no_leak_and_an_unknown_one_are_not_the_same() -> None:
    split, rows = Split("mine", np.array([0]), np.array([1]), np.array([2])), np.arange(3)
    found = []
    for people in (["p", "q", "r"], ["", "", ""]):
        records = Records(np.array(list("abc")), {"class": np.zeros(3, int), "identity": np.array(people)}, ("x",))
        plan = Plan("d", "d/mine/class", records, rows, records, make_target(records, "class"), split, np.array([]))
        facts = DataDescription.of(plan).facts
        found.append((facts["leak"], facts["leak_checked"]))

    assert found == [(None, True), (None, False)]


@pytest.mark.parametrize(
    ("results", "is_unknown"),
    [
        ({"protocol": "faces/random/age", "leak_checked": False}, True),
        ({"protocol": "faces/random/decade", "leak_checked": False}, True),
        ({"protocol": "faces/random/age", "bootstrap": {"over": "image"}}, True),  # of an older version
        ({"protocol": "faces/random/age", "bootstrap": {"over": "identity"}}, False),
        ({"protocol": "faces/random/age", "leak_checked": True, "bootstrap": {"over": "identity"}}, False),
        ({"protocol": "digits/random/label", "leak_checked": False, "bootstrap": {"over": "image"}}, False),
    ],
)
def test_a_test_of_ages_without_identities_says_that_people_are_unknown(results, is_unknown) -> None:
    sentence = "the identities of the people are unknown, so the same person may be in train and test"

    assert unknown_people(results) == (sentence if is_unknown else "")


@pytest.mark.parametrize("known", [True, False])
def test_split_csv_has_one_row_per_image_of_each_part(tmp_path, known) -> None:
    rows = {"train": np.array([1, 3]), "val": np.array([0]), "test": np.array([2])}
    data = SimpleNamespace(
        records=SimpleNamespace(
            names=np.array(["a.jpg", "b,c.jpg", "d.jpg", "é.jpg"]),
            columns={"identity": np.array([5, 7, 5, 9])} if known else {},
        ),
        split=SimpleNamespace(part=rows.__getitem__),
        target=SimpleNamespace(labels=np.array([0, 1, 1, 0]), label_names=("10s", "20s")),
        missing=np.array([]),
        broken={},
    )

    write_split(tmp_path, data)

    with (tmp_path / "split.csv").open(newline="", encoding="utf-8-sig") as lines:
        written = list(csv.reader(lines))
    identity = (lambda number: number) if known else (lambda _: "")
    assert written == [
        ["name", "part", "identity", "target"],
        ["b,c.jpg", "train", identity("7"), "20s"],
        ["é.jpg", "train", identity("9"), "10s"],
        ["a.jpg", "val", identity("5"), "10s"],
        ["d.jpg", "test", identity("5"), "20s"],
    ]


@pytest.mark.parametrize(
    ("baseline", "metrics", "sentence"),
    [
        ((10.45, 0.1), {"test/mae": 20.3}, "test/mae is 20.3, no better than the 10.45 of always answering the median"),
        ((10.45, 0.1), {"test/mae": 10.45}, "test/mae is 10.45, no better"),
        ((10.45, 0.1), {"test/mae": 10.44}, ""),
        ((10.45, 0.1), {"test/mae": 9.0, "test/accuracy": 0.05}, ""),
        ((None, 0.25), {"test/accuracy": 0.25}, "test/accuracy is 0.25, no better than the 0.25 of always answering"),
        ((None, 0.25), {"test/accuracy": 0.26}, ""),
        ((10.45, 0.1), {"test/mae": None}, ""),
        ((None, None), {"test/accuracy": 0.26}, ""),
    ],
)
def test_a_run_that_is_no_better_than_one_answer_for_all_images_says_so(baseline, metrics, sentence) -> None:
    names = ("median_mae", "majority_accuracy")

    found = no_better_than_guessing({"baseline": dict(zip(names, baseline, strict=True)), "metrics": metrics})

    assert found.startswith(sentence)
    assert bool(found) == bool(sentence)


@pytest.mark.parametrize(("unit", "value", "interval"), [("years", -3 / 6, [-1, 0]), ("", 2 / 6, [0, 0.5])])
def test_the_difference_from_one_answer_for_all_images_is_paired(unit, value, interval) -> None:
    data, predictions = make_predictions(unit=unit)

    found = describe_test(data, predictions)[0]["baseline_difference"]

    # Train has the label 20 twice. Only images 1 and 2, of a and b, get another answer than 20, and it is the truth.
    # Errors less |20 - truth|: a (0, -1), b (-2, 0), c (0, 0), so -3 / 6; right less right: (0, 1), (1, 0), (0, 0).
    # The interval reaches from b, b, b to c, c, c, or from c, c, c to a and b alone.
    assert found["value"] == pytest.approx(value)
    assert found["interval"] == pytest.approx(interval)


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({"baseline_difference": {"interval": [-1.2, 0.3]}}, True),
        ({"baseline_difference": {"interval": [-1.2, -0.1]}}, False),
        # The paired interval counts, not that of the metric.
        ({"baseline_difference": {"interval": [-1.2, -0.1]}, "intervals": {"test/mae": [9.3, 16.6]}}, False),
        ({"intervals": {"test/mae": [9.3, 16.6]}}, True),
        ({"intervals": {"test/mae": [9.3, 13.0]}}, False),
        ({"intervals": {"test/mae": [None, None]}}, False),
        ({}, False),
    ],
)
def test_a_result_that_chance_can_explain_is_not_shown_to_be_better_than_the_median(results, expected) -> None:
    names = {"baseline": {"median_mae": 13.29, "majority_accuracy": 0.1}, "metrics": {"test/mae": 12.97}}

    assert is_doubtful(results, "test/mae", 13.29) == expected
    said = no_better_than_guessing(results | names)
    sentence = "test/mae is 12.97, not shown to be better than the 13.29 of always answering the median"
    assert said.startswith(sentence) == bool(said) == expected


@pytest.mark.parametrize(
    ("losses", "advice"),
    [
        (
            [2.71, 2.49, 2.46, 2.49],
            "the training loss does not fall steadily: lower optim.lr (lr_find=true finds one)",
        ),  # sgd, 10
        ([2.31, 2.38], "the training loss does not fall steadily: lower optim.lr"),
        ([-1.0, 3.0, 3.0], "the training loss does not fall steadily: lower optim.lr"),
        ([2.31, 2.30, 2.25], "train for more epochs"),
        ([2.303, 2.301, 2.302], "train for more epochs (trainer.max_epochs), or try another optim.lr (lr_find=true"),
        ([2.3], "train for more epochs"),
        ([], "train for more epochs"),
    ],
)
def test_a_loss_that_goes_up_and_down_asks_for_a_lower_rate(losses, advice) -> None:
    results = {"baseline": {"median_mae": None, "majority_accuracy": 0.1}, "metrics": {"test/accuracy": 0.1}}

    sentence = no_better_than_guessing(results, losses)

    assert f"always answering the most common train label: {advice}" in sentence
