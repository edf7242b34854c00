"""Who is in train, val and test: sizes worked by hand, and nobody on two sides."""

import csv
import logging
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from agebench.data import split as splits
from agebench.data.cacd import read_metadata
from agebench.data.records import Records
from agebench.data.split import PARTS, Split
from agebench.data.target import make_target
from agebench.errors import UserError


def crowd(images: int = 1200, people: int = 60, *, seed: int = 1) -> tuple[Records, np.ndarray]:
    """Return records of people who appear many times, at six unequally common labels."""
    rng = np.random.default_rng(seed)
    identity = np.arange(images) % people
    labels = rng.choice(6, images, p=[0.05, 0.25, 0.3, 0.2, 0.15, 0.05])
    part = np.select([identity < 4, identity < 10], ["val", "test"], "train")
    names = np.array([f"{i:05d}.jpg" for i in range(images)])
    return Records(names, {"identity": identity, "part": part}), labels


def blocks(*counts: int) -> tuple[Records, np.ndarray]:
    """Return records with so many images of label 0, 1, ..."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return Records(np.array([f"{i}" for i in range(len(labels))])), labels


def per_label(labels: np.ndarray, rows: np.ndarray, count: int) -> list[int]:
    return np.bincount(labels[rows], minlength=count).tolist()


def sizes(split: Split) -> list[int]:
    return [len(split.part(part)) for part in PARTS]


def assert_apart(split: Split, values: np.ndarray) -> None:
    sides = [set(values[split.part(part)].tolist()) for part in PARTS]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]


def test_random_is_80_10_10_within_every_label() -> None:
    records, labels = blocks(100, 50, 10)

    split = splits.random(records, labels)

    assert per_label(labels, split.train, 3) == [80, 40, 8]
    assert per_label(labels, split.val, 3) == [10, 5, 1]
    assert per_label(labels, split.test, 3) == [10, 5, 1]
    assert np.sort(np.concatenate([split.train, split.val, split.test])).tolist() == list(range(160))


def test_a_tenth_of_the_whole_is_a_tenth_though_no_label_divides_by_ten() -> None:
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # MNIST's 60,000
    records, labels = blocks(*counts, 10_000)
    part = np.repeat(np.array(["train", "test"]), [60_000, 10_000])
    records = Records(records.names, {"part": part})

    split = splits.official(records, labels)

    assert sizes(split) == [54_000, 6_000, 10_000]
    off = np.abs(np.bincount(labels[split.val], minlength=10)[:10] - 0.1 * np.array(counts))
    assert off.max() < 1


def test_rare_labels_are_tested_too_and_not_only_the_first_of_them() -> None:
    records, labels = blocks(*[5] * 60)  # 60 ages with five images each, none of which has a whole tenth

    split = splits.random(records, labels)

    tested = np.unique(labels[split.test])
    assert len(tested) == 30
    assert 8 <= (tested < 30).sum() <= 22


@pytest.mark.parametrize("protocol", [splits.random, splits.identity, splits.kfold, splits.train80, splits.subset])
def test_a_split_is_decided_by_its_seed(protocol: Any) -> None:
    records, labels = crowd()
    changes = {"train": 500, "val": 50, "test": 500} if protocol is splits.subset else {}

    first, again, *others = (protocol(records, labels, seed=seed, **changes) for seed in (3, 3, 4, 5, 6, 7, 8))

    for part in PARTS:
        assert first.part(part).tolist() == again.part(part).tolist()
    assert any(first.train.tolist() != other.train.tolist() for other in others)


@pytest.mark.parametrize("protocol", [splits.random, splits.identity, splits.kfold, splits.train80, splits.official])
def test_parts_are_ascending_int64_and_share_no_image(protocol: Any) -> None:
    records, labels = crowd()

    split = protocol(records, labels)

    splits.check(split)
    for part in PARTS:
        assert split.part(part).dtype == np.int64
        assert (np.diff(split.part(part)) > 0).all()
    assert_apart(split, np.arange(len(records)))


@pytest.mark.parametrize("protocol", [splits.identity, splits.kfold, splits.train80])
def test_nobody_is_on_two_sides(protocol: Any) -> None:
    records, labels = crowd()

    split = protocol(records, labels)

    assert_apart(split, records.columns["identity"])


@pytest.mark.parametrize("protocol", [splits.identity, splits.kfold, splits.train80])
def test_people_stay_where_they_are_when_the_rows_come_in_another_order(protocol: Any) -> None:
    records, labels = crowd()
    order = np.random.default_rng(5).permutation(len(records))

    split, shuffled = protocol(records, labels), protocol(records.take(order), labels[order])

    for part in PARTS:
        assert sorted(records.names[split.part(part)]) == sorted(records.take(order).names[shuffled.part(part)])


def test_identity_gives_about_80_10_10_with_labels_nearly_as_in_the_whole() -> None:
    records, labels = crowd(6000, 300)

    split = splits.identity(records, labels)

    assert sum(sizes(split)) == 6000
    np.testing.assert_allclose(np.array(sizes(split)) / 6000, [0.8, 0.1, 0.1], atol=0.02)
    whole = np.bincount(labels) / 6000
    for part in PARTS:
        np.testing.assert_allclose(np.bincount(labels[split.part(part)]) / len(split.part(part)), whole, atol=0.03)


@pytest.mark.parametrize("k", [3, 5])
def test_every_image_is_tested_in_exactly_one_fold_and_is_val_in_exactly_one(k: int) -> None:
    records, labels = crowd()

    folds = [splits.kfold(records, labels, k=k, fold=fold) for fold in range(k)]

    for part in ("val", "test"):
        assert np.sort(np.concatenate([f.part(part) for f in folds])).tolist() == list(range(1200))
    for fold in range(k):
        assert sum(sizes(folds[fold])) == 1200
        assert folds[fold].val.tolist() == folds[(fold + 1) % k].test.tolist()
        assert folds[fold].name == f"kfold{k}-{fold}"


@pytest.mark.parametrize(("k", "fold"), [(2, 0), (5, 5), (5, -1)])
def test_folds_that_do_not_exist_are_refused(k: int, fold: int) -> None:
    records, labels = crowd()

    with pytest.raises(UserError, match=r"k >= 3 and 0 <= fold < k"):
        splits.kfold(records, labels, k=k, fold=fold)


def test_splitting_people_needs_enough_of_them_and_of_a_label() -> None:
    records, labels = crowd(40, 4)
    alone = Records(np.array([str(i) for i in range(12)]), {"identity": np.arange(12)})

    with pytest.raises(UserError, match="into 10 folds needs at least 10 of them, got 4"):
        splits.identity(records, labels)
    with pytest.raises(UserError, match="needs a label with at least 10 images"):
        splits.identity(alone, np.arange(12))
    with pytest.raises(UserError, match="who is in each image"):
        splits.kfold(*blocks(20, 20))


def test_train80_learns_from_val_people_and_tests_on_test_people() -> None:
    records, labels = crowd()
    identity = records.columns["identity"]

    split = splits.train80(records, labels)

    assert set(identity[split.test]) == {4, 5, 6, 7, 8, 9}
    assert set(identity[split.train]) | set(identity[split.val]) == {0, 1, 2, 3}
    assert len(set(identity[split.val])) == 1
    with pytest.raises(UserError, match="ranks and identities"):
        splits.train80(*blocks(20, 20))


def test_official_follows_the_publisher() -> None:
    records, labels = crowd()

    split = splits.official(records, labels, seed=9)

    for part in PARTS:
        assert split.part(part).tolist() == np.flatnonzero(records.columns["part"] == part).tolist()
    assert (split.name, split.val_is_test) == ("official", False)


def test_official_cuts_val_from_train_where_the_publisher_has_none() -> None:
    names, part = np.array([str(i) for i in range(60)]), np.repeat(np.array(["train", "test", ""]), [40, 10, 10])
    labels = np.arange(60) % 2

    split = splits.official(Records(names, {"part": part}), labels, val_share=0.2)

    assert sizes(split) == [32, 8, 10]
    assert per_label(labels, split.val, 2) == [4, 4]
    assert split.test.tolist() == list(range(40, 50))
    assert split.train.max() < 40  # the ten without a part are in none


def test_official_with_val_from_test_gives_up_no_training_image() -> None:
    records, labels = crowd()

    split = splits.official(records, labels, val_from_test=True)

    assert split.val.tolist() == split.test.tolist()
    assert split.train.tolist() == np.flatnonzero(records.columns["part"] == "train").tolist()
    assert (split.name, split.val_is_test) == ("official-valtest", True)


def test_official_without_published_parts_is_refused_with_a_way_out() -> None:
    records, labels = blocks(5)
    untested = Records(records.names, {"part": np.array(["train"] * 5)})

    with pytest.raises(UserError, match="this data names none: use data/split=random"):
        splits.official(records, labels)
    with pytest.raises(UserError, match="needs test images"):
        splits.official(untested, labels)


@pytest.mark.parametrize(
    ("protocol", "shares"),
    [
        (splits.random, {"test_share": 1.0}),
        (splits.random, {"val_share": 0.5, "test_share": 0.5}),
        (splits.identity, {"val_share": 0.0}),
        (splits.lecture, {"test_share": 0}),
    ],
)
def test_shares_that_leave_a_part_empty_are_refused(protocol: Any, shares: dict[str, float]) -> None:
    with pytest.raises(UserError, match="shares above 0 that leave something to train on"):
        protocol(*crowd(), **shares)


def test_the_lecture_takes_so_many_a_label_and_tests_on_its_val() -> None:
    records, labels = blocks(300, 250, 60)

    split = splits.lecture(records, labels, per_label=200)

    assert per_label(labels, split.train, 3) == [160, 160, 48]
    assert per_label(labels, split.test, 3) == [40, 40, 12]
    assert split.val.tolist() == split.test.tolist()
    assert split.val_is_test


def test_the_lecture_cuts_each_label_as_scikit_learn_does() -> None:
    records, labels = blocks(10, 20)  # fewer than per_label: all of them, so only the cut is left to chance

    split = splits.lecture(records, labels, seed=42)

    cuts = [train_test_split(np.flatnonzero(labels == i), test_size=0.2, random_state=42) for i in (0, 1)]
    assert split.train.tolist() == sorted([*cuts[0][0], *cuts[1][0]])
    assert split.test.tolist() == sorted([*cuts[0][1], *cuts[1][1]])


def test_the_lecture_refuses_a_label_with_one_image() -> None:
    with pytest.raises(UserError, match="label 1 has 1"):
        splits.lecture(*blocks(10, 1))


def test_subset_draws_exactly_so_many_and_leaves_the_rest() -> None:
    records, labels = blocks(500, 500)

    split = splits.subset(records, labels, train=300, val=60, test=200)

    assert sizes(split) == [300, 60, 200]
    assert_apart(split, np.arange(1000))


def test_subset_shrinks_in_proportion_to_what_is_there_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    records, labels = blocks(730)  # of 22,000 wanted: 331.8, 66.4 and 331.8

    with caplog.at_level(logging.WARNING):
        split = splits.subset(records, labels)

    assert sizes(split) == [331, 66, 331]
    assert_apart(split, np.arange(730))
    assert "730 images are fewer than the 22,000" in caplog.text
    assert "331 / 66 / 331" in caplog.text


def test_subset_refuses_to_shrink_to_nothing() -> None:
    with pytest.raises(UserError, match="5 images are too few"):
        splits.subset(*blocks(5))


def write(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.write_bytes(text.encode(encoding))
    return str(path)


def test_column_without_a_file_follows_the_data_and_says_its_own_name() -> None:
    records, labels = crowd()

    split = splits.column(records, labels)

    assert split.name == "column"
    assert split.test.tolist() == splits.official(records, labels).test.tolist()


@pytest.mark.parametrize("header", ["name,part", "split,name"])
def test_column_follows_a_list_whatever_its_order_or_byte_order_mark(tmp_path: Path, header: str) -> None:
    records, labels = blocks(6)
    rows = [("4", "train"), ("0", "test"), ("5", "val"), ("2", "train"), ("3", "")]  # 1 is not listed
    lines = [f"{name},{part}" if header == "name,part" else f"{part},{name}" for name, part in rows]
    file = write(tmp_path / "mine.csv", "\n".join([header, *lines]), "utf-8-sig")

    split = splits.column(records, labels, file=file)

    assert [split.part(part).tolist() for part in PARTS] == [[2, 4], [5], [0]]
    assert (split.name, split.val_is_test) == ("column-mine", False)


def test_column_cuts_val_from_train_where_the_list_has_none(tmp_path: Path) -> None:
    records, labels = blocks(25)
    rows = "\n".join(f"{i},{'train' if i < 20 else 'test'}" for i in range(25))
    file = write(tmp_path / "mine.csv", f"name,part\n{rows}")

    split = splits.column(records, labels, file=file)

    assert sizes(split) == [18, 2, 5]


def test_column_warns_of_images_that_the_data_has_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "mine.csv", "name,part\n0,train\n1,val\n2,test\ngone.jpg,train\n")

    with caplog.at_level(logging.WARNING):
        splits.column(*blocks(3), file=file)

    assert "1 images" in caplog.text
    assert "gone.jpg" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,part\n0,training\n1,test\n", "part must be train, val or test, got training"),
        ("name,part\nx,train\ny,test\n", "names look like 0"),
        ("file,fold\n0,train\n1,test\n", "columns name and part"),
        ("name,part\n0,train\n1,val\n", "train and test images"),
        ("", "columns name and part"),
    ],
)
def test_column_refuses_a_list_that_does_not_fit(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / "mine.csv", text)

    with pytest.raises(UserError, match=message):
        splits.column(*blocks(3), file=file)


def test_column_refuses_what_is_not_a_file_in_utf8(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.csv", "name,part\n山田.jpg,train\n", "cp932")

    with pytest.raises(UserError, match="save it as CSV UTF-8"):
        splits.column(*blocks(3), file=file)
    with pytest.raises(UserError, match="no file"):
        splits.column(*blocks(3), file=str(tmp_path / "other.csv"))


@pytest.mark.parametrize("protocol", [splits.random, splits.identity, splits.lecture, splits.kfold])
def test_the_split_that_a_run_wrote_is_read_back_as_it_was(tmp_path: Path, protocol: Any) -> None:
    from agebench.outputs import write_split

    records, labels = crowd()
    split = protocol(records, labels, seed=7)
    target = SimpleNamespace(labels=labels, label_names=tuple("abcdef"))
    run: Any = SimpleNamespace(records=records, split=split, target=target, missing=[])
    write_split(tmp_path, run)

    again = splits.column(records, labels, file=str(tmp_path / "split.csv"))

    with (tmp_path / "split.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert Counter(row["part"] for row in rows) == dict(zip(PARTS, sizes(split), strict=True))
    assert rows[0].keys() == {"name", "part", "identity", "label"}
    assert [again.part(part).tolist() for part in PARTS] == [split.part(part).tolist() for part in PARTS]
    assert again.val_is_test == split.val_is_test


def test_per_class_caps_train_alone_and_limit_every_part() -> None:
    records, labels = blocks(100, 40, 10)
    split = splits.random(records, labels)  # train 80, 32, 8

    few = splits.cap(split, labels, per_class=20, limit=None)
    tiny = splits.cap(split, labels, per_class=20, limit=6)

    assert per_label(labels, few.train, 3) == [20, 20, 8]
    assert (few.val.tolist(), few.test.tolist()) == (split.val.tolist(), split.test.tolist())
    assert few.name == "random-per20"
    assert [per_label(labels, tiny.part(part), 3) for part in PARTS] == [[2, 2, 2], [3, 2, 1], [3, 2, 1]]
    assert tiny.name == "random-per20-limit6"
    for part in PARTS:
        assert set(tiny.part(part)) <= set(split.part(part))


def test_no_cap_changes_nothing_and_a_wide_one_keeps_every_image() -> None:
    records, labels = crowd()
    split = splits.official(records, labels)

    assert splits.cap(split, labels, per_class=None, limit=None) == split
    assert sizes(splits.cap(split, labels, per_class=10**6, limit=10**6)) == sizes(split)


def test_a_limit_leaves_val_the_test_where_it_is() -> None:
    records, labels = blocks(50, 50)

    split = splits.cap(splits.lecture(records, labels), labels, per_class=None, limit=4)

    assert split.val.tolist() == split.test.tolist()
    assert (len(split.test), split.val_is_test) == (4, True)


@pytest.mark.parametrize("empty", PARTS)
def test_check_names_the_part_that_is_empty(empty: str) -> None:
    rows = {"train": [0], "val": [1], "test": [2]} | {empty: []}
    split = Split("mine", **{part: np.array(r, dtype=np.int64) for part, r in rows.items()})

    with pytest.raises(UserError, match=f"data/split=mine leaves no image in {empty}"):
        splits.check(split)


@pytest.mark.parametrize("part", ["val", "test"])
def test_check_refuses_an_image_on_two_sides(part: str) -> None:
    rows = {"train": [0, 1, 2], "val": [3], "test": [4]} | {part: [2, 5]}
    split = Split("mine", **{name: np.array(r) for name, r in rows.items()})

    with pytest.raises(UserError, match=f"1 images are in train and in {part}"):
        splits.check(split)


def test_the_sha_of_a_test_list_knows_its_images_and_not_their_order() -> None:
    records, _ = blocks(10)

    first = splits.test_sha(records, np.array([1, 5, 3]))

    assert first == splits.test_sha(records, np.array([3, 1, 5]))
    assert first != splits.test_sha(records, np.array([3, 1, 6]))
    assert len(first) == 16


@pytest.mark.data
def test_the_official_split_of_the_real_cacd_is_the_published_one(test_data: Path) -> None:
    fields = read_metadata(test_data / "cacd" / "celebrity2000_meta.mat")
    names = fields.pop("name")
    fields["part"] = np.where(fields["rank"] > 5, "train", np.where(fields["rank"] > 2, "test", "val"))
    records = Records(names, fields)

    split = splits.official(records, make_target(records, "decade").labels)

    assert sizes(split) == [145_275, 7_600, 10_571]
    assert [len(np.unique(fields["identity"][split.part(part)])) for part in PARTS] == [1_800, 80, 120]
    assert_apart(split, fields["identity"])


@pytest.mark.data
def test_identity_on_the_real_cacd_keeps_its_people_apart_and_its_ages_even(test_data: Path) -> None:
    fields = read_metadata(test_data / "cacd" / "celebrity2000_meta.mat")
    records = Records(fields.pop("name"), fields)
    target = make_target(records, "age")

    split = splits.identity(records, target.labels)

    assert_apart(split, fields["identity"])
    np.testing.assert_allclose(np.array(sizes(split)) / 163_446, [0.8, 0.1, 0.1], atol=0.01)
    means = [fields["age"][split.part(part)].mean() for part in PARTS]
    np.testing.assert_allclose(means, fields["age"].mean(), atol=0.5)
