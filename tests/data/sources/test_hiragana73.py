"""hiragana73, from small generated zips and folders and from 730 of the published images."""

import io
import logging
import os
import shutil
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agebench.data.records import Source
from agebench.data.sources import hiragana73 as module
from agebench.data.sources.hiragana73 import Hiragana73
from agebench.errors import BrokenImageError, UserError
from agebench.testing import check_source

NAMES = [  # sorted; the same file name, of one page, occurs in two classes
    "U3042/1901_846066_0055.png",
    "U3042/1915_1920442_0146.png",
    "U3044/1901_846066_0055.png",
    "U3093/1926_978234_0084.png",
]


def picture(index: int) -> Image.Image:
    grey = np.random.default_rng(index).integers(0, 256, (48, 48), dtype=np.uint8)
    return Image.fromarray(grey) if index % 2 == 0 else Image.fromarray(np.stack([grey, grey, grey], axis=-1))


def png(index: int) -> bytes:
    buffer = io.BytesIO()
    picture(index).save(buffer, "PNG")
    return buffer.getvalue()


def write_folders(base: Path) -> None:
    for index, name in enumerate(NAMES):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(png(index))


def write_zip(path: Path, *, prefix: str = "hiragana73/", extra: dict[str, bytes] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for index, name in reversed(list(enumerate(NAMES))):
            archive.writestr(prefix + name, png(index))
        for name, content in (extra or {}).items():
            archive.writestr(name, content)


def test_hiragana73_keeps_the_contract_of_a_source(tmp_path: Path) -> None:
    write_zip(tmp_path / "hiragana73.zip")

    check_source(Hiragana73, root=str(tmp_path), download=False)


LITTER = {
    "hiragana73/": b"",
    "hiragana73/.DS_Store": b"x",
    "hiragana73/README.txt": b"x",
    "hiragana73/U3042/.DS_Store": b"x",
    "hiragana73/U3042/._1901_846066_0055.png": b"x",
    "hiragana73/U3042/deeper/1901_1_1.png": b"x",
    "hiragana73/U304/1901_1_1.png": b"x",
    "__MACOSX/hiragana73/U3042/1901_1_1.png": b"x",
}


def write_layout(root: Path, layout: str) -> None:
    if layout == "zip":
        write_zip(root / "hiragana73.zip")
    elif layout == "zip without a folder":
        write_zip(root / "hiragana73.zip", prefix="")
    elif layout == "zip with litter":
        write_zip(root / "hiragana73.zip", extra=LITTER)
    elif layout == "folders with litter":
        write_folders(root)
        for name, content in LITTER.items():
            if not name.endswith("/"):
                (root / name.removeprefix("hiragana73/")).parent.mkdir(parents=True, exist_ok=True)
                (root / name.removeprefix("hiragana73/")).write_bytes(content)
    else:
        write_folders(root / layout)


@pytest.mark.parametrize(
    "layout", ["zip", "zip without a folder", "zip with litter", "", "folders with litter", "hiragana73", "my images"]
)
def test_every_layout_gives_the_same_records_and_pixels(tmp_path: Path, layout: str) -> None:
    write_layout(tmp_path, layout)
    source: Source = Hiragana73(str(tmp_path), download=False)

    source.prepare()
    records = source.records()

    assert records.names.tolist() == NAMES
    assert records.columns["class"].tolist() == [0, 0, 1, 2]
    assert records.columns["class"].dtype == records.columns["year"].dtype == np.int64
    assert records.columns["identity"].tolist() == ["846066_0055", "1920442_0146", "846066_0055", "978234_0084"]
    assert records.columns["year"].tolist() == [1901, 1915, 1901, 1926]
    assert records.class_names == ("あ", "い", "ん")
    assert source.present().tolist() == [True] * 4
    for index in range(4):
        image = source.open(index)
        assert image.mode == ("L", "RGB")[index % 2]
        assert np.array_equal(np.asarray(image), np.asarray(picture(index)))


def test_the_root_may_be_the_zip_itself(tmp_path: Path) -> None:
    write_zip(tmp_path / "downloads" / "kana.zip")

    assert Hiragana73(str(tmp_path / "downloads" / "kana.zip")).records().names.tolist() == NAMES


def test_the_constructor_reads_nothing(tmp_path: Path) -> None:
    source: Source = Hiragana73(str(tmp_path / "nowhere"))

    assert (source.channels, source.targets) == (1, ("class",))


def test_an_image_with_another_name_is_its_own_page_without_a_year(tmp_path: Path) -> None:
    write_folders(tmp_path)
    (tmp_path / "U3093" / "mine.png").write_bytes(png(0))

    records = Hiragana73(str(tmp_path)).records()

    assert records.names[-1] == "U3093/mine.png"
    assert (records.columns["identity"][-1], records.columns["year"][-1]) == ("mine", 0)


def test_a_smaller_data_set_is_reported_once_with_its_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folders(tmp_path)
    source = Hiragana73(str(tmp_path))

    source.prepare()
    source.records()

    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "4 of 80,000 images, 3 of 73 classes" in caplog.text


def test_the_error_without_images_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "U3042").mkdir()

    with pytest.raises(UserError, match=rf"no hiragana73 under {tmp_path}: expected hiragana73\.zip or .*data\.root"):
        Hiragana73(str(tmp_path), download=False).prepare()


def test_two_copies_in_sibling_folders_are_an_error(tmp_path: Path) -> None:
    write_folders(tmp_path / "one")
    write_folders(tmp_path / "two")

    with pytest.raises(UserError, match=r"more than once .*one, .*two"):
        Hiragana73(str(tmp_path)).records()


def test_two_copies_in_the_zip_are_an_error(tmp_path: Path) -> None:
    write_zip(tmp_path / "hiragana73.zip", extra={f"copy/{NAMES[0]}": png(0)})

    with pytest.raises(UserError, match=f"{NAMES[0]} more than once"):
        Hiragana73(str(tmp_path)).records()


@pytest.mark.parametrize(
    "name", ["../U3042/1901_1_1.png", "/U3042/1901_1_1.png", "a/../../x", "C:\\U3042\\x.png", "..\\x.png", ".."]
)
def test_an_unsafe_member_is_refused(tmp_path: Path, name: str) -> None:
    write_zip(tmp_path / "hiragana73.zip", extra={name: png(0)})

    with pytest.raises(UserError, match="unsafe name"):
        Hiragana73(str(tmp_path)).records()


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"<html>not found</html>", "is a web page"), (b"PK\3\4 and no more", "is not a readable zip")],
)
def test_a_file_that_is_not_a_zip_is_reported(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "hiragana73.zip").write_bytes(content)

    with pytest.raises(UserError, match=rf"hiragana73\.zip {words}"):
        Hiragana73(str(tmp_path)).prepare()


@pytest.mark.parametrize("content", [b"", b"no png", png(0)[:300], png(0)[:200] + b"\0" + png(0)[201:]])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_broken_image_is_an_error_and_the_others_are_read(tmp_path: Path, content: bytes, zipped: bool) -> None:
    if zipped:
        write_zip(tmp_path / "hiragana73.zip", extra={"hiragana73/U3094/broken.png": content})
    else:
        write_folders(tmp_path)
        (tmp_path / "U3094").mkdir()
        (tmp_path / "U3094" / "broken.png").write_bytes(content)
    source = Hiragana73(str(tmp_path))

    with pytest.raises(BrokenImageError):
        source.open(4)

    assert source.open(0).size == (48, 48)


def damage_zip(path: Path) -> None:
    """Invert one byte of the last image, so that its CRC is wrong."""
    content = bytearray(path.read_bytes())
    content[content.index(png(3)) + 500] ^= 0xFF
    path.write_bytes(content)


def test_an_image_with_a_wrong_crc_is_broken(tmp_path: Path) -> None:
    write_zip(tmp_path / "hiragana73.zip")
    damage_zip(tmp_path / "hiragana73.zip")

    with pytest.raises(BrokenImageError, match=r"Bad CRC.*U3093/1926_978234_0084\.png"):
        Hiragana73(str(tmp_path)).open(3)


@pytest.mark.parametrize("layout", ["zip", "hiragana73"])
def test_a_changed_file_changes_only_its_own_stamp(tmp_path: Path, layout: str) -> None:
    write_layout(tmp_path, layout)
    rows = np.arange(4)
    before, again = (Hiragana73(str(tmp_path)).stamps(rows) for _ in range(2))
    if layout == "zip":
        contents = {f"hiragana73/{name}": png(9 if index == 2 else index) for index, name in enumerate(NAMES)}
        with zipfile.ZipFile(tmp_path / "hiragana73.zip", "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        os.utime(tmp_path / "hiragana73" / NAMES[2], ns=(2, 2))
    after = Hiragana73(str(tmp_path)).stamps(rows)

    assert before.tolist() == again.tolist()
    assert (before == after).tolist() == [True, True, False, True]


def test_the_reading_order_is_that_of_the_zip(tmp_path: Path) -> None:
    write_zip(tmp_path / "hiragana73.zip")  # the last name first

    assert Hiragana73(str(tmp_path)).reading_order(np.array([0, 2, 3])).tolist() == [3, 2, 0]


def test_a_copy_inside_a_class_folder_is_not_read(tmp_path: Path) -> None:
    write_folders(tmp_path)
    write_folders(tmp_path / "U3042" / "copy")

    assert Hiragana73(str(tmp_path)).records().names.tolist() == NAMES


@pytest.mark.parametrize("layout", ["zip", "hiragana73"])
def test_threads_read_the_right_images(tmp_path: Path, layout: str) -> None:
    write_layout(tmp_path, layout)
    source = Hiragana73(str(tmp_path))
    rows = list(range(4)) * 50

    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda row: np.asarray(source.open(row)), rows))

    assert all(np.array_equal(image, np.asarray(picture(row))) for row, image in zip(rows, images, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_and_its_parent_do_not_share_the_position_in_the_zip(tmp_path: Path) -> None:
    write_zip(tmp_path / "hiragana73.zip")
    source = Hiragana73(str(tmp_path))
    source.open(0)

    def read_all() -> bool:
        try:
            return all(source.open(row).mode == ("L", "RGB")[row % 2] for row in [0, 1, 2, 3] * 500)
        except UserError:
            return False

    child = os.fork()
    if child == 0:
        os._exit(0 if read_all() else 1)
    mine = read_all()
    _, status = os.waitpid(child, 0)

    assert (mine, status) == (True, 0)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """Serve a folder; the published counts are replaced by those of the small data set."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "IMAGES", 4)
    monkeypatch.setattr(module, "CLASSES", 3)
    yield folder, f"http://127.0.0.1:{server.server_port}/hiragana73.zip"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_complete_zip_is_downloaded_and_read(
    server: tuple[Path, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, url = server
    write_zip(folder / "hiragana73.zip")
    source = Hiragana73(str(tmp_path / "root"), url=url)

    source.prepare()

    assert source.records().names.tolist() == NAMES
    assert (tmp_path / "root" / "hiragana73.zip").read_bytes() == (folder / "hiragana73.zip").read_bytes()
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


@pytest.mark.parametrize("fault", ["damaged", "incomplete", "no zip"])
def test_a_wrong_download_is_deleted_and_reported(server: tuple[Path, str], tmp_path: Path, fault: str) -> None:
    folder, url = server
    archive = folder / "hiragana73.zip"
    write_zip(archive, extra={"U3042/1999_1_1.png": png(0)} if fault == "incomplete" else None)
    words = "5 images in 3 folders, expected 4 in 3"
    if fault == "damaged":
        damage_zip(archive)
        words = f"damaged at {NAMES[3]}"
    elif fault == "no zip":
        archive.write_bytes(b"<html>log in first</html>")
        words = "it is not a zip file"

    with pytest.raises(UserError, match=f"{words}; the download was deleted"):
        Hiragana73(str(tmp_path / "root"), url=url).prepare()

    assert not (tmp_path / "root").exists()


@pytest.mark.data
@pytest.mark.parametrize("layout", ["nested", "flat", "zip"])
def test_the_published_images_are_read(
    test_data: Path, tmp_path: Path, layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    base = test_data / "hiragana73_sample"
    root = {"nested": base, "flat": base / "hiragana73", "zip": tmp_path}[layout]
    if layout == "zip":
        shutil.make_archive(str(tmp_path / "hiragana73"), "zip", base)
    source: Source = Hiragana73(str(root), download=False)

    source.prepare()
    records = source.records()
    images = [source.open(row) for row in range(len(records))]

    assert "730 of 80,000 images, 73 of 73 classes" in caplog.text
    assert Counter(image.mode for image in images) == {"L": 529, "RGB": 201}
    assert {image.size for image in images} == {(48, 48)}
    assert len(set(records.names.tolist())) == 730
    assert len({name.split("/")[1] for name in records.names}) < 730  # several classes share a name
    counts = np.bincount(records.columns["class"])
    assert (len(counts), counts.min(), counts.max()) == (73, 8, 11)
    assert "".join(records.class_names).startswith("あいうえおかがきぎくぐけげこご")
    assert records.class_names[-1] == "ん"
    assert records.names[0].startswith("U3042/")
    assert len(set(records.columns["identity"].tolist())) == 181  # pages, counted manually from the file names
    assert (records.columns["year"].min(), records.columns["year"].max()) == (1900, 1968)
