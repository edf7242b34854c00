"""MNIST, from small generated idx files and from the published files."""

import gzip
import hashlib
import logging
import os
import shutil
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from agebench.data.records import Source
from agebench.data.sources import mnist as module
from agebench.data.sources.mnist import MNIST
from agebench.errors import UserError
from agebench.testing import check_source

STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
TRAIN = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
TEST = np.random.default_rng(1).integers(0, 256, (3, 28, 28), dtype=np.uint8)
CONTENTS = {  # magic numbers 2051 and 2049, as documented by the data set
    STEMS[0]: struct.pack(">4I", 2051, 5, 28, 28) + TRAIN.tobytes(),
    STEMS[1]: struct.pack(">2I", 2049, 5) + bytes([5, 0, 4, 1, 9]),
    STEMS[2]: struct.pack(">4I", 2051, 3, 28, 28) + TEST.tobytes(),
    STEMS[3]: struct.pack(">2I", 2049, 3) + bytes([7, 2, 1]),
}


def write(folder: Path, *, zipped: tuple[str, ...] = STEMS, dotted: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, content in CONTENTS.items():
        name = stem.replace("-idx", ".idx") if dotted else stem
        if stem in zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def pixels(source: Source) -> np.ndarray:
    return np.stack([np.asarray(source.open(row)) for row in range(len(source.records()))])


def test_mnist_keeps_the_contract_of_a_source(tmp_path: Path) -> None:
    write(tmp_path)

    check_source(MNIST, root=str(tmp_path), download=False)


@pytest.mark.parametrize("folder", ["", "MNIST/raw", "raw", "mnist"])
@pytest.mark.parametrize("zipped", [STEMS, (), STEMS[:2]], ids=["gz", "plain", "mixed"])
@pytest.mark.parametrize("dotted", [False, True])
def test_the_four_files_are_read_in_every_layout(
    tmp_path: Path, folder: str, zipped: tuple[str, ...], dotted: bool
) -> None:
    write(tmp_path / folder, zipped=zipped, dotted=dotted)
    source: Source = MNIST(str(tmp_path), download=False)

    source.prepare()
    records = source.records()

    assert records.names.tolist() == [f"train/0000{i}" for i in range(5)] + [f"test/0000{i}" for i in range(3)]
    assert records.columns["class"].tolist() == [5, 0, 4, 1, 9, 7, 2, 1]
    assert records.columns["class"].dtype == np.int64
    assert records.columns["part"].tolist() == ["train"] * 5 + ["test"] * 3
    assert records.class_names == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert source.present().tolist() == [True] * 8
    assert np.array_equal(pixels(source), np.concatenate([TRAIN, TEST]))
    assert (source.open(0).mode, source.open(0).size) == ("L", (28, 28))


def test_files_in_folders_of_the_same_name_are_found(tmp_path: Path) -> None:
    for stem, content in CONTENTS.items():
        name = stem.replace("-idx", ".idx")
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(content)

    assert len(MNIST(str(tmp_path)).records()) == 8


def test_an_unpacked_file_with_the_suffix_gz_is_read(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / f"{STEMS[0]}.gz").write_bytes(CONTENTS[STEMS[0]])

    assert np.array_equal(pixels(MNIST(str(tmp_path)))[:5], TRAIN)


def test_the_constructor_reads_nothing(tmp_path: Path) -> None:
    source: Source = MNIST(str(tmp_path / "nowhere"))

    assert (source.channels, source.targets) == (1, ("class",))


def test_the_error_about_missing_files_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / f"{STEMS[1]}.gz").unlink()

    with pytest.raises(UserError, match=rf"no MNIST under {tmp_path}: expected {STEMS[1]} .*data\.root"):
        MNIST(str(tmp_path), download=False).prepare()


@pytest.mark.parametrize(
    ("stem", "content", "words"),
    [
        (STEMS[0], CONTENTS[STEMS[0]][:-1], "damaged: .* 3,919 bytes"),
        (STEMS[0], CONTENTS[STEMS[0]] + b"x", "damaged"),
        (STEMS[0], CONTENTS[STEMS[1]], "contains no idx images"),
        (STEMS[1], CONTENTS[STEMS[0]], "contains no idx labels"),
        (STEMS[1], b"", "contains no idx"),
        (STEMS[0], CONTENTS[STEMS[0]][:10], "contains no idx"),
        (STEMS[0], b"<!DOCTYPE html>" * 100, "contains no idx"),
        (STEMS[0], struct.pack(">4I", 2051, 5, 32, 32) + bytes(5 * 32 * 32), "dimensions 5 x 32 x 32"),
        (STEMS[0], gzip.compress(CONTENTS[STEMS[0]])[:-20], "cannot be read"),
        (STEMS[0], gzip.compress(CONTENTS[STEMS[0]])[:40] + b"\xff" * 3000, "cannot be read"),
        (STEMS[2], CONTENTS[STEMS[0]], "10 images for 8 labels"),
        (STEMS[3], struct.pack(">2I", 2049, 3) + bytes([7, 10, 1]), "labels 0 to 9, found 10"),
    ],
)
def test_a_wrong_file_is_reported(tmp_path: Path, stem: str, content: bytes, words: str) -> None:
    write(tmp_path, zipped=())
    (tmp_path / stem).write_bytes(content)

    with pytest.raises(UserError, match=f"{stem}.*{words}"):
        MNIST(str(tmp_path)).open(0)


def test_files_other_than_the_published_ones_are_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path)
    source = MNIST(str(tmp_path))

    source.records()
    source.records()

    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "not the published MNIST" in caplog.text


def test_the_stamps_change_with_a_file(tmp_path: Path) -> None:
    write(tmp_path)
    rows = np.arange(3)
    before = MNIST(str(tmp_path)).stamps(rows).tolist()
    again = MNIST(str(tmp_path)).stamps(rows).tolist()
    os.utime(tmp_path / f"{STEMS[2]}.gz", ns=(1, 1))

    assert before == again != MNIST(str(tmp_path)).stamps(rows).tolist()


def test_threads_read_the_right_images(tmp_path: Path) -> None:
    write(tmp_path)
    source = MNIST(str(tmp_path))
    rows = list(range(8)) * 20

    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda row: np.asarray(source.open(row)), rows))

    assert np.array_equal(np.stack(images), np.concatenate([TRAIN, TEST])[rows])


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve the four files locally, in place of the published URLs and checksums."""
    folder = tmp_path / "served"
    write(folder)

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(module, "MIRRORS", (f"{address}/gone/", f"{address}/"))
    sums = {stem: hashlib.sha256((folder / f"{stem}.gz").read_bytes()).hexdigest() for stem in STEMS}
    monkeypatch.setattr(module, "SHA256", sums)
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_missing_files_are_downloaded_into_the_root(mirror: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "raw")
    (root / "raw" / f"{STEMS[0]}.gz").unlink()
    source = MNIST(str(root))

    source.prepare()

    assert sorted(path.name for path in root.glob("*.gz")) == [f"{STEMS[0]}.gz"]
    assert np.array_equal(pixels(source), np.concatenate([TRAIN, TEST]))


def test_a_download_with_a_wrong_checksum_leaves_no_file(mirror: Path, tmp_path: Path) -> None:
    (mirror / f"{STEMS[1]}.gz").write_bytes(b"something else")
    root = tmp_path / "root"

    with pytest.raises(UserError, match=f"{STEMS[1]}.*sha256"):
        MNIST(str(root)).prepare()

    assert sorted(path.name for path in root.glob("*.gz*") if path.suffix != ".lock") == [f"{STEMS[0]}.gz"]


@pytest.mark.data
@pytest.mark.parametrize("layout", ["", "MNIST/raw", "raw", "plain"])
def test_the_published_files_have_the_published_counts(
    test_data: Path, tmp_path: Path, layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / ("" if layout == "plain" else layout)
    folder.mkdir(parents=True, exist_ok=True)
    for stem in STEMS:
        if layout == "plain":
            (folder / stem).write_bytes(gzip.decompress((test_data / "mnist" / f"{stem}.gz").read_bytes()))
        else:
            shutil.copy(test_data / "mnist" / f"{stem}.gz", folder)
    source: Source = MNIST(str(tmp_path), download=False)

    source.prepare()
    records = source.records()

    train = records.columns["part"] == "train"
    labels = records.columns["class"]
    assert (train.sum(), (~train).sum()) == (60_000, 10_000)
    assert np.bincount(labels[train]).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(labels[~train]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (records.names[0], records.names[59_999], records.names[-1]) == ("train/00000", "train/59999", "test/09999")
    assert caplog.records == []
    published = hashlib.sha256(gzip.decompress((test_data / "mnist" / f"{STEMS[2]}.gz").read_bytes())[16:]).hexdigest()
    read = b"".join(source.open(row).tobytes() for row in range(60_000, 70_000))
    assert hashlib.sha256(read).hexdigest() == published


@pytest.mark.data
def test_the_checksums_are_those_of_the_published_files(test_data: Path) -> None:
    found = {stem: hashlib.sha256((test_data / "mnist" / f"{stem}.gz").read_bytes()).hexdigest() for stem in STEMS}

    assert found == module.SHA256
