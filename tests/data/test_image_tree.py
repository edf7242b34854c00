"""Export of images to one folder for each class."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agebench.data import split as splits
from agebench.data.image_tree import export_tree
from agebench.data.packed import PackedImages, pack
from agebench.data.plan import Planner
from agebench.data.resize import Resize
from agebench.data.sources.digits import Digits
from agebench.data.sources.folder import Folder
from agebench.data.sources.table import Table
from agebench.errors import UserError

COLUMNS = {"path": "path", "label": "label", "identity": "identity", "split": "split"}


def packed(cache: Path, source: Any, split: Any, *, channels: int = 3, **changes: Any) -> PackedImages:
    plan = Planner(source, split, **{"name": "mine", "target": "class"} | changes).plan()
    return pack(source, plan, resize=Resize(8, channels), cache=cache)


def ages(root: Path) -> Table:
    """Write a table of 60 people, 10 to 69 years old, with pictures in nested folders."""
    lines = ["path,label"]
    for age in range(10, 70):
        path = root / "faces" / str(age % 3) / f"{age}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (age, age, age)).save(path)
        lines.append(f"faces/{age % 3}/{age}.png,{age}")
    (root / "table.csv").write_text("\n".join(lines))
    return Table(str(root / "table.csv"), COLUMNS, label="age")


def test_an_exported_tree_read_as_folders_has_the_same_files_and_parts(tmp_path: Path) -> None:
    data = packed(tmp_path / "cache", ages(tmp_path), splits.random, target="decade")

    count = export_tree(data, tmp_path / "tree")

    back = packed(tmp_path / "cache", Folder(str(tmp_path / "tree")), splits.official)
    assert count == 60
    assert back.plan.target.label_names == ("10s", "20s", "30s", "40s", "50s", "60s")
    assert back.plan.counts == data.plan.counts
    for part in ("train", "val", "test"):
        names = data.plan.records.names[data.plan.split.part(part)]
        labels = [data.plan.target.label_names[i] for i in data.plan.target.labels[data.plan.split.part(part)]]
        for name, label in zip(names, labels, strict=True):
            copy = tmp_path / "tree" / part / label / name
            assert copy.read_bytes() == (tmp_path / name).read_bytes()


def test_a_split_whose_val_is_its_test_is_exported_as_train_and_val(tmp_path: Path) -> None:
    data = packed(tmp_path / "cache", ages(tmp_path), partial(splits.lecture, per_label=5), target="decade")

    export_tree(data, tmp_path / "tree")

    assert sorted(path.name for path in (tmp_path / "tree").iterdir()) == ["train", "val"]
    assert len(list((tmp_path / "tree" / "train" / "30s").rglob("*.png"))) == 4
    assert len(list((tmp_path / "tree" / "val" / "30s").rglob("*.png"))) == 1


def test_images_without_files_are_exported_as_png(tmp_path: Path) -> None:
    data = packed(tmp_path / "cache", Digits(), splits.random, channels=1, limit=3)

    export_tree(data, tmp_path / "tree")

    files = sorted((tmp_path / "tree").rglob("*.png"))
    assert len(files) == 9
    for file in files:
        expected = np.asarray(Digits().open(int(file.stem)))
        np.testing.assert_array_equal(np.asarray(Image.open(file)), expected)
        assert int(file.parent.name) == Digits().records().columns["class"][int(file.stem)]


def test_paths_of_a_table_stay_inside_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    lines = ["path,label"]
    for i in range(20):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (8, 8)).save(path)
        lines.append(f"{path if i % 2 else '../' + path.name},<{i % 2}")
    (inside / "table.csv").write_text("\n".join(lines))
    data = packed(tmp_path / "cache", Table(str(inside / "table.csv"), COLUMNS), splits.random)

    count = export_tree(data, tmp_path / "tree")

    assert count == len(list((tmp_path / "tree").rglob("*.png"))) == 20
    assert {path.name for path in (tmp_path / "tree" / "train").iterdir()} == {"_0", "_1"}


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "stopped"]
)
def test_a_partial_export_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    data = packed(tmp_path / "cache", ages(tmp_path), splits.random, target="decade")
    read, written = PackedImages.file, []

    def fail_later(images: PackedImages, row: int) -> Any:
        written.append(row)
        if len(written) == 20:
            raise error
        return read(images, row)

    monkeypatch.setattr(PackedImages, "file", fail_later)

    with pytest.raises((UserError, KeyboardInterrupt)) as raised:
        export_tree(data, tmp_path / "tree")

    assert not (tmp_path / "tree").exists()
    if isinstance(error, OSError):
        assert "(No space left on device); the partial export was deleted: choose another export=FOLDER" in str(
            raised.value
        )
    monkeypatch.undo()
    assert export_tree(data, tmp_path / "tree") == 60


def test_a_name_with_a_dot_is_kept_before_png(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = Digits()
    records = digits.records()
    monkeypatch.setattr(digits, "records", lambda: replace(records, names=np.char.add(records.names, ".5")))
    data = packed(tmp_path / "cache", digits, splits.random, channels=1, limit=3)

    export_tree(data, tmp_path / "tree")

    expected = {f"{name}.png" for part in splits.PARTS for name in data.plan.records.names[data.plan.split.part(part)]}
    assert {path.name for path in (tmp_path / "tree").rglob("*.png")} == expected


@pytest.mark.parametrize("what", ["file", "folder"])
def test_existing_files_are_not_overwritten(tmp_path: Path, what: str) -> None:
    target = tmp_path / "tree"
    if what == "file":
        target.write_text("mine")
    else:
        (target / "train").mkdir(parents=True)
    data = packed(tmp_path / "cache", Digits(), splits.random, channels=1, limit=3)

    with pytest.raises(
        UserError, match=r"cannot export to .*(not an empty folder|exists).*; choose another export=FOLDER"
    ):
        export_tree(data, target)
