"""Images without labels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agebench.data.resize import Resize
from agebench.data.unlabelled import Unlabelled
from agebench.errors import UserError


def read(path: Path) -> tuple[Unlabelled, list[int]]:
    """Return the images of a path, and the first pixel of each that can be read."""
    images = Unlabelled(path, resize=Resize(4, 1, "squash", 1.0, "bilinear"), batch_size=2)
    return images, [int(image[0, 0, 0]) for batch in images for image in batch]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for grey, name in ((10, "sub/é 顔.png"), (20, "b.png"), (30, "elsewhere.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), grey, np.uint8)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp932", "utf-16"])
def test_the_images_of_a_table_keep_the_order_of_its_rows(folder, encoding):
    (folder / "list.csv").write_text("name,path\nx,sub/é 顔.png\ny,b.png\n".replace("é", "e"), encoding=encoding)
    (folder / "sub/é 顔.png").rename(folder / "sub/e 顔.png")

    images, pixels = read(folder / "list.csv")

    assert images.names == ["sub/e 顔.png", "b.png"]
    assert pixels == [10, 20]


def test_the_paths_of_a_table_may_be_absolute_and_its_delimiter_a_semicolon(folder, tmp_path_factory):
    table = tmp_path_factory.mktemp("lists") / "list.CSV"
    table.write_text(f"path;age\n{folder / 'elsewhere.png'};3\n", encoding="utf-8")

    images, pixels = read(table)

    assert images.names == [str(folder / "elsewhere.png")]
    assert pixels == [30]


def test_a_missing_file_of_a_table_is_broken_and_keeps_its_row(folder):
    (folder / "list.csv").write_text("path\nb.png\ngone.png\nelsewhere.png\n", encoding="utf-8")

    images, pixels = read(folder / "list.csv")

    assert images.names == ["b.png", "gone.png", "elsewhere.png"]
    assert pixels == [20, 30]
    assert images.broken == {1: "there is no such file"}


def test_each_of_many_images_is_in_one_batch(tmp_path):
    for i in range(21):
        Image.fromarray(np.full((4, 4), 10 * i, np.uint8)).save(tmp_path / f"{i:02d}.png")

    _, pixels = read(tmp_path)

    assert pixels == [10 * i for i in range(21)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\nb.png\n", "has no column 'path', only file"),
        ("path\n", "needs one row per image"),
        ("path,age\nb.png,1\n,2\n", "has no path in row 2"),
        ("path\nb.png\n./b.png\n", "lists b.png twice"),
        ("", "has no column 'path', only none"),
    ],
)
def test_a_bad_table_is_refused(folder, text, message):
    (folder / "list.csv").write_text(text, encoding="utf-8")

    with pytest.raises(UserError, match=message):
        read(folder / "list.csv")
