"""The command prepare: its log, its lists of missing and broken images, and its checks."""

import csv
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from agebench.errors import UserError
from agebench.prepare import prepare


@pytest.fixture
def line(tmp_path: Path) -> tuple[str, ...]:
    """Return the overrides for a table of 40 images of 4 classes. The last image does not exist."""
    for i in range(39):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.png")
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(f"{i}.png,{i % 4}" for i in range(40)))
    return "data=table", f"data.root={tmp_path}/t.csv", "data.image_size=8"


def lists(folder: Path) -> dict[str, list[list[str]]]:
    return {path.name: list(csv.reader(path.open())) for path in folder.glob("*.csv")}


@pytest.mark.parametrize(
    ("change", "message", "files"),
    [
        ("", "missing images are listed in missing.csv there", {"missing.csv": ["39.png"]}),
        (
            "a broken one",
            "missing and broken images are listed in missing.csv and broken.csv there",
            {"missing.csv": ["39.png"], "broken.csv": ["3.png"]},
        ),
        ("complete", "", {}),
    ],
)
def test_the_log_names_only_lists_that_exist(
    compose_config: Any, tmp_path: Path, line: Any, caplog: Any, change: str, message: str, files: dict[str, list[str]]
) -> None:
    caplog.set_level(logging.INFO)
    if change == "a broken one":
        (tmp_path / "3.png").write_bytes(b"")
    elif change == "complete":
        Image.new("RGB", (8, 8)).save(tmp_path / "39.png")
    config = compose_config(*line, name="prepare")
    config.paths.cache = str(tmp_path / "cache")

    prepare(config)

    logged = [record.getMessage() for record in caplog.records if " images are listed in " in record.getMessage()]
    assert logged == ([message] if message else [])
    found = {name: [row[0] for row in rows[1:]] for name, rows in lists(next((tmp_path / "cache").iterdir())).items()}
    assert found == files


def test_an_old_list_is_removed_if_no_image_is_broken(compose_config: Any, tmp_path: Path, line: Any) -> None:
    config = compose_config(*line, name="prepare")
    config.paths.cache = str(tmp_path / "cache")
    prepare(config)
    (store,) = (tmp_path / "cache").iterdir()
    (store / "broken.csv").write_text("name,reason\n1.png,from an earlier run")

    prepare(config)

    assert "from an earlier run" not in "".join(file.read_text() for file in store.glob("*.csv"))


def test_an_export_folder_that_is_not_empty_raises_before_packing(
    compose_config: Any, tmp_path: Path, line: Any
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "mine.txt").write_text("mine")
    config = compose_config(*line, f"export={tmp_path}/tree", name="prepare")
    config.paths.cache = str(tmp_path / "cache")

    with pytest.raises(UserError, match="not an empty folder"):
        prepare(config)

    assert not (tmp_path / "cache").exists()


def test_the_log_counts_images_labels_and_identities_of_each_part(
    compose_config: Any, tmp_path: Path, line: Any, caplog: Any
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "3.png").write_bytes(b"")
    people = "\n".join(f"{i}.png,{i % 4},p{i // 8}" for i in range(40))  # 5 people with 8 images each
    (tmp_path / "t.csv").write_text(f"path,label,identity\n{people}")
    lists = {"train": range(16), "val": range(16, 18), "test": range(24, 40)}
    for part, rows in lists.items():
        (tmp_path / f"{part}.txt").write_text("\n".join(f"{i}.png" for i in rows))
    split = [f"data.split.{part}={tmp_path}/{part}.txt" for part in lists]
    config = compose_config(*line, "data/split=column", *split, f"export={tmp_path}/tree", name="prepare")
    config.paths.cache = str(tmp_path / "cache")

    prepare(config)

    logged = [record.getMessage() for record in caplog.records if record.name == "agebench.prepare"]
    assert logged[0] == "table: 38 of 40 images are available"
    assert [text.split() for text in logged[2:5]] == [
        ["train", "15", "images,", "4", "labels,", "2", "identities"],
        ["val", "2", "images,", "2", "labels,", "1", "identities"],
        ["test", "15", "images,", "4", "labels,", "2", "identities"],
    ]
    assert len(list((tmp_path / "tree").rglob("*.png"))) == 32
    assert logged[-1] == f"exported 32 images to {tmp_path}/tree, one folder per part and label"


def test_many_labels_are_shortened(compose_config: Any, tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    rows = "\n".join(f"{i}.png,{10 + i % 30}" for i in range(300))
    (tmp_path / "t.csv").write_text(f"path,age\n{rows}")
    for i in range(300):
        Image.new("L", (2, 2)).save(tmp_path / f"{i}.png")
    config = compose_config("data=table", f"data.root={tmp_path}/t.csv", "data.target=age", name="prepare")
    config.paths.cache = str(tmp_path / "cache")

    prepare(config)

    assert "protocol table/random/age, 30 labels: 10 11 12 13 14 15 16 17 18 19 ... 39" in caplog.messages


def test_a_read_only_cache_gives_a_warning(
    compose_config: Any, tmp_path: Path, line: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("agebench.runs.tables.write_missing_and_broken", refuse)
    config = compose_config(*line, name="prepare")
    config.paths.cache = str(tmp_path / "cache")

    prepare(config)

    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any(text.startswith("cannot list") and text.endswith("Read-only file system") for text in warned)
