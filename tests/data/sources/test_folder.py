"""Images sorted into one folder per class."""

import logging
import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agebench.data import split as splits
from agebench.data.records import Source
from agebench.data.sources.folder import Folder
from agebench.errors import UserError
from agebench.testing import check_source


def fill(root: Path, *names: str) -> Source:
    for shade, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), shade).save(path)
    return Folder(str(root))


def shade(source: Source, row: int) -> int:
    return int(np.asarray(source.open(row))[0, 0])


def test_a_folder_keeps_the_contract_of_a_source(tmp_path: Path) -> None:
    fill(tmp_path, "dog/1.png", "cat/2.png", "cat/1.png", "dog/old/3.png")

    check_source(Folder, root=str(tmp_path))


def test_one_folder_per_class_gives_classes_in_alphabetical_order_and_no_part(tmp_path: Path) -> None:
    source = fill(tmp_path, "dog/1.png", "cat/2.png", "cat/1.png", "dog/old/3.png")

    source.prepare()
    records = source.records()

    assert records.names.tolist() == ["cat/1.png", "cat/2.png", "dog/1.png", "dog/old/3.png"]
    assert records.class_names == ("cat", "dog")
    assert records.columns["class"].tolist() == [0, 0, 1, 1]
    assert "part" not in records.columns
    assert source.present().tolist() == [True] * 4
    assert [shade(source, row) for row in range(4)] == [2, 1, 0, 3]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_train_val_and_test_folders_are_published_parts(tmp_path: Path, val: str) -> None:
    source = fill(tmp_path, "train/cat/1.png", "train/dog/1.png", f"{val}/cat/1.png", "test/dog/1.png")

    records = source.records()

    part = dict(zip(records.names.tolist(), records.columns["part"].tolist(), strict=True))
    assert part == {
        "train/cat/1.png": "train",
        "train/dog/1.png": "train",
        f"{val}/cat/1.png": "val",
        "test/dog/1.png": "test",
    }
    assert records.class_names == ("cat", "dog")


def test_without_a_test_folder_val_is_the_test_part(tmp_path: Path) -> None:
    source = fill(tmp_path, *[f"train/cat/{i}.png" for i in range(20)], "val/cat/1.png")

    records = source.records()
    split = splits.official(records, records.columns["class"])

    assert records.names[split.test].tolist() == ["val/cat/1.png"]
    assert [len(split.train), len(split.val)] == [18, 2]


def test_with_only_train_and_test_val_is_drawn_from_train(tmp_path: Path) -> None:
    source = fill(tmp_path, "train/cat/1.png", "test/cat/1.png")

    assert sorted(source.records().columns["part"]) == ["test", "train"]


def test_a_class_called_test_is_a_class_without_a_train_folder(tmp_path: Path) -> None:
    source = fill(tmp_path, "test/round/1.png", "exam/1.png")

    records = source.records()

    assert records.class_names == ("exam", "test")
    assert "part" not in records.columns


def test_images_outside_the_parts_are_ignored_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = fill(tmp_path, "train/cat/1.png", "val/cat/1.png", "test/1.png", "extra/cat/1.png", "logo.png")

    with caplog.at_level(logging.WARNING):
        records = source.records()

    assert records.class_names == ("cat",)
    assert records.names.tolist() == ["train/cat/1.png", "val/cat/1.png"]
    assert [shade(source, row) for row in (0, 1)] == [0, 1]
    assert "2 images are in no class folder of train, val or test" in caplog.text


def test_the_warning_of_one_image_is_in_the_singular(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, "train/cat/1.png", "test/cat/2.png", "more/3.png").records()

    assert "1 image is in no class folder" in caplog.text


def test_kana_in_both_unicode_forms_are_one_class_name(tmp_path: Path) -> None:
    source = fill(tmp_path, unicodedata.normalize("NFD", "ぷ/1.png"))

    records = source.records()

    assert records.class_names == ("ぷ",)
    assert records.names.tolist() == ["ぷ/1.png"]
    assert shade(source, 0) == 0


@pytest.mark.parametrize("names", [(), ("1.png", "2.png")])
def test_a_folder_without_class_folders_raises(tmp_path: Path, names: tuple[str, ...]) -> None:
    source = fill(tmp_path, *names)

    with pytest.raises(UserError, match=r"expected .*/<class>/\*\.jpg"):
        source.prepare()


def test_a_tilde_stands_for_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path / "pets", "cat/1.png")

    assert len(Folder("~/pets").records()) == 1


def test_only_the_stamp_of_a_changed_file_changes(tmp_path: Path) -> None:
    source = fill(tmp_path, "cat/1.png", "cat/2.png")
    rows = np.arange(2)
    before = source.stamps(rows)

    os.utime(tmp_path / "cat" / "2.png", ns=(1, 1))
    after = source.stamps(rows)

    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_zip_is_read_with_or_without_a_folder_around_the_classes(tmp_path: Path) -> None:
    fill(tmp_path / "pets", "train/cat/1.png", "train/dog/2.png", "test/cat/3.png")
    flat, wrapped = tmp_path / "flat.zip", tmp_path / "wrapped.zip"
    for path, top in ((flat, ""), (wrapped, "pets/")):
        with zipfile.ZipFile(path, "w") as archive:
            for file in (tmp_path / "pets").rglob("*.png"):
                archive.write(file, top + file.relative_to(tmp_path / "pets").as_posix())

    for path in (flat, wrapped):
        source, folder = Folder(str(path)), Folder(str(tmp_path / "pets"))
        assert source.records().names.tolist() == folder.records().names.tolist()
        assert source.records().class_names == ("cat", "dog")
        assert source.records().columns["part"].tolist() == folder.records().columns["part"].tolist()
        assert source.open(1).tobytes() == folder.open(1).tobytes()


def test_rows_have_the_same_order_in_both_unicode_forms(tmp_path: Path) -> None:
    names = ("é/1.png", "f/1.png", "z/é.png", "z/f.png", "e/1.png")

    orders = []
    for form in ("NFC", "NFD"):
        source = fill(tmp_path / form, *(unicodedata.normalize(form, name) for name in names))
        orders.append(source.records().names.tolist())

    assert orders[0] == orders[1] == sorted(names)


@pytest.mark.parametrize("pack", [False, True])
def test_an_image_next_to_the_class_folders_is_not_a_class(tmp_path: Path, pack: bool) -> None:
    fill(tmp_path / "outer", "pets/logo.png", "pets/cat/1.png", "pets/dog/2.png")
    root = tmp_path / "outer"
    if pack:
        with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
            for file in root.rglob("*.png"):
                archive.write(file, file.relative_to(root).as_posix())
        root = tmp_path / "pets.zip"

    records = Folder(str(root)).records()

    assert records.class_names == ("cat", "dog")
    assert records.names.tolist() == ["cat/1.png", "dog/2.png"]


def test_a_file_name_that_is_not_utf8_is_read_as_latin_1(tmp_path: Path) -> None:
    fill(tmp_path, "cat/1.png", "dog/2.png")
    try:
        (tmp_path / "cat" / "1.png").rename(tmp_path / "cat" / os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("this file system takes no such name")
    source = Folder(str(tmp_path))

    assert source.records().names.tolist() == ["cat/café.png", "dog/2.png"]
    assert source.open(0).size == source.open(1).size
