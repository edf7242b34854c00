"""Images and identities seen in training, counted manually for a few images."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agebench.data.records import Records
from agebench.data.sources.folder import Folder
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


def check_people(trained: Any, data: Any, *, same_data: bool, allow: bool) -> dict[str, Any] | None:
    seen = leaks.find_seen(trained, data, same_data=same_data)
    return leaks.check_people(trained, data, seen, same_data=same_data, allow=allow)


def test_people_of_train_raise_with_their_number() -> None:
    data = data_of(["6.jpg", "7.jpg", "8.jpg", "9.jpg"], ["ann", "ann", "bo", "ed"], [20, 26, 33, 40])

    with pytest.raises(UserError, match=r"3 of the 4 test images show people \(2 of them\) that the model was trained"):
        check_people(TRAINED, data, same_data=True, allow=False)


def test_with_allow_the_lookup_uses_the_runs_own_train_part(caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(["6.jpg", "7.jpg", "8.jpg", "9.jpg"], ["ann", "ann", "bo", "ed"], [20, 26, 33, 40])

    with caplog.at_level(logging.WARNING):
        found = check_people(TRAINED, data, same_data=True, allow=True)

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
        found = check_people(TRAINED, data, same_data=True, allow=False)

    assert found is None
    assert "1 of the 2 test images" in caplog.text
    assert "the val part that selected the run's epoch" in caplog.text


def test_people_of_both_train_and_val_are_counted_for_train_only(caplog: pytest.LogCaptureFixture) -> None:
    trained = {**TRAINED, "identity": np.array(["ann", "ann", "bo", "ann", "di"])}

    with caplog.at_level(logging.WARNING):
        found = check_people(trained, data_of(["6.jpg"], ["ann"], [20]), same_data=True, allow=True)

    assert found is not None
    assert found["images"] == 1
    assert "the val part" not in caplog.text


def test_people_outside_train_and_val_cause_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(["6.jpg", "7.jpg"], ["di", ""], [40, 50])
    trained = {**TRAINED, "identity": np.array(["ann", "", "bo", "cy", "di"])}

    with caplog.at_level(logging.WARNING):
        found = check_people(trained, data, same_data=True, allow=False)

    assert found is None
    assert not caplog.text


@pytest.mark.parametrize("people", [None, ["ed", "flo"]])
def test_images_of_train_raise_with_any_identity(people: list[str] | None) -> None:
    data = data_of(["2.jpg", "7.jpg"], people, [24, 50])

    with pytest.raises(UserError, match="1 of the 2 test images are images that the model was trained on"):
        check_people(TRAINED, data, same_data=True, allow=False)
    found = check_people(TRAINED, data, same_data=True, allow=True)

    assert found is not None
    assert (found["images"], found["identities"]) == (1, 0)
    assert leaks.leak_sentence(found) == "for comparison: 1 of the test images are images that the model was trained on"


def test_images_of_unknown_identity_do_not_match_each_other() -> None:
    trained = {**TRAINED, "identity": np.array(["", "", "bo", "cy", "di"])}
    data = data_of(["6.jpg", "7.jpg", "8.jpg", "9.jpg"], ["", "", "bo", "ed"], [20, 26, 33, 40])

    with pytest.raises(UserError, match=r"1 of the 4 test images show people \(1 of them\)"):
        check_people(trained, data, same_data=True, allow=False)
    found = check_people(trained, data, same_data=True, allow=True)

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

    assert check_people(TRAINED, data, same_data=False, allow=False) is None


@pytest.mark.parametrize(("there", "same", "refused"), [("7", True, True), ("7", False, False)])
def test_a_number_is_an_identity_only_in_its_own_data_set(there: str, same: bool, refused: bool) -> None:
    trained = {**TRAINED, "identity": np.array(["7", "7", "8", "9", "10"])}
    data = data_of(["6.jpg"], [there], [20])

    found = check_people(trained, data, same_data=same, allow=True)

    assert (found is not None) == refused


def test_a_name_is_an_identity_in_each_data_set_in_any_spelling() -> None:
    trained = {**TRAINED, "identity": np.array(["Zo\u00eb_Bell", "Zo\u00eb_Bell", "bo", "cy", "di"])}
    data = data_of(["6.jpg"], ["zoe\u0308 bell"], [20])

    found = check_people(trained, data, same_data=False, allow=True)

    assert found is not None
    assert (found["images"], found["identities"], found["lookup_mae"]) == (1, 1, 2.0)


def test_identities_of_classes_are_not_called_people() -> None:
    data = data_of(["6.jpg"], ["ann"], [20])
    data.target = make_target(Records(np.array(list("abc")), {"class": np.zeros(3, int)}, ("20",)), "class")

    with pytest.raises(UserError, match=r"1 of the 1 test images show identities \(1 of them\) that the model was"):
        check_people(TRAINED, data, same_data=True, allow=False)


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


def test_what_a_run_has_seen_is_counted_by_identity_and_by_file_name() -> None:
    trained = {**TRAINED, "name": np.array(["a/1.jpg", "a/2.jpg", "3.jpg", "b/4.jpg", "5.jpg"])}
    data = data_of(["1.jpg", "c/4.jpg", "5.jpg", "6.jpg"], ["zoe", "Ann", "cy", "di"], [20, 26, 33, 40])

    other = leaks.find_seen(trained, data, same_data=False)
    own = leaks.find_seen(trained, data, same_data=True)

    assert other.parts["identity"] == {"c/4.jpg": "train", "5.jpg": "val"}
    assert other.parts["name"] == {"1.jpg": "train", "c/4.jpg": "val"}
    assert other.unknown == {}
    assert own.parts == {"identity": {"5.jpg": "val"}, "name": {}}  # Ann is not ann in the same data set
    assert other.surely_in("train", same_data=False) == {"c/4.jpg"}
    assert other.rows == [
        ("1.jpg", "", "train", ""),
        ("5.jpg", "val", "", ""),
        ("c/4.jpg", "train", "val", ""),
    ]


@pytest.mark.parametrize(
    ("trained_people", "people", "reason"),
    [
        (["ann"] * 5, None, "the tested data has no identities"),
        (["ann"] * 5, [""], "the tested data has no identities"),
        (["ann"] * 5, ["7"], "the tested data has only numbers as identities"),
        ([""] * 5, ["ann"], "the data of the run has no identities"),
        (["7"] * 5, ["ann"], "the data of the run has only numbers as identities"),
    ],
)
def test_identities_that_cannot_be_compared_are_unknown_with_the_reason(trained_people, people, reason) -> None:
    trained = {**TRAINED, "identity": np.array(trained_people)}

    seen = leaks.find_seen(trained, data_of(["6.jpg"], people, [20]), same_data=False)

    assert seen.facts["identity"] == {"unknown": reason}
    assert seen.facts["name"] == {"train": 0, "val": 0}
    assert f"by identity unknown ({reason}); by file name 0 in train and 0 in val" in leaks.seen_sentence(
        seen.facts | {"file": {"train": 0, "val": 0}}
    )


def write_files(folder: Path, files: dict[str, bytes]) -> Folder:
    """Return a source of files in one class."""
    (folder / "faces").mkdir(parents=True)
    for name, content in files.items():
        (folder / "faces" / name).write_bytes(content)
    return Folder(str(folder))


@pytest.fixture
def copied(tmp_path: Path) -> tuple[dict[str, Any], Any, Folder, Folder]:
    """Return a run with the files ab, cd, ef and gh, a test set of three of them, and the sources of both."""
    own = {"1.jpg": b"ab", "2.jpg": b"cd", "3.jpg": b"ef", "4.jpg": b"gh"}
    trained_on = write_files(tmp_path / "own", own)
    tested = write_files(tmp_path / "other", {"x.jpg": b"ab", "y.jpg": b"ef", "z.jpg": b"gh"})
    trained = {
        "name": np.array([f"faces/{name}" for name in own]),
        "part": np.array(["train", "train", "val", "test"]),
        "identity": np.full(4, ""),
        "target": np.array(["20", "24", "30", "40"]),
    }
    data = data_of(["faces/x.jpg", "faces/y.jpg", "faces/z.jpg"], None, [20, 24, 30])
    data.rows = np.array([0, 0, 0, 1, 2])  # rows of the source; the first two are no test images
    return trained, data, tested, trained_on


def test_images_identical_to_one_of_train_raise(copied) -> None:
    trained, data, tested, trained_on = copied

    seen = leaks.find_seen(trained, data, same_data=False)
    seen = leaks.add_copies(seen, trained, data, tested=tested, trained_on=trained_on)

    assert seen.parts["file"] == {"faces/x.jpg": "train", "faces/y.jpg": "val"}
    with pytest.raises(UserError, match="1 of the 3 test images are images that the model was trained on"):
        leaks.check_people(trained, data, seen, same_data=False, allow=False)
    assert leaks.check_people(trained, data, seen, same_data=False, allow=True) == {"images": 1, "identities": 0}


def test_images_of_train_that_are_gone_are_unknown(copied, tmp_path) -> None:
    trained, data, tested, trained_on = copied
    (tmp_path / "own" / "faces" / "1.jpg").unlink()
    nowhere = Folder(str(tmp_path / "nowhere.zip"))

    seen = leaks.find_seen(trained, data, same_data=False)
    part = leaks.add_copies(seen, trained, data, tested=tested, trained_on=trained_on)
    none = leaks.add_copies(seen, trained, data, tested=tested, trained_on=nowhere)

    unknown = "1 of the 3 train and val images of the run are not available"
    assert part.facts["file"] == {"train": 0, "val": 1, "unknown": unknown}
    assert none.facts["file"]["unknown"].startswith("the images of the run are not available: ")
    assert list(none.facts["file"]) == ["unknown"]


def test_two_runs_have_seen_what_one_of_them_has_seen() -> None:
    first = leaks.Seen({"name": {"a": "train", "b": "val", "c": "val"}, "file": {}}, {"identity": "none"})
    second = leaks.Seen({"name": {"b": "train", "c": "val", "d": "val"}, "identity": {"a": "val"}}, {})

    both = first | second

    assert both.parts["name"] == {"a": "train", "b": "train", "c": "val", "d": "val"}
    assert both.facts["identity"] == {"train": 0, "val": 1, "unknown": "none"}
    assert "by identity 0 in train and 1 in val (none)" in leaks.seen_sentence(both.facts)
