"""Image files in folders."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agebench.data.files import find_images, open_image, stamp_files
from agebench.errors import UserError


def draw(path: Path, *, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)
    return path


def test_images_are_found_at_any_depth_and_in_any_case_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "a/deep/er/1.png", "0.jpeg", "a/3.webp", "z.tiff", "y.BMP"):
        draw(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")

    found = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]

    assert found == ["0.jpeg", "y.BMP", "z.tiff", "a/3.webp", "a/deep/er/1.png", "b/2.JPG"]


def test_what_macos_hides_in_archives_is_no_image(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/._1.png", ".cache/2.png", "__MACOSX/a/._1.png"):
        draw(tmp_path / name)

    assert [path.name for path in find_images(tmp_path)] == ["1.png"]


def test_a_link_to_a_folder_on_another_disk_is_followed(tmp_path: Path) -> None:
    draw(tmp_path / "disk" / "faces" / "1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "CACD2000").symlink_to(tmp_path / "disk" / "faces")

    assert list(find_images(tmp_path / "data")) == [tmp_path / "data" / "CACD2000" / "1.png"]


def test_a_link_that_leads_back_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)

    assert len(list(find_images(tmp_path))) == 1
    assert len(list(find_images(Path("a")))) == 1


def test_a_folder_that_is_not_there_holds_no_image(tmp_path: Path) -> None:
    assert list(find_images(tmp_path / "nowhere")) == []


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's, of the TIFF
@pytest.mark.parametrize("extension", ["jpg", "png", "bmp", "tif", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.6, 0.9])
def test_a_file_cut_short_is_named_in_one_sentence(tmp_path: Path, extension: str, share: float) -> None:
    path = draw(tmp_path / f"face.{extension}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(UserError, match=rf"cannot read the image .*face\.{extension}") as caught:
        open_image(path)

    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_image_or_is_not_there_is_named(tmp_path: Path) -> None:
    page = tmp_path / "page.jpg"
    page.write_text("<html>not found</html>")

    for path in (page, tmp_path / "gone.jpg"):
        with pytest.raises(UserError, match=rf"cannot read the image .*{path.name}"):
            open_image(path)


def test_an_image_is_decoded_and_its_file_closed(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.png", seed=3)

    image = open_image(path)

    path.unlink()
    expected = np.random.default_rng(3).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(image), expected)


def test_a_stamp_changes_with_name_size_time_and_order(tmp_path: Path) -> None:
    a, b = draw(tmp_path / "a.png"), draw(tmp_path / "b.png", seed=1)
    stamps = [stamp_files([a, b]), stamp_files([b, a]), stamp_files([a])]
    again = stamp_files([a, b])
    os.utime(a, (1, 1))
    stamps.append(stamp_files([a, b]))
    a.write_bytes(a.read_bytes() + b"!")
    os.utime(a, (1, 1))
    stamps.append(stamp_files([a, b]))
    a = a.rename(tmp_path / "c.png")
    stamps.append(stamp_files([a, b]))

    assert again == stamps[0]
    assert len(set(stamps)) == len(stamps)
