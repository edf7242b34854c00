"""Planning: records, labels and split before any image is opened."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from memory_source import COLUMNS, Memory, make_planner

from agebench.data import split as splits
from agebench.data.sources.table import Table
from agebench.errors import UserError


def test_the_protocol_names_data_split_and_target() -> None:
    cases = [
        (make_planner(), "mine/random/class"),
        (make_planner(target="age", limit=5, name="faces"), "faces/random-limit5/age"),
        (make_planner(target="bins", bins=[18, 30.5], per_class=3), "mine/random-per3/bins-18-30.5"),
        (make_planner(Memory(), partial(splits.lecture, per_label=10)), "mine/lecture/class"),
        (make_planner(Memory(), partial(splits.kfold, k=3, fold=1)), "mine/kfold-by-image3-1/class"),
    ]

    protocols = [planner.plan().protocol for planner, _ in cases]

    assert protocols == [expected for _, expected in cases]


def test_a_split_by_identity_needs_identities() -> None:
    with pytest.raises(UserError, match="needs the identity of each image"):
        make_planner(Memory(), splits.identity).plan()


def test_planning_opens_no_image() -> None:
    source = Memory()

    plan = make_planner(source).plan()

    assert plan.counts == {"train": 48, "val": 6, "test": 6}
    assert source.opened == 0


def test_missing_images_are_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        plan = make_planner(Memory(missing=(3, 8, 20, 21))).plan()

    assert plan.missing.tolist() == ["03.png", "08.png", "20.png", "21.png"]
    assert len(plan.records) == 56
    assert "4 of the 60 images that data=mine lists do not exist, such as 03.png, 08.png, 20.png" in caplog.text
    assert "images used: train 44, val 6, test 6" in caplog.text


def test_a_missing_image_is_an_error_if_all_are_required() -> None:
    with pytest.raises(UserError, match=r"data\.require_all=true needs every image") as caught:
        make_planner(Memory(missing=(3,)), require_all=True).plan()

    assert "\n" not in str(caught.value)


def test_a_label_keeps_its_index_if_all_its_images_are_missing() -> None:
    target = make_planner(Memory(missing=tuple(range(10))), target="decade").plan().target

    assert target.label_names[0] == "10s"
    assert target.num_labels == 6
    assert target.labels.min() == 1


def test_a_data_set_without_any_image_is_an_error_that_names_data_root(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("path,label\n" + "".join(f"{i}.png,cat\n" for i in range(1200)))

    with pytest.raises(UserError, match=r"lists 1,200 images and none of them exists .*0\.png.*check data\.root"):
        make_planner(Table(str(tmp_path / "mine.csv"), COLUMNS)).plan()


def test_a_plan_of_all_listed_images_needs_no_file() -> None:
    plan = make_planner(Memory(missing=tuple(range(60)))).plan(listed=True)

    assert sum(plan.counts.values()) == 60
    assert len(plan.missing) == 0


def test_a_split_that_validates_on_its_test_part_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        make_planner(Memory(), splits.lecture).plan()

    assert "validates on its test images" in caplog.text


def test_a_split_with_an_empty_part_is_refused() -> None:
    with pytest.raises(UserError, match="leaves no image in val"):
        make_planner(Memory(np.zeros((4, 5, 5, 3), dtype=np.uint8))).plan()
