"""Images and identities seen in training, counted manually for a few images."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agebench.data.records import Records
from agebench.data.split import Split
from agebench.data.target import make_target
from agebench.errors import UserError
from agebench.leakage import seen_in_training as leaks

TRAINED = {
    "name": np.array(["1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]),
    "part": np.array(["train", "train", "train", "val", "test"]),
    "identity": np.array(["ann", "ann", "bo", "cy", "di"]),
    "target": np.array(["20", "24", "30", "40", "50"]),
}


def data_of(names: list[str], people: list[str] | None, ages: list[int]) -> Any:
    """Return data with the given test images, one train image of age 20 and one val image of age 50."""
    columns: dict[str, Any] = {"age": np.array([20, 50, *ages])}
    if people is not None:
        columns["identity"] = np.array(["x", "y", *people])
    records = Records(np.array(["x.jpg", "y.jpg", *names]), columns)
    split = Split("mine", np.array([0]), np.array([1]), np.arange(2, 2 + len(names)))
    return SimpleNamespace(records=records, split=split, target=make_target(records, "age"))


def test_people_of_train_raise_with_their_number() -> None:
    data = data_of(["6.jpg", "7.jpg", "8.jpg", "9.jpg"], ["ann", "ann", "bo", "ed"], [20, 26, 33, 40])

    with pytest.raises(UserError, match=r"3 of the 4 test images show people \(2 of them\) that the model was trained"):
        leaks.check_people(TRAINED, data, same_data=True, allow=False)


def test_with_allow_the_lookup_uses_the_runs_own_train_part(caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(["6.jpg", "7.jpg", "8.jpg", "9.jpg"], ["ann", "ann", "bo", "ed"], [20, 26, 33, 40])

    with caplog.at_level(logging.WARNING):
        found = leaks.check_people(TRAINED, data, same_data=True, allow=True)

    assert found is not None
    assert (found["images"], found["identities"]) == (3, 2)
    # The median is 22 for ann, 30 for bo, and 24 for all of train, which is the prediction for ed.
    assert found["lookup_mae"] == pytest.approx((2 + 4 + 3 + 16) / 4)
    assert found["median_mae"] == pytest.approx((4 + 2 + 9 + 16) / 4)
    assert found["test_identity_in_train"] == 0.75
    assert found["test_identity_and_label_in_train"] == 0.25
    assert "3 of the 4 test images show people (2 of them)" in caplog.text


def test_people_of_val_cause_only_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(["6.jpg", "7.jpg"], ["cy", "di"], [40, 50])

    with caplog.at_level(logging.WARNING):
        found = leaks.check_people(TRAINED, data, same_data=True, allow=False)

    assert found is None
    assert "1 of the 2 test images" in caplog.text
    assert "the val part that selected the run's epoch" in caplog.text


def test_people_of_both_train_and_val_are_counted_for_train_only(caplog: pytest.LogCaptureFixture) -> None:
    trained = {**TRAINED, "identity": np.array(["ann", "ann", "bo", "ann", "di"])}

    with caplog.at_level(logging.WARNING):
        found = leaks.check_people(trained, data_of(["6.jpg"], ["ann"], [20]), same_data=True, allow=True)

    assert found is not None
    assert found["images"] == 1
    assert "the val part" not in caplog.text


def test_people_outside_train_and_val_cause_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(["6.jpg", "7.jpg"], ["di", ""], [40, 50])
    trained = {**TRAINED, "identity": np.array(["ann", "", "bo", "cy", "di"])}

    with caplog.at_level(logging.WARNING):
        found = leaks.check_people(trained, data, same_data=True, allow=False)

    assert found is None
    assert not caplog.text


@pytest.mark.parametrize("people", [None, ["ed", "flo"]])
def test_images_of_train_raise_with_any_identity(people: list[str] | None) -> None:
    data = data_of(["2.jpg", "7.jpg"], people, [24, 50])

    with pytest.raises(UserError, match="1 of the 2 test images are images that the model was trained on"):
        leaks.check_people(TRAINED, data, same_data=True, allow=False)
    found = leaks.check_people(TRAINED, data, same_data=True, allow=True)

    assert found is not None
    assert (found["images"], found["identities"]) == (1, 0)
    assert leaks.leak_sentence(found) == "for comparison: 1 of the test images are images that the model was trained on"


def test_images_of_unknown_identity_do_not_match_each_other() -> None:
    trained = {**TRAINED, "identity": np.array(["", "", "bo", "cy", "di"])}
    data = data_of(["6.jpg", "7.jpg", "8.jpg", "9.jpg"], ["", "", "bo", "ed"], [20, 26, 33, 40])

    with pytest.raises(UserError, match=r"1 of the 4 test images show people \(1 of them\)"):
        leaks.check_people(trained, data, same_data=True, allow=False)
    found = leaks.check_people(trained, data, same_data=True, allow=True)

    assert found is not None
    assert (found["images"], found["identities"]) == (1, 1)
    assert found["test_identity_in_train"] == 0.25
    # The median is 30 for bo, and 24 for all of train, which is the prediction for the others.
    assert found["lookup_mae"] == pytest.approx((4 + 2 + 3 + 16) / 4)


def test_unknown_identities_do_not_count_as_a_leak_of_the_runs_own_test() -> None:
    trained = {**TRAINED, "identity": np.array(["", "ann", "bo", "", ""])}
    unknown, known = data_of(["5.jpg"], [""], [50]), data_of(["5.jpg"], ["bo"], [50])

    assert leaks.own_leak(trained, unknown) is None
    assert leaks.own_leak(trained, known)["lookup_mae"] == 20


def test_an_audit_counts_only_the_given_rows_of_test() -> None:
    # Train is one image of x at age 20, so the lookup and its fallback both predict 20.
    data = data_of(["6.jpg", "7.jpg", "8.jpg", "9.jpg"], ["ed", "x", "flo", "x"], [30, 23, 40, 50])

    found = leaks.audit_tested(data, np.array([1, 2]))

    assert found["splits"]["test"] == {"images": 2, "identities": 2, "labels": 2}
    assert found["test_identity_in_train"] == 0.5
    assert found["lookup_mae"] == pytest.approx((3 + 20) / 2)


def test_image_names_of_another_data_set_do_not_match() -> None:
    data = data_of(["1.jpg", "2.jpg"], None, [20, 24])

    assert leaks.check_people(TRAINED, data, same_data=False, allow=False) is None


@pytest.mark.parametrize(("there", "same", "refused"), [("7", True, True), ("7", False, False)])
def test_a_number_is_an_identity_only_in_its_own_data_set(there: str, same: bool, refused: bool) -> None:
    trained = {**TRAINED, "identity": np.array(["7", "7", "8", "9", "10"])}
    data = data_of(["6.jpg"], [there], [20])

    found = leaks.check_people(trained, data, same_data=same, allow=True)

    assert (found is not None) == refused


def test_a_name_is_an_identity_in_each_data_set_in_any_spelling() -> None:
    trained = {**TRAINED, "identity": np.array(["Zo\u00eb_Bell", "Zo\u00eb_Bell", "bo", "cy", "di"])}
    data = data_of(["6.jpg"], ["zoe\u0308 bell"], [20])

    found = leaks.check_people(trained, data, same_data=False, allow=True)

    assert found is not None
    assert (found["images"], found["identities"], found["lookup_mae"]) == (1, 1, 2.0)


def test_identities_of_classes_are_not_called_people() -> None:
    data = data_of(["6.jpg"], ["ann"], [20])
    data.target = make_target(Records(np.array(list("abc")), {"class": np.zeros(3, int)}, ("20",)), "class")

    with pytest.raises(UserError, match=r"1 of the 1 test images show identities \(1 of them\) that the model was"):
        leaks.check_people(TRAINED, data, same_data=True, allow=False)


def test_the_runs_own_test_images_are_recognized_by_name() -> None:
    own, fewer = data_of(["5.jpg"], ["di"], [50]), data_of(["4.jpg"], ["di"], [50])

    assert leaks.is_own_test(TRAINED, own, same_data=True)
    assert not leaks.is_own_test(TRAINED, own, same_data=False)
    assert not leaks.is_own_test(TRAINED, fewer, same_data=True)


@pytest.mark.parametrize("text", [None, "name,part\n1,train\n", "name,part,identity,label\n\xff"])
def test_an_unreadable_split_csv_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "split.csv").write_bytes(text.encode("latin-1"))

    assert leaks.read_split(tmp_path) is None


def test_a_leak_names_the_metrics_of_its_unit() -> None:
    found = {
        "test_identity_in_train": 1.0,
        "lookup_mae": 2.708,
        "median_mae": 9.973,
        "lookup_accuracy": 0.756,
        "majority_accuracy": 0.264,
        "unit": "years",
    }

    years, decades, classes = (
        leaks.leak_sentence(found | changes)
        for changes in ({}, {"unit": "decades"}, {"unit": "", "lookup_mae": None, "median_mae": None})
    )

    assert "MAE 2.71 years (the median: 9.97)" in years
    assert "accuracy" not in years
    assert "MAE 2.71 decades" in decades
    assert "accuracy 0.756 (the most common label: 0.264)" in decades
    assert "MAE" not in classes
    assert "accuracy 0.756" in classes
    assert "100.0% of the test images" in years
