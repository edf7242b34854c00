"""The label of an image, with expected values computed manually."""

from typing import Any

import numpy as np
import pytest

from agebench.data.records import Records
from agebench.data.target import TARGETS, make_target
from agebench.errors import UserError


def people(*ages: int) -> Records:
    return Records(np.array([f"{i}.jpg" for i in range(len(ages))]), {"age": np.array(ages, dtype=np.uint8)})


def pets() -> Records:
    return Records(np.array(["a", "b", "c"]), {"class": np.array([2, 0, 2])}, ("cat", "cow", "dog"))


def test_classes_keep_their_codes_and_names_and_are_not_ordered() -> None:
    target = make_target(pets(), "class")

    assert target.labels.tolist() == [2, 0, 2]
    assert target.label_names == ("cat", "cow", "dog")  # no image shows a cow, but the class keeps its index
    assert target.values.tolist() == [0.0, 1.0, 2.0]
    assert (target.ordered, target.unit, target.num_labels) == (False, "", 3)


def test_decades_start_at_the_youngest_and_include_empty_ones() -> None:
    target = make_target(people(19, 20, 29, 62, 14), "decade")

    assert target.labels.tolist() == [0, 1, 1, 5, 0]
    assert target.label_names == ("10s", "20s", "30s", "40s", "50s", "60s")
    assert target.values.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert (target.ordered, target.unit, target.num_labels) == (True, "decades", 6)


def test_ages_have_one_label_per_year_including_gaps() -> None:
    target = make_target(people(17, 14, 20), "age")

    assert target.labels.tolist() == [3, 0, 6]
    assert target.label_names == ("14", "15", "16", "17", "18", "19", "20")
    assert target.values.tolist() == [14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 20.0]
    assert (target.ordered, target.unit) == (True, "years")


@pytest.mark.parametrize(
    ("name", "names", "labels"), [("age", "18 19 20 21 22", [1, 3]), ("decade", "10s 20s", [0, 1])]
)
def test_fixed_ages_are_the_first_and_the_last_label(name, names, labels) -> None:
    target = make_target(people(19, 21), name, ages=[18, 22])

    assert " ".join(target.label_names) == names
    assert target.labels.tolist() == labels


def test_an_age_outside_the_fixed_ones_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"data\.ages=\[18,22\] has no label for 2 of the 3 images, such as 1\.jpg of 23"
    ):
        make_target(people(19, 23, 17), "age", ages=[18, 22])


@pytest.mark.parametrize("name", ["age", "decade"])
def test_the_value_of_a_label_is_its_age(name: str) -> None:
    ages = np.arange(3, 105)

    target = make_target(people(*ages), name)

    step = 10 if name == "decade" else 1
    np.testing.assert_array_equal(target.values[target.labels], ages // step)


def test_a_bin_includes_its_lower_edge_and_not_its_upper_one() -> None:
    target = make_target(people(17, 18, 29, 30, 44, 45, 80), "bins", bins=[18, 30, 45])

    assert target.labels.tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert target.label_names == ("<18", "18-29", "30-44", "45+")
    assert target.values.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert (target.ordered, target.unit) == (True, "bins")


def test_bins_without_an_image_keep_their_index() -> None:
    target = make_target(people(50), "bins", bins=[18, 30])

    assert target.labels.tolist() == [2]
    assert target.num_labels == 3


def test_a_bin_of_one_year_is_named_after_it() -> None:
    target = make_target(people(18, 19), "bins", bins=[18, 19, 65])

    assert target.label_names == ("<18", "18", "19-64", "65+")


def test_ages_in_unsigned_bytes_give_labels_in_int64() -> None:
    records = people(14, 62)

    kinds = {name: make_target(records, name, bins=[18]).labels.dtype for name in ("decade", "age", "bins")}

    assert set(kinds.values()) == {np.dtype(np.int64)}


def test_each_target_of_ages_is_ordered() -> None:
    assert all(make_target(people(20), name, bins=[18]).ordered for name in TARGETS[1:])


@pytest.mark.parametrize("bins", [None, [], [30, 18], [18, 18], [18, float("nan")], ["young"], 18, [[18, 30]]])
def test_bins_that_are_not_ascending_years_raise(bins: Any) -> None:
    with pytest.raises(UserError, match=r"ascending edges in years.*data\.bins=\[18,30,45,60\]"):
        make_target(people(20), "bins", bins=bins)


def test_a_target_without_its_labels_raises_and_names_a_target_that_works() -> None:
    with pytest.raises(UserError, match=r"data\.target=age needs age labels.*use data\.target=class"):
        make_target(pets(), "age")
    with pytest.raises(UserError, match=r"data\.target=class needs class labels.*use data\.target=age, decade or bins"):
        make_target(people(20), "class")


def test_an_unknown_target_raises_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"data\.target=gender.*class, decade, age, bins"):
        make_target(people(20), "gender")
