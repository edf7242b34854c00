"""The verb: what it says is there, what it lists, and what it refuses before it works."""

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
    """Return the overrides of a table of 40 images of 4 kinds, the last of which is not there."""
    for i in range(39):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.png")
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(f"{i}.png,{i % 4}" for i in range(40)))
    return "data=table", f"data.root={tmp_path}/t.csv", "data.image_size=8"


def lists(folder: Path) -> dict[str, list[list[str]]]:
    return {path.name: list(csv.reader(path.open())) for path in folder.glob("*.csv")}


@pytest.mark.parametrize(
    ("change", "told", "files"),
    [
        ("", "what is missing is listed in missing.csv there", {"missing.csv": ["39.png"]}),
        (
            "a broken one",
            "what is missing or broken is listed in missing.csv and broken.csv there",
            {"missing.csv": ["39.png"], "broken.csv": ["3.png"]},
        ),
        ("all there", "", {}),
    ],
)
def test_only_lists_that_are_there_are_named(
    compose_config: Any, tmp_path: Path, line: Any, caplog: Any, change: str, told: str, files: dict[str, list[str]]
) -> None:
    caplog.set_level(logging.INFO)
    if change == "a broken one":
        (tmp_path / "3.png").write_bytes(b"")
    elif change == "all there":
        Image.new("RGB", (8, 8)).save(tmp_path / "39.png")
    config = compose_config(*line, name="prepare")
    config.paths.cache = str(tmp_path / "cache")

    prepare(config)

    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("what is ")]
    assert said == ([told] if told else [])
    found = {name: [row[0] for row in rows[1:]] for name, rows in lists(next((tmp_path / "cache").iterdir())).items()}
    assert found == files


def test_a_list_of_what_was_missing_goes_when_it_is_back(compose_config: Any, tmp_path: Path, line: Any) -> None:
    config = compose_config(*line, name="prepare")
    config.paths.cache = str(tmp_path / "cache")
    prepare(config)
    (store,) = (tmp_path / "cache").iterdir()
    (store / "broken.csv").write_text("name,reason\n1.png,of another day")

    prepare(config)

    assert "of another day" not in "".join(file.read_text() for file in store.glob("*.csv"))


def test_a_folder_with_something_in_it_is_refused_before_anything_is_packed(
    compose_config: Any, tmp_path: Path, line: Any
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "mine.txt").write_text("mine")
    config = compose_config(*line, f"export={tmp_path}/tree", name="prepare")
    config.paths.cache = str(tmp_path / "cache")

    with pytest.raises(UserError, match="not an empty folder"):
        prepare(config)

    assert not (tmp_path / "cache").exists()
