"""Identical images, compared with a search that compares the contents of all pairs."""

import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agebench.data.plan import Planner
from agebench.data.records import Array
from agebench.data.sources.folder import Folder
from agebench.data.split import PARTS, Split
from agebench.leakage.duplicates import audit_duplicates, duplicates_sentence, find_copies, find_identical

# Equal contents, equal sizes with other contents, and sizes that occur once.
CONTENTS = [b"aaaa", b"bbbb", b"aaaa", b"c", b"ddddd", b"bbbb", b"aaaa", b"eeeee", b"ffffffff", b""]


class Memory:
    """Images without files."""

    def __init__(self, *colours: int) -> None:
        self.colours = colours

    def open(self, row: int) -> Image.Image:
        return Image.new("L", (2, 2), self.colours[row])

    def reading_order(self, rows: Array) -> Array:
        return rows[::-1]


def write_images(root: Path, contents: list[bytes], *, kind: str = "folder") -> Folder:
    """Return a source of files in two classes, with the given contents in the order of their names."""
    for i, content in enumerate(contents):
        path = root / ("a" if i < len(contents) // 2 else "b") / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if kind == "folder":
        return Folder(str(root))
    return Folder(shutil.make_archive(str(root), kind, root))


def equal_pairs(contents: list[bytes]) -> set[tuple[int, int]]:
    return {(i, j) for i, j in combinations(range(len(contents)), 2) if contents[i] == contents[j] != b""}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "gztar"])
def test_files_are_identical_if_their_bytes_are(tmp_path, kind) -> None:
    source = write_images(tmp_path / "faces", CONTENTS, kind=kind)

    groups = find_identical(source, np.arange(len(CONTENTS)))

    assert {pair for group in groups for pair in combinations(group.tolist(), 2)} == equal_pairs(CONTENTS)


def test_only_the_given_rows_are_compared(tmp_path) -> None:
    source = write_images(tmp_path, CONTENTS)

    groups = find_identical(source, np.array([0, 1, 3, 6]))

    assert [group.tolist() for group in groups] == [[0, 3]]


def test_files_of_a_unique_size_are_not_read(tmp_path, monkeypatch) -> None:
    source = write_images(tmp_path, CONTENTS)
    read, opened = source.read, []
    monkeypatch.setattr(source, "read", lambda row: opened.append(row) or read(row))

    find_identical(source, np.arange(len(CONTENTS)))

    assert sorted(opened) == [0, 1, 2, 4, 5, 6, 7]


def test_images_without_files_are_compared_by_their_pixels() -> None:
    groups = find_identical(Memory(5, 9, 5, 7), np.arange(4))

    assert [group.tolist() for group in groups] == [[0, 2]]


def test_copies_are_found_between_two_data_sets(tmp_path) -> None:
    first = write_images(tmp_path / "first", CONTENTS)
    second = write_images(tmp_path / "second", [b"zz", b"ddddd", b"bbbb", b"", b"gggg"])

    found = find_copies(first, np.arange(len(CONTENTS)), second, np.array([4, 2, 1, 3]))

    assert found.tolist() == [-1, 1, -1, -1, 2, 1, -1, -1, -1, -1]


def test_a_file_that_cannot_be_read_is_no_copy(tmp_path) -> None:
    source = write_images(tmp_path, [b"aa", b"bb", b"aa", b"cc"])
    source.records()
    (tmp_path / "b" / "02.jpg").unlink()

    assert find_identical(source, np.arange(4)) == []


def plan_of(source: Any, split: Split) -> Any:
    return Planner(source, lambda records, labels: split, name="mine", target="class").plan()


def test_the_pairs_are_those_of_the_parts(tmp_path) -> None:
    contents = [b"aa", b"bb", b"aa", b"bb", b"aa", b"cc", b"aa", b"cc", b"x"]
    source = write_images(tmp_path, contents)
    part = ["train", "train", "train", "val", "test", "test", "test", "test", "train"]
    split = Split("hand", *(np.array([i for i, each in enumerate(part) if each == name]) for name in PARTS))

    found, rows = audit_duplicates(source, plan_of(source, split))

    pairs = equal_pairs(contents)
    assert found["images"] == len({i for pair in pairs for i in pair})
    assert found["pairs"] == len(pairs)
    assert found["pairs_across"] == sum(part[i] != part[j] for i, j in pairs)
    in_train = {i for pair in pairs for i in pair if "train" in (part[pair[0]], part[pair[1]])}
    assert found["test_in_train"] == sum(part[i] == "test" for i in in_train)
    assert found["val_in_train"] == sum(part[i] == "val" for i in in_train)
    # Images 0 to 3 are of class a: the copies of aa have both labels.
    assert (found["groups"], found["groups_of_several_labels"]) == (3, 1)
    assert [row[:3] for row in rows[:4]] == [(1, f"a/{i:02d}.jpg", "train") for i in (0, 2)] + [
        (1, f"b/{i:02d}.jpg", "test") for i in (4, 6)
    ]
    assert [row[4] for row in rows] == ["a", "a", "b", "b", "a", "a", "b", "b"]
    assert duplicates_sentence(found) == (
        "duplicates: 8 images have an identical one (groups: 3, with several labels: 1; pairs: 8, in two parts: 5); "
        "listed in duplicates.csv"
    )


def test_where_val_is_test_its_images_are_test_images(tmp_path) -> None:
    source = write_images(tmp_path, [b"aa", b"aa", b"bb", b"bb"])
    split = Split("lecture", np.array([0]), np.array([1, 2, 3]), np.array([1, 2, 3]), val_is_test=True)

    found, _ = audit_duplicates(source, plan_of(source, split))

    assert (found["pairs"], found["pairs_across"], found["test_in_train"], found["val_in_train"]) == (2, 1, 1, 0)


def test_without_identical_images_there_is_nothing_to_list(tmp_path) -> None:
    source = write_images(tmp_path, [b"aa", b"bb", b"cc", b"dd"])
    split = Split("hand", np.array([0, 1]), np.array([2]), np.array([3]))

    found, rows = audit_duplicates(source, plan_of(source, split))

    assert set(found.values()) == {0}
    assert rows == []
    assert duplicates_sentence(found) == "duplicates: no image is identical to another one"
