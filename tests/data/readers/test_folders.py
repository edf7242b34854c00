"""Image files in folders: finding, reading, decoding and stamps."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agebench.data.readers import folders as module
from agebench.data.readers.archives import ZipFiles
from agebench.data.readers.folders import Files, FileSource, FolderFiles, check_exists, decode, find_images, nfc
from agebench.data.records import Records
from agebench.errors import BrokenImageError, UserError


def draw(path: Path, *, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)
    return path


def test_images_are_found_at_any_depth_and_in_any_case(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "a/deep/er/1.png", "0.jpeg", "a/3.webp", "z.tiff", "y.BMP"):
        draw(tmp_path / name)
    (tmp_path / "c.HEIC").write_bytes(b"a photo of a phone")
    (tmp_path / "notes.txt").write_text("no image")

    found = sorted(find_images(tmp_path))

    assert found == ["0.jpeg", "a/3.webp", "a/deep/er/1.png", "b/2.JPG", "c.HEIC", "y.BMP", "z.tiff"]


def test_files_that_macos_adds_to_archives_are_skipped(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/._1.png", ".cache/2.png", "__MACOSX/a/._1.png"):
        draw(tmp_path / name)

    assert list(find_images(tmp_path)) == ["a/1.png"]


def test_a_link_to_a_folder_on_another_disk_is_followed(tmp_path: Path) -> None:
    draw(tmp_path / "disk" / "faces" / "1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "CACD2000").symlink_to(tmp_path / "disk" / "faces")

    assert list(find_images(tmp_path / "data")) == ["CACD2000/1.png"]


def test_a_link_to_a_parent_folder_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)

    assert len(list(find_images(tmp_path))) == 1
    assert len(list(find_images(Path("a")))) == 1


def test_a_missing_folder_has_no_images(tmp_path: Path) -> None:
    assert list(find_images(tmp_path / "nowhere")) == []


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "1.png")
    (tmp_path / "lost+found").mkdir()  # on every ext4 disk, readable by root only
    (tmp_path / "b").mkdir()
    scandir, locked = os.scandir, {str(tmp_path / "lost+found")}

    def refuse(path: str) -> Any:
        if path in locked:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list(find_images(tmp_path)) == ["1.png"]
    locked.add(str(tmp_path / "b"))

    with pytest.raises(UserError, match=r"cannot list the folder .*b \(Permission denied\): check its permissions"):
        list(find_images(tmp_path))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow warns about the TIFF
@pytest.mark.parametrize("extension", ["jpg", "png", "bmp", "tif", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.6, 0.9])
def test_a_file_cut_short_is_refused_in_one_sentence(tmp_path: Path, extension: str, share: float) -> None:
    complete = draw(tmp_path / f"face.{extension}").read_bytes()

    with pytest.raises(BrokenImageError) as caught:
        decode(complete[: int(len(complete) * share)])

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an image in a supported format"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(40), "it is a HEIC, HEIF or AVIF photo: convert it to JPEG"),
        (b"\xff\xd8\xff\xe0 and no more", "."),
        (b"\x89PNG\r\n\x1a\n", "."),
        (b"BM" + b"\xff" * 60, "."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image in a supported format"),
    ],
)
def test_data_that_is_not_an_image_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BrokenImageError, match=words):
        decode(data)


@pytest.mark.parametrize("side", [9_500, 20_000])  # Pillow warns about the first and refuses the second
def test_an_image_with_too_many_pixels_is_refused_before_decoding(tmp_path: Path, side: int) -> None:
    data = bytearray(draw(tmp_path / "small.png").read_bytes())
    data[16:24] = struct.pack(">II", side, side)  # after the signature and the name of the IHDR chunk
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))

    with pytest.raises(BrokenImageError, match=r"are too many|too many pixels"):
        decode(bytes(data))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_a_device_is_a_broken_image_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    files = FolderFiles(tmp_path)

    assert files.names() == ["pipe.jpg", "zero.jpg"]
    for name in files.names():
        with pytest.raises(BrokenImageError, match="it is not a regular file"):
            files.read(name)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "PNG"), ("RGB", "JPEG"), ("CMYK", "JPEG"), ("L", "JPEG"), ("P", "GIF"), ("I;16", "PNG"), ("RGBA", "WEBP")],
)
def test_the_content_of_a_file_decides_its_format(mode: str, kind: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (5, 4), 7 if mode in ("L", "P", "I;16") else (7,) * len(mode)).save(buffer, kind)

    image = decode(buffer.getvalue())

    assert (image.size, image.mode) == ((5, 4), mode)


def test_decoding_returns_the_saved_pixels(tmp_path: Path) -> None:
    image = decode(draw(tmp_path / "a.png", seed=3).read_bytes())

    expected = np.random.default_rng(3).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(image), expected)


def test_a_folder_lists_relative_paths_and_reads_them(tmp_path: Path) -> None:
    one, two = draw(tmp_path / "b" / "1.png"), draw(tmp_path / "a.png", seed=1)
    folder = FolderFiles(tmp_path)

    assert folder.names() == ["a.png", "b/1.png"]
    assert [folder.read(name) for name in folder.names()] == [two.read_bytes(), one.read_bytes()]


def test_a_missing_or_too_large_file_is_a_broken_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    monkeypatch.setattr(module, "MAX_BYTES", 100)

    with pytest.raises(BrokenImageError, match="No such file") as gone:
        FolderFiles(tmp_path).read("gone.png")
    assert not gone.value.lasting  # it may be there at the next attempt
    with pytest.raises(BrokenImageError, match=r"^it is a broken symbolic link$"):
        FolderFiles(tmp_path).read("link.png")
    with pytest.raises(BrokenImageError, match="too large for an image"):
        FolderFiles(tmp_path).read("a.png")


def test_a_stamp_changes_with_the_size_and_time_of_its_file_only(tmp_path: Path) -> None:
    a, b = draw(tmp_path / "a.png"), draw(tmp_path / "b.png", seed=1)
    os.utime(a, (1, 1))
    folder = FolderFiles(tmp_path)
    stamps = [folder.stamps(["a.png", "b.png"])]
    os.utime(a, (2, 2))
    stamps.append(folder.stamps(["a.png", "b.png"]))
    a.write_bytes(a.read_bytes() + b"!")
    os.utime(a, (2, 2))
    stamps.append(folder.stamps(["a.png", "b.png"]))
    reverse = folder.stamps(["b.png", "a.png", "gone.png"])

    assert len({int(stamp[0]) for stamp in stamps}) == 3
    assert len({int(stamp[1]) for stamp in stamps}) == 1
    assert reverse.tolist() == [*stamps[-1][::-1].tolist(), 1]
    assert reverse.dtype == np.uint64
    assert b.exists()


class Album(FileSource):
    """A source whose rows are in another order than its files; one row has no file."""

    def __init__(self, root: Path, names: Sequence[str | None]) -> None:
        self._folder: Files = FolderFiles(root) if root.is_dir() else ZipFiles(root)
        self._listed = names

    @property
    def _files(self) -> Files:
        return self._folder

    @property
    def _file_names(self) -> Sequence[str | None]:
        return self._listed

    def records(self) -> Records:
        return Records(np.array([name or "none" for name in self._listed]))


def test_a_source_reads_the_file_of_each_row(tmp_path: Path) -> None:
    written = {name: draw(tmp_path / name, seed=seed) for seed, name in enumerate(("a.png", "b.png", "c.png"))}
    source = Album(tmp_path, ["c.png", None, "a.png"])

    assert source.present().tolist() == [True, False, True]
    assert source.read(0) == written["c.png"].read_bytes()
    np.testing.assert_array_equal(np.asarray(source.open(2)), np.asarray(Image.open(written["a.png"])))
    assert source.stamps(np.array([2, 0])).tolist() == FolderFiles(tmp_path).stamps(["a.png", "c.png"]).tolist()
    with pytest.raises(BrokenImageError, match="does not exist"):
        source.open(1)


def test_an_archive_is_read_in_the_order_of_its_members(tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("b.png", "c.png", "a.png"):
            archive.write(picture, name)

    source = Album(tmp_path / "all.zip", ["a.png", "b.png", "c.png", "d.png"])

    assert source.reading_order(np.array([0, 1, 2])).tolist() == [1, 2, 0]


def test_a_decomposed_name_from_macos_is_composed() -> None:
    assert nfc("Zoe\u0308.jpg") == "Zo\u00eb.jpg"


@pytest.mark.parametrize(
    ("typed", "near"), [("写真（２０２４）", "写真 (2024)"), ("FOTOS/new", "fotos/new"), ("x", None)]
)
def test_a_path_that_does_not_exist_has_a_suggestion_if_a_similar_name_exists(
    tmp_path: Path, typed: str, near: str | None
) -> None:
    for name in ("写真 (2024)", "fotos"):
        (tmp_path / name).mkdir()

    with pytest.raises(UserError) as raised:
        check_exists(tmp_path / typed)

    guess = "" if near is None else f" (did you mean '{tmp_path / near}'?)"
    assert str(raised.value).startswith(f"{tmp_path / typed} does not exist{guess}: give a folder of images")
