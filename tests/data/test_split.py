"""Split protocols: sizes counted manually, no identity in two parts, and comparisons with scikit-learn."""

import csv
import logging
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from agebench.data import split as splits
from agebench.data.records import Records
from agebench.data.split import PARTS, Split
from agebench.data.stratify import stratified_group_folds, take_share
from agebench.data.target import make_target
from agebench.errors import UserError


def crowd(images: int = 1200, people: int = 60, *, seed: int = 1) -> tuple[Records, np.ndarray]:
    """Return records of people with 20 images each by default, and six labels of unequal frequency."""
    rng = np.random.default_rng(seed)
    identity = np.arange(images) % people
    labels = rng.choice(6, images, p=[0.05, 0.25, 0.3, 0.2, 0.15, 0.05])
    part = np.select([identity < 4, identity < 10], ["val", "test"], "train")
    names = np.array([f"{i:05d}.jpg" for i in range(images)])
    return Records(names, {"identity": identity, "part": part}), labels


def blocks(*counts: int) -> tuple[Records, np.ndarray]:
    """Return records with the given numbers of images of label 0, 1, ..."""
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


def test_val_is_a_tenth_of_train_even_if_no_label_count_is_divisible_by_ten() -> None:
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]  # MNIST's 60,000
    records, labels = blocks(*counts, 10_000)
    part = np.repeat(np.array(["train", "test"]), [60_000, 10_000])
    records = Records(records.names, {"part": part})

    split = splits.official(records, labels)

    assert sizes(split) == [54_000, 6_000, 10_000]
    off = np.abs(np.bincount(labels[split.val], minlength=10)[:10] - 0.1 * np.array(counts))
    assert off.max() < 1


def test_rare_labels_are_drawn_for_test_independently_of_their_order() -> None:
    records, labels = blocks(*[5] * 60)  # 60 ages with five images each: a tenth is half an image

    split = splits.random(records, labels)

    tested = np.unique(labels[split.test])
    assert len(tested) == 30
    assert 8 <= (tested < 30).sum() <= 22


@pytest.mark.parametrize("protocol", [splits.random, splits.identity, splits.kfold, splits.train80, splits.subset])
def test_equal_seeds_give_equal_splits_and_others_differ(protocol: Any) -> None:
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
def test_no_identity_is_in_two_parts(protocol: Any) -> None:
    records, labels = crowd()

    split = protocol(records, labels)

    assert_apart(split, records.columns["identity"])


@pytest.mark.parametrize("protocol", [splits.identity, splits.kfold, splits.train80])
def test_the_order_of_the_rows_does_not_change_the_part_of_an_image(protocol: Any) -> None:
    records, labels = crowd()
    order = np.random.default_rng(5).permutation(len(records))

    split, shuffled = protocol(records, labels), protocol(records.take(order), labels[order])

    for part in PARTS:
        assert sorted(records.names[split.part(part)]) == sorted(records.take(order).names[shuffled.part(part)])


def test_identity_is_about_80_10_10_with_the_label_shares_of_the_data() -> None:
    records, labels = crowd(6000, 300)

    split = splits.identity(records, labels)

    assert sum(sizes(split)) == 6000
    np.testing.assert_allclose(np.array(sizes(split)) / 6000, [0.8, 0.1, 0.1], atol=0.02)
    whole = np.bincount(labels) / 6000
    for part in PARTS:
        np.testing.assert_allclose(np.bincount(labels[split.part(part)]) / len(split.part(part)), whole, atol=0.03)


@pytest.mark.parametrize("k", [3, 5])
def test_each_image_is_in_test_of_one_fold_and_in_val_of_one_fold(k: int) -> None:
    records, labels = crowd()

    folds = [splits.kfold(records, labels, k=k, fold=fold) for fold in range(k)]

    for part in ("val", "test"):
        assert np.sort(np.concatenate([f.part(part) for f in folds])).tolist() == list(range(1200))
    for fold in range(k):
        assert sum(sizes(folds[fold])) == 1200
        assert folds[fold].val.tolist() == folds[(fold + 1) % k].test.tolist()
        assert folds[fold].name == f"kfold{k}-{fold}"


@pytest.mark.parametrize(("k", "fold"), [(2, 0), (5, 5), (5, -1)])
def test_a_fold_outside_the_range_raises(k: int, fold: int) -> None:
    records, labels = crowd()

    with pytest.raises(UserError, match=r"k >= 3 and 0 <= fold < k"):
        splits.kfold(records, labels, k=k, fold=fold)


def test_identity_needs_identities_and_at_least_one_per_fold() -> None:
    records, labels = crowd(40, 4)

    with pytest.raises(UserError, match="into 10 folds needs at least 10 identities, got 4"):
        splits.identity(records, labels)
    with pytest.raises(UserError, match="into 5 folds needs at least 5 identities, got 4"):
        splits.kfold(records, labels, k=5)
    with pytest.raises(UserError, match=r"needs the identity of each image.*data\.columns\.identity=COLUMN"):
        splits.identity(*blocks(20, 20))


def test_kfold_without_identities_splits_by_image_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    records, labels = blocks(23, 2, 41, 7)  # one label has fewer images than folds

    folds = [splits.kfold(records, labels, k=5, fold=fold) for fold in range(5)]

    of_folds = [per_label(labels, split.test, 4) for split in folds]
    sklearn = StratifiedKFold(5, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        theirs = [per_label(labels, test, 4) for _, test in sklearn.split(labels, labels)]
    assert [split.name for split in folds] == [f"kfold-by-image5-{fold}" for fold in range(5)]
    assert np.sort(np.concatenate([split.test for split in folds])).tolist() == list(range(73))
    assert np.ptp(of_folds, axis=0).max() <= 1
    assert np.ptp([sum(counts) for counts in of_folds]) <= 1
    assert sorted(of_folds) == sorted(theirs)
    for fold, split in enumerate(folds):
        assert split.val.tolist() == folds[(fold + 1) % 5].test.tolist()
        assert_apart(split, np.arange(73))
    assert "this data has no identities, so it is split by image (kfold-by-image)" in caplog.text


def test_the_seed_changes_the_folds_by_image() -> None:
    records, labels = blocks(50, 50)

    first, again, other = (splits.kfold(records, labels, seed=seed).test.tolist() for seed in (0, 0, 1))

    assert first == again != other


@pytest.mark.parametrize("known", [1, 30])
def test_kfold_splits_by_identity_if_any_is_known(known: int) -> None:
    people = np.array([f"p{i // 3}" if i < known else "" for i in range(60)])
    records = Records(np.array([f"{i}" for i in range(60)]), {"identity": people})

    split = splits.kfold(records, np.arange(60) % 2)

    assert split.name == "kfold5-0"
    assert_apart(split, np.where(people == "", records.names, people))


def test_fewer_images_than_folds_are_refused() -> None:
    with pytest.raises(UserError, match="by image into 5 folds needs at least 5 images, got 4"):
        splits.kfold(*blocks(4), k=5)


@pytest.mark.filterwarnings("error")
def test_identity_ignores_labels_that_are_all_rarer_than_the_folds(caplog: pytest.LogCaptureFixture) -> None:
    records = Records(np.array([str(i) for i in range(90)]), {"identity": np.arange(90) // 3})

    with caplog.at_level(logging.WARNING):
        split = splits.identity(records, np.arange(90) % 30)

    assert "ignores the labels" in caplog.text
    assert_apart(split, records.columns["identity"])
    assert sizes(split) == [72, 9, 9]


@pytest.mark.filterwarnings("error")
def test_one_label_rarer_than_the_folds_causes_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    records, labels = crowd()
    labels = np.where(np.arange(1200) < 3, 6, labels)

    with caplog.at_level(logging.WARNING):
        split = splits.identity(records, labels)

    assert not caplog.text
    assert sum(sizes(split)) == 1200


def test_train80_trains_on_published_val_and_tests_on_published_test() -> None:
    records, labels = crowd()
    identity = records.columns["identity"]

    split = splits.train80(records, labels)

    assert set(identity[split.test]) == {4, 5, 6, 7, 8, 9}
    assert set(identity[split.train]) | set(identity[split.val]) == {0, 1, 2, 3}
    assert len(set(identity[split.val])) == 1
    with pytest.raises(UserError, match="ranks and identities"):
        splits.train80(*blocks(20, 20))


def test_official_uses_the_published_parts() -> None:
    records, labels = crowd()

    split = splits.official(records, labels, seed=9)

    for part in PARTS:
        assert split.part(part).tolist() == np.flatnonzero(records.columns["part"] == part).tolist()
    assert (split.name, split.val_is_test) == ("official", False)


def test_official_draws_val_from_train_if_no_val_is_published() -> None:
    names, part = np.array([str(i) for i in range(60)]), np.repeat(np.array(["train", "test", ""]), [40, 10, 10])
    labels = np.arange(60) % 2

    split = splits.official(Records(names, {"part": part}), labels, val_share=0.2)

    assert sizes(split) == [32, 8, 10]
    assert per_label(labels, split.val, 2) == [4, 4]
    assert split.test.tolist() == list(range(40, 50))
    assert split.train.max() < 40  # the ten images without a part are in none


def test_official_with_val_from_test_keeps_all_train_images() -> None:
    records, labels = crowd()

    split = splits.official(records, labels, val_from_test=True)

    assert split.val.tolist() == split.test.tolist()
    assert split.train.tolist() == np.flatnonzero(records.columns["part"] == "train").tolist()
    assert (split.name, split.val_is_test) == ("official-valtest", True)


def test_official_without_published_parts_raises_and_recommends_a_split() -> None:
    records, labels = blocks(5)
    untested = Records(records.names, {"part": np.array(["train"] * 5)})

    with pytest.raises(UserError, match="this data has none: use data/split=random"):
        splits.official(records, labels)
    with pytest.raises(UserError, match="needs test images: this data lists none, but 5 train; use data/split=random"):
        splits.official(untested, labels)


def test_official_without_parts_recommends_the_split_without_a_leak_first() -> None:
    records, labels = crowd()
    unranked = Records(records.names, {"identity": records.columns["identity"]})

    with pytest.raises(UserError, match="has none: use data/split=identity, or random, which leaks identities"):
        splits.official(unranked, labels)


@pytest.mark.parametrize(
    ("protocol", "there", "advice"),
    [
        (splits.official, "train", "but 1,000 train; use data/split=identity, or random, which leaks identities"),
        (splits.train80, "val", "but 80 val; use data/split=random"),  # only four people, too few for identity
    ],
)
def test_an_error_counts_the_listed_images_of_an_absent_part(protocol: Any, there: str, advice: str) -> None:
    everything, labels = crowd()
    rows = np.flatnonzero(everything.columns["part"] == there)

    with pytest.raises(UserError) as caught:
        protocol(everything.take(rows), labels[rows])

    assert "needs test images: the data set lists 120 and none of them is present, " in str(caught.value)
    assert str(caught.value).endswith(advice)


def test_an_absent_val_part_is_drawn_from_train_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    everything, labels = crowd()
    rows = np.flatnonzero(everything.columns["part"] != "val")

    split = splits.official(everything.take(rows), labels[rows])

    assert sizes(split) == [900, 100, 120]
    assert "none of the 80 images of the val part is present" in caplog.text


@pytest.mark.parametrize(
    ("protocol", "shares"),
    [
        (splits.random, {"test_share": 1.0}),
        (splits.random, {"val_share": 0.5, "test_share": 0.5}),
        (splits.identity, {"val_share": 0.0}),
        (splits.lecture, {"test_share": 0}),
    ],
)
def test_shares_that_leave_a_part_empty_raise(protocol: Any, shares: dict[str, float]) -> None:
    with pytest.raises(UserError, match="shares above 0 that leave images for train"):
        protocol(*crowd(), **shares)


def test_lecture_draws_per_label_images_and_its_val_is_its_test() -> None:
    records, labels = blocks(300, 250, 60)

    split = splits.lecture(records, labels, per_label=200)

    assert per_label(labels, split.train, 3) == [160, 160, 48]
    assert per_label(labels, split.test, 3) == [40, 40, 12]
    assert split.val.tolist() == split.test.tolist()
    assert split.val_is_test


def test_lecture_splits_each_label_as_scikit_learn_does() -> None:
    records, labels = blocks(10, 20)  # fewer than per_label: all of them, so that only the 80/20 split is random

    split = splits.lecture(records, labels, seed=42)

    cuts = [train_test_split(np.flatnonzero(labels == i), test_size=0.2, random_state=42) for i in (0, 1)]
    assert split.train.tolist() == sorted([*cuts[0][0], *cuts[1][0]])
    assert split.test.tolist() == sorted([*cuts[0][1], *cuts[1][1]])


def test_lecture_draws_from_all_images_of_a_label_by_seed() -> None:
    records, labels = blocks(1000, 1000)

    first, again, other = (splits.lecture(records, labels, seed=seed, per_label=50) for seed in (3, 3, 4))

    used = [np.union1d(split.train, split.test) for split in (first, again, other)]
    assert used[0].tolist() == used[1].tolist()
    assert used[0].tolist() != used[2].tolist()
    for label in (0, 1):  # the mean of 50 of 1,000 rows has a standard deviation of 40
        assert abs(np.mean(used[0][labels[used[0]] == label] - 1000 * label) - 499.5) < 160


def test_lecture_splits_by_seed() -> None:
    records, labels = blocks(40)  # fewer than per_label: all of them, so that only the 80/20 split is random

    split = splits.lecture(records, labels, seed=7)

    train, test = train_test_split(np.arange(40), test_size=0.2, random_state=7)
    assert (split.train.tolist(), split.test.tolist()) == (sorted(train), sorted(test))


def test_lecture_raises_for_a_label_with_one_image() -> None:
    with pytest.raises(UserError, match="label 1 has 1"):
        splits.lecture(*blocks(10, 1))


def test_lecture_draws_by_decade_for_every_target_of_ages() -> None:
    ages = np.repeat(np.arange(20, 50), 9)  # 90 images a decade, 9 a year
    records = Records(np.array([str(i) for i in range(270)]), {"age": ages})

    by_age, by_decade = (splits.lecture(records, labels, per_label=50) for labels in (ages - 20, ages // 10 - 2))

    assert np.bincount(ages[by_age.train] // 10).tolist() == [0, 0, 40, 40, 40]
    assert np.bincount(ages[by_age.test] // 10).tolist() == [0, 0, 10, 10, 10]
    for part in PARTS:
        assert by_age.part(part).tolist() == by_decade.part(part).tolist()


def test_lecture_warns_of_decades_with_too_few_images(caplog: pytest.LogCaptureFixture) -> None:
    ages = np.repeat([15, 25, 35], [42, 250, 120])
    records = Records(np.array([str(i) for i in range(len(ages))]), {"age": ages})

    splits.lecture(records, ages - 15)
    warning = caplog.text
    caplog.clear()
    splits.lecture(records, ages - 15, per_label=42)

    assert (
        "2 of 3 decades have fewer than the 200 images of the protocol (10s 42, 30s 120); 362 of 600 are used"
        in warning
    )
    assert not caplog.text


def test_subset_draws_the_given_numbers_of_images() -> None:
    records, labels = blocks(500, 500)

    split = splits.subset(records, labels, train=300, val=60, test=200)

    assert sizes(split) == [300, 60, 200]
    assert_apart(split, np.arange(1000))


def test_subset_shrinks_in_proportion_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    records, labels = blocks(730)  # of 22,000 wanted: 331.8, 66.4 and 331.8

    with caplog.at_level(logging.WARNING):
        split = splits.subset(records, labels)

    assert sizes(split) == [331, 66, 331]
    assert_apart(split, np.arange(730))
    assert "730 images are fewer than the 22,000" in caplog.text
    assert "331 / 66 / 331" in caplog.text


def test_subset_raises_if_a_part_would_be_empty() -> None:
    with pytest.raises(UserError, match="got 5 images"):
        splits.subset(*blocks(5))


def write(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.write_bytes(text.encode(encoding))
    return str(path)


def test_column_without_a_file_uses_the_split_column_of_the_table() -> None:
    records, labels = crowd()

    split = splits.column(replace(records, own_parts=True), labels)

    assert split.name == "column"
    assert split.test.tolist() == splits.official(records, labels).test.tolist()


def test_column_without_a_file_does_not_use_published_parts() -> None:
    for records, labels in (crowd(), blocks(5, 5)):
        with pytest.raises(UserError, match=r"column needs your own lists: data\.split\.file=LIST\.csv"):
            splits.column(records, labels)


@pytest.mark.parametrize("header", ["name,part", "split,name"])
def test_column_reads_a_list_in_any_order_with_or_without_a_byte_order_mark(tmp_path: Path, header: str) -> None:
    records, labels = blocks(6)
    rows = [("4", "train"), ("0", "test"), ("5", "val"), ("2", "train"), ("3", "")]  # 1 is not listed
    lines = [f"{name},{part}" if header == "name,part" else f"{part},{name}" for name, part in rows]
    file = write(tmp_path / "mine.csv", "\n".join([header, *lines]), "utf-16")

    split = splits.column(records, labels, file=file)

    assert [split.part(part).tolist() for part in PARTS] == [[2, 4], [5], [0]]
    assert (split.name, split.val_is_test) == ("column-mine", False)


def test_column_draws_val_from_train_if_the_file_has_none(tmp_path: Path) -> None:
    records, labels = blocks(25)
    rows = "\n".join(f"{i},{'train' if i < 20 else 'test'}" for i in range(25))
    file = write(tmp_path / "mine.csv", f"name,part\n{rows}")

    split = splits.column(records, labels, file=file)

    assert sizes(split) == [18, 2, 5]


def test_column_warns_of_listed_images_that_are_not_in_the_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "mine.csv", "name,part\n0,train\n1,val\n2,test\ngone.jpg,train\n")

    with caplog.at_level(logging.WARNING):
        splits.column(*blocks(3), file=file)

    assert "1 image that " in caplog.text
    assert "lists is not in this data, such as gone.jpg" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,part\n0,training\n1,test\n", "part must be train, val or test, got training"),
        (
            "name,part\nx,train\n1,test\n",
            r"lists for train is in this data \(1 listed\): it lists x, the data has 0$",
        ),
        (
            "name,part\n0,train\ny,test\nz,test",
            r"lists for test is in this data \(2 listed\): it lists y, the data has 0$",
        ),
        ("file,fold\n0,train\n1,test\n", "columns name and part, and its first line has file, fold"),
        ("name,part\n0,train\n1,val\n", r"has no line whose part is test \(it has 1 train, 1 val\)"),
        ("name,part\n0,train\n0,test\n", "1 image is in train and in test, such as 0; remove them from one"),
        ("name,part\n0,train\n1,val\n2,val\n1,test\n", "1 image is in val and in test, such as 1"),
        ("", "columns name and part"),
    ],
)
def test_column_raises_for_a_list_that_does_not_match_the_data(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / "mine.csv", text)

    with pytest.raises(UserError, match=message):
        splits.column(*blocks(3), file=file)


def test_column_raises_for_a_missing_file_and_one_in_no_known_encoding(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_bytes(b"name,part\n\xfc\xff\x81.jpg,train\n")  # neither UTF-8 nor cp932

    with pytest.raises(UserError, match="save it as CSV UTF-8"):
        splits.column(*blocks(3), file=file)
    with pytest.raises(UserError, match=r"no file .*; a relative path starts at"):
        splits.column(*blocks(3), file=str(tmp_path / "other.csv"))


def test_column_reads_one_list_per_part_in_each_supported_format(tmp_path: Path) -> None:
    names = ["20_Ann_0001.jpg", "21_Bo_0001.jpg", "22_Cy, Jr._0001.jpg", "23_Di_0001.jpg", "24_Ed_0001.jpg", "9.jpg"]
    published = write(tmp_path / "cacd_train.csv", f",file,age\n0,{names[0]},6\n1,{names[3]},9\n")  # CORAL's layout
    lines = write(tmp_path / "val.txt", f"{names[2]}\n\n", "utf-8-sig")
    bare = write(tmp_path / "test.csv", f"{names[1]},21\n{names[4]},24\n")

    split = splits.column(Records(np.array(names)), np.zeros(6, dtype=int), train=published, val=lines, test=bare)

    assert [split.part(part).tolist() for part in PARTS] == [[0, 3], [2], [1, 4]]
    assert split.name == "column-cacd_train-val-test"


@pytest.mark.parametrize("header", ["name", "path,label", "id,file", "Image,x"])
def test_a_list_of_one_part_is_read_from_its_name_column(tmp_path: Path, header: str) -> None:
    place = next(i for i, cell in enumerate(header.split(",")) if cell.lower() in ("name", "path", "file", "image"))
    rows = [["7"] * len(header.split(",")) for _ in range(2)]
    for row, name in zip(rows, ("0", "1"), strict=True):
        row[place] = name
    train = write(tmp_path / "train.csv", "\n".join([header, *map(",".join, rows)]))
    test = write(tmp_path / "test.txt", "2\n")

    split = splits.column(*blocks(8), train=train, val=test, test=test)

    assert split.train.tolist() == [0, 1]
    assert split.val_is_test
    assert split.name == "column-train-test"


def test_column_draws_val_from_train_without_a_val_list(tmp_path: Path) -> None:
    records, labels = blocks(20, 20, 10)
    train = write(tmp_path / "train.txt", "\n".join(map(str, range(40))))
    test = write(tmp_path / "test.txt", "\n".join(map(str, range(40, 50))))

    split = splits.column(records, labels, train=train, test=test, val_share=0.25)

    assert per_label(labels, split.train, 3) == [15, 15, 0]
    assert per_label(labels, split.val, 3) == [5, 5, 0]
    assert split.test.tolist() == list(range(40, 50))


def test_names_match_in_any_unicode_form_or_by_file_name(tmp_path: Path) -> None:
    names = ["a/Zo\u00eb.jpg", "a/1.jpg", "b/1.jpg", "a/2.jpg", "a/3.jpg"]
    train = write(tmp_path / "train.txt", "a/Zoe\u0308.jpg\nCACD2000\\2.jpg\n")
    test = write(tmp_path / "test.txt", "b/1.jpg\nelsewhere/3.jpg\n")
    val = write(tmp_path / "val.txt", "a/1.jpg\n")

    split = splits.column(Records(np.array(names)), np.zeros(5, dtype=int), train=train, val=val, test=test)

    assert [split.part(part).tolist() for part in PARTS] == [[0, 3], [1], [2, 4]]


def test_an_ambiguous_file_name_matches_no_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = Records(np.array(["a/1.jpg", "b/1.jpg", "a/2.jpg", "a/3.jpg", "a/4.jpg"]))
    train = write(tmp_path / "train.txt", "1.jpg\na/3.jpg\nx/2.jpg\n")  # two images have this file name
    test = write(tmp_path / "test.txt", "y/2.jpg\na/4.jpg\n")  # and two lines match a/2.jpg

    with caplog.at_level(logging.WARNING):
        split = splits.column(records, np.zeros(5, dtype=int), train=train, val=test, test=test)

    assert [split.train.tolist(), split.test.tolist()] == [[3], [4]]
    assert "3 images that" in caplog.text
    assert "such as 1.jpg" in caplog.text
    assert len(caplog.records) == 1


def test_images_in_two_lists_raise_with_their_number(tmp_path: Path) -> None:
    train = write(tmp_path / "train.txt", "\n".join(map(str, range(60))))
    test = write(tmp_path / "test.txt", "\n".join(map(str, range(30, 100))))

    with pytest.raises(UserError, match=r"train\.txt and .*test\.txt: 30 images are in train and in test, such as 30;"):
        splits.column(*blocks(100), train=train, test=test)
    with pytest.raises(UserError, match="30 images are in train and in test"):
        splits.column(*blocks(100), train=train, val=test, test=test)


def test_an_error_names_the_list_without_a_match_and_one_of_its_names(tmp_path: Path) -> None:
    train = write(tmp_path / "train.txt", "0\n1\n2\n")
    test = write(tmp_path / "test.txt", "\nface1.jpg\nface2.jpg\n")
    empty = write(tmp_path / "empty.txt", "\n")

    with pytest.raises(UserError, match=r"test\.txt: no image .* \(2 listed\): it lists face1\.jpg") as caught:
        splits.column(*blocks(5), train=train, test=test)
    assert "train.txt" not in str(caught.value)
    with pytest.raises(UserError, match=r"empty\.txt lists no image for test"):
        splits.column(*blocks(5), train=train, test=empty)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_lists_with_semicolons_or_tabs_are_read(tmp_path: Path, mark: str) -> None:
    rows = [("name", "part"), ("0", "train"), ("1", "val"), ("2", "test")]
    file = write(tmp_path / "mine.csv", "\n".join(mark.join(row) for row in rows), "utf-8-sig")
    one = write(tmp_path / "one.csv", f"file{mark}age\n0{mark}30,5\n")
    two = write(tmp_path / "two.csv", f"1{mark}30,5\n")

    split = splits.column(*blocks(3), file=file)
    of_one = splits.column(*blocks(3), train=one, val=two, test=two)

    assert [split.part(part).tolist() for part in PARTS] == [[0], [1], [2]]
    assert of_one.train.tolist() == [0]


def test_a_semicolon_in_a_table_with_commas_is_not_its_delimiter(tmp_path: Path) -> None:
    records = Records(np.array(["0", "1", "2"]))
    file = write(tmp_path / "mine.csv", "name,part,note (a; b)\n0,train,x\n1,val,y\n2,test,z\n")

    split = splits.column(records, np.zeros(3, dtype=int), file=file)

    assert [split.part(part).tolist() for part in PARTS] == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"file": "a.csv", "test": "b.txt"}, "not both"),
        ({"train": "b.txt"}, r"needs data.split.test=FILE too"),
        ({"val": "b.txt", "test": "b.txt"}, r"needs data.split.train=FILE too"),
        ({"train": "b.txt", "test": "gone.txt"}, "no file gone.txt"),
    ],
)
def test_an_incomplete_set_of_lists_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "b.txt", "0\n")

    with pytest.raises(UserError, match=message):
        splits.column(*blocks(3), **given)


@pytest.mark.parametrize("protocol", [splits.random, splits.identity, splits.lecture, splits.kfold])
def test_the_split_csv_of_a_run_gives_the_same_split(tmp_path: Path, protocol: Any) -> None:
    from agebench.runs.tables import write_split

    records, labels = crowd()
    split = protocol(records, labels, seed=7)
    target = SimpleNamespace(labels=labels, label_names=tuple("abcdef"))
    run: Any = SimpleNamespace(records=records, split=split, target=target, missing=[], broken={})
    write_split(tmp_path, run)

    again = splits.column(records, labels, file=str(tmp_path / "split.csv"))

    with (tmp_path / "split.csv").open(encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    assert Counter(row["part"] for row in rows) == dict(zip(PARTS, sizes(split), strict=True))
    assert rows[0].keys() == {"name", "part", "identity", "target"}
    assert [again.part(part).tolist() for part in PARTS] == [split.part(part).tolist() for part in PARTS]
    assert again.val_is_test == split.val_is_test


def test_per_class_caps_only_train_and_limit_caps_each_part() -> None:
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


@pytest.mark.parametrize("cap", [{"per_class": 50, "limit": None}, {"per_class": None, "limit": 100}], ids=str)
def test_a_cap_draws_at_random_with_a_fixed_seed(cap: dict[str, Any]) -> None:
    _, labels = blocks(3000, 3000)
    rows = np.arange(6000)
    split = Split("mine", rows[::3], rows[1::3], rows[2::3])

    kept, again = splits.cap(split, labels, **cap), splits.cap(split, labels, **cap)

    for part in PARTS:
        assert kept.part(part).tolist() == again.part(part).tolist()
        if cap["limit"] is None and part != "train":
            continue
        assert per_label(labels, kept.part(part), 2) == [50, 50]
        for label in (0, 1):  # the mean of 50 of 3,000 rows has a standard deviation of 122
            chosen = kept.part(part)[labels[kept.part(part)] == label] - 3000 * label
            assert abs(chosen.mean() - 1499.5) < 490


def test_a_cap_above_the_number_of_images_keeps_all() -> None:
    records, labels = crowd()
    split = splits.official(records, labels)

    assert splits.cap(split, labels, per_class=None, limit=None) == split
    assert sizes(splits.cap(split, labels, per_class=10**6, limit=10**6)) == sizes(split)


def test_a_limit_keeps_val_equal_to_test() -> None:
    records, labels = blocks(50, 50)

    split = splits.cap(splits.lecture(records, labels), labels, per_class=None, limit=4)

    assert split.val.tolist() == split.test.tolist()
    assert (len(split.test), split.val_is_test) == (4, True)


@pytest.mark.parametrize("empty", PARTS)
def test_check_raises_for_an_empty_part(empty: str) -> None:
    rows = {"train": [0], "val": [1], "test": [2]} | {empty: []}
    split = Split("mine", **{part: np.array(r, dtype=np.int64) for part, r in rows.items()})

    with pytest.raises(UserError, match=f"data/split=mine leaves no image in {empty}"):
        splits.check(split)


@pytest.mark.parametrize("part", ["val", "test"])
def test_check_raises_for_a_train_image_in_another_part(part: str) -> None:
    rows = {"train": [0, 1, 2], "val": [3], "test": [4]} | {part: [2, 5]}
    split = Split("mine", **{name: np.array(r) for name, r in rows.items()})

    with pytest.raises(UserError, match=f"1 image is in train and in {part}"):
        splits.check(split)


def test_the_test_sha_depends_on_the_images_but_not_on_their_order() -> None:
    records, _ = blocks(10)

    first = splits.test_sha(records, np.array([1, 5, 3]))

    assert first == splits.test_sha(records, np.array([3, 1, 5]))
    assert first != splits.test_sha(records, np.array([3, 1, 6]))
    assert len(first) == 16


SPLITS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "data" / "split").glob("*.yaml"))


@pytest.mark.parametrize("name", SPLITS)
def test_the_seed_of_a_run_does_not_change_the_split(compose_config: Any, tmp_path: Path, name: str) -> None:
    from agebench.build.data import build_planner

    identity, parts = np.arange(300) % 30, np.repeat(["val", "test", "train"], [60, 60, 180])
    rows = [
        f"{i}.png,{20 + i * 7 % 40},p{who},{part}" for i, (who, part) in enumerate(zip(identity, parts, strict=True))
    ]
    table = write(tmp_path / "table.csv", "\n".join(["path,label,identity,split", *rows]))
    line = [f"data.root={table}", "data.source.label=age", "data.target=decade", f"data/split={name}", "data.limit=50"]
    line += ["data.per_class=9"]

    plans = []
    for seed in (0, 1):
        plans.append(build_planner(compose_config("data=table", *line, f"seed={seed}")).plan(listed=True))

    for part in PARTS:
        assert len(plans[0].split.part(part)) > 0 or (name == "test_only" and part != "test")
        assert plans[0].split.part(part).tolist() == plans[1].split.part(part).tolist()


def label_shares(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.bincount(labels[rows], minlength=labels.max() + 1) / len(rows)


@pytest.mark.data
def test_the_official_split_of_the_real_cacd_is_the_published_one(real_cacd: Records) -> None:
    split = splits.official(real_cacd, make_target(real_cacd, "decade").labels)

    identity = real_cacd.columns["identity"]
    assert sizes(split) == [145_275, 7_600, 10_571]
    assert [len(np.unique(identity[split.part(part)])) for part in PARTS] == [1_800, 80, 120]
    assert_apart(split, identity)


@pytest.mark.data
def test_train80_of_the_real_cacd_has_80_people_for_training_and_120_for_test(real_cacd: Records) -> None:
    split = splits.train80(real_cacd, make_target(real_cacd, "age").labels)

    identity = real_cacd.columns["identity"]
    assert len(split.train) + len(split.val) == 7_600
    assert [len(np.unique(identity[split.part(part)])) for part in PARTS] == [72, 8, 120]
    assert_apart(split, identity)


@pytest.mark.data
def test_random_on_the_real_cacd_has_the_age_shares_of_the_data_in_each_part(real_cacd: Records) -> None:
    labels = make_target(real_cacd, "age").labels

    split = splits.random(real_cacd, labels)

    whole = np.bincount(labels)
    for part, share in zip(PARTS, (0.8, 0.1, 0.1), strict=True):
        assert np.abs(np.bincount(labels[split.part(part)]) - share * whole).max() <= 1.5
    assert_apart(split, np.arange(len(real_cacd)))


@pytest.mark.data
def test_the_lecture_on_the_real_cacd_is_160_and_40_a_decade(real_cacd: Records) -> None:
    split = splits.lecture(real_cacd, make_target(real_cacd, "age").labels)

    decades = real_cacd.columns["age"] // 10
    assert np.bincount(decades[split.train])[1:].tolist() == [160] * 6
    assert np.bincount(decades[split.test])[1:].tolist() == [40] * 6
    assert split.val_is_test


@pytest.mark.data
@pytest.mark.parametrize("target", ["age", "decade"])
def test_identity_on_the_real_cacd_is_stratified_and_takes_at_most_5_seconds(real_cacd: Records, target: str) -> None:
    labels = make_target(real_cacd, target).labels

    start = time.process_time()
    split = splits.identity(real_cacd, labels)
    seconds = time.process_time() - start

    assert seconds <= 5
    assert_apart(split, real_cacd.columns["identity"])
    np.testing.assert_allclose(np.array(sizes(split)) / 163_446, [0.8, 0.1, 0.1], atol=0.002)
    whole = label_shares(labels, np.arange(len(labels)))
    for part in PARTS:  # 0.0014 at most when this was written; 200 people drawn blindly are off by 0.006 to 0.009
        np.testing.assert_allclose(label_shares(labels, split.part(part)), whole, atol=0.002)


@pytest.mark.data
def test_each_image_of_the_real_cacd_is_in_test_of_one_of_five_folds(real_cacd: Records) -> None:
    labels, identity = make_target(real_cacd, "age").labels, real_cacd.columns["identity"]

    folds = [splits.kfold(real_cacd, labels, fold=fold) for fold in range(5)]

    assert np.sort(np.concatenate([split.test for split in folds])).tolist() == list(range(163_446))
    for split in folds:
        assert_apart(split, identity)
        assert np.abs(label_shares(labels, split.test) - label_shares(labels, np.arange(len(labels)))).max() < 0.002


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.1), (0.3, 0.5), (0.15, 0.2), (0.1, 0.25), (0.4, 0.4)])
def test_identity_has_the_given_shares(val: float, test: float) -> None:
    records = Records(
        np.array([f"{i:04d}" for i in range(2000)]), {"identity": np.arange(2000) % 400, "class": np.arange(2000) % 2}
    )

    split = splits.identity(records, np.arange(2000) % 2, val_share=val, test_share=test)

    assert len(split.val) / 2000 == pytest.approx(val, abs=0.02)
    assert len(split.test) / 2000 == pytest.approx(test, abs=0.02)


def by_scikit_learn(labels: np.ndarray, groups: np.ndarray, *, seed: int, k: int) -> np.ndarray:
    """Return the fold of each image from scikit-learn's StratifiedGroupKFold."""
    folds = np.full(len(labels), -1)
    cut = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a label with fewer images than folds
        for number, (_, rows) in enumerate(cut.split(np.zeros(len(labels)), labels, groups)):
            folds[rows] = number
    return folds


@pytest.mark.parametrize("num_labels", [1, 2, 7, 8, 9, 60])
@pytest.mark.parametrize("k", [3, 8, 10, 20])
def test_folds_of_groups_are_those_of_scikit_learn(k: int, num_labels: int) -> None:
    rng = np.random.default_rng(100 * k + num_labels)
    for seed in range(4):
        count = int(rng.integers(k, 80))
        sizes = np.minimum(rng.zipf(1.7, count), 40) if seed % 2 else rng.integers(1, 12, count)  # many are equal
        groups = rng.permutation(np.repeat(np.arange(count), sizes))
        labels = np.minimum(rng.geometric(0.2, len(groups)) - 1, num_labels - 1)
        labels[rng.integers(0, len(labels), 2 * k)] = 0  # a label in at least k images, which scikit-learn needs
        if np.bincount(labels).max() < k:
            continue

        folds = stratified_group_folds(labels, groups, seed=seed, k=k)

        assert folds.tolist() == by_scikit_learn(labels, groups, seed=seed, k=k).tolist()


def test_folds_of_more_groups_than_one_block_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    groups = np.concatenate([np.arange(5000), rng.integers(0, 5000, 1000)])
    labels = rng.integers(0, 3, 6000)

    folds = stratified_group_folds(labels, groups, seed=1, k=3)

    assert folds.tolist() == by_scikit_learn(labels, groups, seed=1, k=3).tolist()


@pytest.mark.parametrize("share", [0.1, 1 / 9, 0.37])
def test_a_stratified_share_is_that_of_a_plain_loop_over_the_labels(share: float) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 9, 700)
    rows = np.sort(rng.permutation(700)[:500])

    rest, drawn = take_share(rows, labels, share, np.random.default_rng(5))

    found = np.unique(labels[rows])
    quota = share * np.array([(labels[rows] == label).sum() for label in found])
    count, ties = np.floor(quota).astype(int), np.random.default_rng(0).permutation(len(found))
    by_remainder = sorted(range(len(found)), key=lambda i: (round(count[i] - quota[i], 9), ties[i]))
    for i in by_remainder[: round(share * 500) - count.sum()]:
        count[i] += 1
    draws, expected = np.random.default_rng(5), []
    for label, size in zip(found, count, strict=True):
        expected += draws.permutation([row for row in rows if labels[row] == label])[:size].tolist()
    assert drawn.tolist() == sorted(expected)
    assert rest.tolist() == sorted(set(rows.tolist()) - set(expected))


def test_images_of_unknown_identity_are_split_one_by_one() -> None:
    people = np.array([f"p{i % 30}" if i < 300 else "" for i in range(600)])
    records = Records(np.array([f"{i:03d}" for i in range(600)]), {"identity": people})

    split = splits.identity(records, np.arange(600) % 3)

    unknown = [int((people[split.part(part)] == "").sum()) for part in PARTS]
    assert min(unknown) > 0
    assert sum(unknown) == 300
    assert_apart(split, np.where(people == "", records.names, people))


def test_identity_without_a_known_identity_raises() -> None:
    records = Records(np.array([f"{i}" for i in range(100)]), {"identity": np.full(100, "")})

    with pytest.raises(UserError, match="needs the identity of each image, and this data has none"):
        splits.identity(records, np.zeros(100, dtype=np.int64))


def test_test_only_tests_every_image() -> None:
    records, labels = blocks(5, 3)

    split = splits.test_only(records, labels)

    assert sizes(split) == [0, 0, 8]
    assert split.test.tolist() == list(range(8))
    splits.check(split)


def test_the_limits_of_images_hold_for_test_only() -> None:
    records, labels = blocks(5, 3)

    split = splits.cap(splits.test_only(records, labels), labels, per_class=2, limit=4)

    assert split.name == "test_only-per2-limit4"
    assert per_label(labels, split.test, 2) == [2, 2]
    assert sizes(split) == [0, 0, 4]
    splits.check(split)


def test_a_split_without_train_images_raises_unless_it_is_for_tests_only() -> None:
    none = np.array([], dtype=np.int64)

    with pytest.raises(UserError, match="leaves no image in train"):
        splits.check(Split("mine", none, none, np.arange(3)))
    with pytest.raises(UserError, match="leaves no image in test"):
        splits.check(Split("mine", none, none, none, test_only=True))


@pytest.mark.slow
def test_identity_of_a_million_images_takes_at_most_5_seconds() -> None:
    rng = np.random.default_rng(0)
    people, labels = rng.integers(0, 20_000, 1_000_000), rng.integers(0, 101, 1_000_000)
    records = Records(np.arange(1_000_000).astype(np.str_), {"identity": np.char.mod("p%05d", people)})

    start = time.process_time()
    split = splits.identity(records, labels)
    seconds = time.process_time() - start

    assert seconds <= 5  # 1.5 when this was written, 12 with scikit-learn's class
    assert_apart(split, people)
