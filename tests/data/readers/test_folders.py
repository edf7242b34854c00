"""Image files in folders."""

import io
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from agebench.data.readers import folders as files
from agebench.data.readers.folders import FileSource, FolderFiles, decode, find_images, nfc
from agebench.data.records import Records
from agebench.errors import BrokenImageError, UserError


def draw(path: Path, *, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)
    return path


def test_images_are_found_at_any_depth_and_in_any_case(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "a/deep/er/1.png", "0.jpeg", "a/3.webp", "z.tiff", "y.BMP"):
        draw(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")

    found = sorted(find_images(tmp_path))

    assert found == ["0.jpeg", "a/3.webp", "a/deep/er/1.png", "b/2.JPG", "y.BMP", "z.tiff"]


def test_what_macos_hides_in_archives_is_no_image(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/._1.png", ".cache/2.png", "__MACOSX/a/._1.png"):
        draw(tmp_path / name)

    assert list(find_images(tmp_path)) == ["a/1.png"]


def test_a_link_to_a_folder_on_another_disk_is_followed(tmp_path: Path) -> None:
    draw(tmp_path / "disk" / "faces" / "1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "CACD2000").symlink_to(tmp_path / "disk" / "faces")

    assert list(find_images(tmp_path / "data")) == ["CACD2000/1.png"]


def test_a_link_that_leads_back_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)

    assert len(list(find_images(tmp_path))) == 1
    assert len(list(find_images(Path("a")))) == 1


def test_a_folder_that_is_not_there_holds_no_image(tmp_path: Path) -> None:
    assert list(find_images(tmp_path / "nowhere")) == []


def test_a_folder_that_cannot_be_listed_is_told_and_not_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "1.png")
    (tmp_path / "lost+found").mkdir()  # of root alone, on every disk of its own
    (tmp_path / "b").mkdir()
    scandir, locked = os.scandir, {str(tmp_path / "lost+found")}

    def refuse(path: str) -> Any:
        if path in locked:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list(find_images(tmp_path)) == ["1.png"]
    locked.add(str(tmp_path / "b"))

    with pytest.raises(UserError, match=r"cannot list the folder .*b \(Permission denied\): see to its permissions"):
        list(find_images(tmp_path))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's, of the TIFF
@pytest.mark.parametrize("extension", ["jpg", "png", "bmp", "tif", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.6, 0.9])
def test_a_file_cut_short_is_refused_in_one_sentence(tmp_path: Path, extension: str, share: float) -> None:
    whole = draw(tmp_path / f"face.{extension}").read_bytes()

    with pytest.raises(BrokenImageError) as caught:
        decode(whole[: int(len(whole) * share)])

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "no image of a kind that is read"),
        (b"\xff\xd8\xff\xe0 and no more", "."),
        (b"\x89PNG\r\n\x1a\n", "."),
        (b"BM" + b"\xff" * 60, "."),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no image of a kind that is read"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BrokenImageError, match=words):
        decode(data)


@pytest.mark.parametrize("side", [9_500, 20_000])  # Pillow warns of the first, and refuses the second itself
def test_an_enormous_image_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    data = bytearray(draw(tmp_path / "small.png").read_bytes())
    data[16:24] = struct.pack(">II", side, side)  # behind the signature and the name of the IHDR chunk
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))

    with pytest.raises(BrokenImageError, match=r"are too many|too many pixels"):
        decode(bytes(data))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_or_a_device_among_the_images_is_broken_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    files = FolderFiles(tmp_path)

    assert files.names() == ["pipe.jpg", "zero.jpg"]
    for name in files.names():
        with pytest.raises(BrokenImageError, match="it is no file"):
            files.read(name)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "PNG"), ("RGB", "JPEG"), ("CMYK", "JPEG"), ("L", "JPEG"), ("P", "GIF"), ("I;16", "PNG"), ("RGBA", "WEBP")],
)
def test_what_an_image_is_decides_its_content(mode: str, kind: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (5, 4), 7 if mode in ("L", "P", "I;16") else (7,) * len(mode)).save(buffer, kind)

    image = decode(buffer.getvalue())

    assert (image.size, image.mode) == ((5, 4), mode)


def test_pixels_are_those_that_went_in(tmp_path: Path) -> None:
    image = decode(draw(tmp_path / "a.png", seed=3).read_bytes())

    expected = np.random.default_rng(3).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(image), expected)


def test_a_folder_names_its_images_below_itself_and_reads_them(tmp_path: Path) -> None:
    one, two = draw(tmp_path / "b" / "1.png"), draw(tmp_path / "a.png", seed=1)
    folder = FolderFiles(tmp_path)

    assert folder.names() == ["a.png", "b/1.png"]
    assert [folder.read(name) for name in folder.names()] == [two.read_bytes(), one.read_bytes()]


def test_a_file_that_is_gone_or_too_large_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    monkeypatch.setattr(files, "MOST_BYTES", 100)

    with pytest.raises(BrokenImageError, match="No such file"):
        FolderFiles(tmp_path).read("gone.png")
    with pytest.raises(BrokenImageError, match=r"^a link that leads nowhere$"):
        FolderFiles(tmp_path).read("link.png")
    with pytest.raises(BrokenImageError, match="too much for an image"):
        FolderFiles(tmp_path).read("a.png")


def test_a_stamp_changes_with_size_and_time_but_not_with_the_neighbours(tmp_path: Path) -> None:
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
    """Rows whose files lie in another order, one without any."""

    def __init__(self, root: Path, names: Sequence[str | None]) -> None:
        self._folder, self._listed = FolderFiles(root), names

    @property
    def _files(self) -> FolderFiles:
        return self._folder

    @property
    def _file_names(self) -> Sequence[str | None]:
        return self._listed

    def records(self) -> Records:
        return Records(np.array([name or "none" for name in self._listed]))


def test_a_source_gives_each_row_its_own_file(tmp_path: Path) -> None:
    written = {name: draw(tmp_path / name, seed=seed) for seed, name in enumerate(("a.png", "b.png", "c.png"))}
    source = Album(tmp_path, ["c.png", None, "a.png"])

    assert source.present().tolist() == [True, False, True]
    assert source.read(0) == written["c.png"].read_bytes()
    np.testing.assert_array_equal(np.asarray(source.open(2)), np.asarray(Image.open(written["a.png"])))
    assert source.stamps(np.array([2, 0])).tolist() == FolderFiles(tmp_path).stamps(["a.png", "c.png"]).tolist()
    with pytest.raises(BrokenImageError, match="no such file"):
        source.open(1)


def test_a_name_that_macos_took_apart_is_put_together() -> None:
    assert nfc("Zoe\u0308.jpg") == "Zo\u00eb.jpg"
