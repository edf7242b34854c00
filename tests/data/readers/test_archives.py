"""Images in packed archives: the same bytes, and one error sentence for each bad archive."""

import gzip
import io
import lzma
import os
import re
import shutil
import struct
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from agebench.data.readers import members, tar_index, tars
from agebench.data.readers.archives import ARCHIVE_SUFFIXES, ZipFiles, open_archive
from agebench.data.readers.folders import MAX_BYTES
from agebench.data.readers.tars import TarFiles
from agebench.errors import BrokenImageError, UserError

Contents = list[tuple[str | tarfile.TarInfo, bytes]]


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()


FACES: Contents = [(f"CACD2000/{(7 * i) % 40:02}_Zoë_{i:04}.jpg", noise(997 * i, i)) for i in range(40)]  # unsorted
ONE: Contents = [("a.jpg", b"x" * 700)]


def tar_bytes(contents: Contents, *, form: int = tarfile.GNU_FORMAT, end: bool = True) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for member, data in contents:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = info.size or len(data)
            archive.addfile(info)  # only the header
            archive.fileobj.write(data + b"\0" * (-len(data) % 512))  # type: ignore[union-attr]  # it is not None
            archive.offset += len(data) + -len(data) % 512
        length = archive.offset
    return buffer.getvalue() if end else buffer.getvalue()[:length]


def zip_bytes(contents: Contents, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in contents:
            archive.writestr(str(name), data)
    return buffer.getvalue()


def pack(kind: str, contents: Contents) -> bytes:
    return {"zip": zip_bytes, "tar": tar_bytes, "tar.gz": lambda c: gzip.compress(tar_bytes(c), 1)}[kind](contents)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture(autouse=True)
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a small archive as many seek points as a large one."""
    monkeypatch.setattr(tar_index, "SPACING", 64 * 2**10)
    monkeypatch.setattr(tar_index, "MAX_BLOCK", 40_000)


KINDS = ["zip", "tar", "tar.gz"]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_image_is_read_byte_for_byte(tmp_path: Path, kind: str, cached: bool) -> None:
    files = open_archive(write(tmp_path / f"faces.{kind}", pack(kind, FACES)), cache=tmp_path / "c" if cached else None)

    assert files.names() == sorted(str(name) for name, _ in FACES)
    for name, data in [*FACES, *reversed(FACES)]:
        assert files.read(str(name)) == data


@pytest.mark.parametrize("kind", KINDS)
def test_positions_follow_the_archive_and_stamps_differ_between_members(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "faces", pack(kind, FACES))
    os.utime(path, (1, 1))
    names = [str(name) for name, _ in FACES]

    files = open_archive(path)
    stamps = files.stamps([*names, "gone.jpg"])

    assert np.all(np.diff(files.positions(names)) > 0)
    assert (stamps.dtype, stamps.shape, files.positions(names).dtype) == (np.uint64, (41,), np.int64)
    assert len(set(stamps.tolist())) == 41
    assert 0 not in stamps
    assert stamps.tolist() == open_archive(path).stamps([*names, "gone.jpg"]).tolist()
    assert (files.stamps([]).shape, files.positions([]).shape) == ((0,), (0,))
    with pytest.raises(BrokenImageError, match="does not exist"):
        files.read("gone.jpg")


def test_stamps_of_a_zip_ignore_its_time_and_stamps_of_a_tar_change_with_it(tmp_path: Path) -> None:
    names = [str(name) for name, _ in FACES]
    for kind, unchanged in (("zip", 40), ("tar", 0), ("tar.gz", 0)):
        path = write(tmp_path / "faces", pack(kind, FACES))
        os.utime(path, (1, 1))
        before = open_archive(path).stamps(names)
        path = path.rename(tmp_path / "moved")
        os.utime(path, (2, 2))

        assert int((open_archive(path).stamps(names) == before).sum()) == unchanged


def test_a_changed_member_of_a_zip_changes_only_its_own_stamp(tmp_path: Path) -> None:
    before = ZipFiles(write(tmp_path / "a.zip", zip_bytes([("a.jpg", b"one"), ("b.jpg", b"two")])))
    after = ZipFiles(write(tmp_path / "b.zip", zip_bytes([("a.jpg", b"one"), ("b.jpg", b"tow")])))

    assert (before.stamps(["a.jpg", "b.jpg"]) == after.stamps(["a.jpg", "b.jpg"])).tolist() == [True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_threads_read_the_right_bytes(tmp_path: Path, kind: str) -> None:
    files = open_archive(write(tmp_path / "faces", pack(kind, FACES)))
    order = np.random.default_rng(0).permutation(np.tile(np.arange(40), 8))

    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: files.read(str(FACES[i][0])), order))

    assert all(data == FACES[i][1] for i, data in zip(order, read, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_forked_process_and_its_parent_do_not_share_the_file_position(tmp_path: Path, kind: str) -> None:
    files = open_archive(write(tmp_path / "faces", pack(kind, FACES)))
    files.read(str(FACES[3][0]))
    stop = threading.Event()

    def read_all() -> bool:
        return all(files.read(str(name)) == data for _ in range(5) for name, data in FACES)

    def keep_reading() -> None:  # so that locks are held during the fork
        while not stop.is_set():
            read_all()

    thread = threading.Thread(target=keep_reading)
    thread.start()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            os._exit(0 if read_all() else 1)
        children.append(child)
    mine = read_all()
    statuses = [os.waitpid(child, 0)[1] for child in children]
    stop.set()
    thread.join()

    assert (mine, statuses) == (True, [0] * 4)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_complete_in_every_tar_format(tmp_path: Path, form: int) -> None:
    long = "/".join(["CACD2000", "x" * 90, "é" * 40, "a.jpg"])

    files = open_archive(write(tmp_path / "a.tar", tar_bytes([(long, b"abc")], form=form)))

    assert files.names() == [long]
    assert files.read(long) == b"abc"


def test_a_tar_older_than_posix_is_read(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(ONE))
    data[257:265] = bytes(8)  # no magic
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 0x20 + sum(data[156:512]))

    assert open_archive(write(tmp_path / "a", bytes(data))).read("a.jpg") == ONE[0][1]


def test_other_members_than_images_are_skipped(tmp_path: Path) -> None:
    litter: Contents = [
        ("CACD2000/a.JPG", b"a"),
        ("./b.jpeg", b"b"),
        ("windows\\c.png", b"c"),
        ("empty.jpg", b""),
        ("CACD2000/._a.JPG", b"x"),
        ("__MACOSX/CACD2000/a.jpg", b"x"),
        (".cache/d.jpg", b"x"),
        ("CACD2000/.DS_Store", b"x"),
        ("Icon\r", b"x"),
        ("celebrity2000_meta.mat", b"x"),
        ("more.zip", b"x"),
        ("jpg", b"x"),
    ]
    for kind in KINDS:
        files = open_archive(write(tmp_path / "a", pack(kind, litter)))

        assert files.names() == ["CACD2000/a.JPG", "b.jpeg", "empty.jpg", "windows/c.png"]
        assert [files.read(name) for name in files.names()] == [b"a", b"b", b"", b"c"]


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("Zoë.jpg".encode(), "Zoë.jpg"),
        ("Zoë.jpg".encode("latin-1"), "Zoë.jpg"),
        ("O’Neal.jpg".encode("cp1252"), "O’Neal.jpg"),
        (b"\x81\xe9.jpg", "\x81é.jpg"),
    ],
)
@pytest.mark.parametrize("cached", [True, False])
def test_a_name_in_any_encoding_can_be_sorted_and_written(tmp_path: Path, raw: bytes, name: str, cached: bool) -> None:
    info = tarfile.TarInfo(raw.decode("utf-8", "surrogateescape"))
    path = write(tmp_path / "a.tar", tar_bytes([(info, b"abc"), ("b.jpg", b"b")]))
    if "\x81" in name:
        with pytest.raises(UserError, match="control characters"):
            open_archive(path)
        return

    files = open_archive(path, cache=tmp_path if cached else None)

    assert files.names() == sorted([name, "b.jpg"])
    assert files.read(name) == b"abc"
    assert str(np.array(files.names())[0]).encode()


def test_a_zip_without_the_utf_8_flag_is_decoded_as_code_page_437(tmp_path: Path) -> None:
    data = zip_bytes([("Zoe.jpg", b"abc")]).replace(b"Zoe.jpg", b"Zo\x89.jpg")

    assert open_archive(write(tmp_path / "a.zip", data)).names() == ["Zoë.jpg"]


def test_a_zip64_archive_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    data = zip_bytes(FACES)
    assert b"PK\x06\x06" in data  # the end record of zip64

    files = open_archive(write(tmp_path / "a.zip", data))

    assert all(files.read(str(name)) == content for name, content in FACES)


@pytest.mark.parametrize("cut", [False, True])
def test_gzip_with_several_streams_and_padding_is_read(tmp_path: Path, cut: bool) -> None:
    tar = tar_bytes(FACES)
    data = b"".join(gzip.compress(tar[i : i + 100_000]) for i in range(0, len(tar), 100_000)) + b"\0" * 300
    path = write(tmp_path / "a.tgz", data[:-320] if cut else data)
    if cut:
        with pytest.raises(UserError, match=r"truncated or damaged after \d\d images"):
            open_archive(path)
        return

    files = open_archive(path)

    assert all(files.read(str(name)) == content for name, content in FACES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_content_decides_the_type_and_not_the_name(tmp_path: Path, kind: str) -> None:
    for suffix in (*ARCHIVE_SUFFIXES, ".rar", ""):
        files = open_archive(write(tmp_path / f"a{suffix}", pack(kind, ONE)))

        assert isinstance(files, ZipFiles if kind == "zip" else TarFiles)


def test_a_zip_after_other_data_is_read(tmp_path: Path) -> None:
    files = open_archive(write(tmp_path / "a.exe", b"MZ" + noise(600) + zip_bytes(ONE)))

    assert files.read("a.jpg") == ONE[0][1]


@pytest.mark.parametrize(("kind", "method"), [("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)])
def test_a_damaged_member_of_a_zip_is_one_broken_image(tmp_path: Path, kind: str, method: int) -> None:
    data = bytearray(zip_bytes([("a.jpg", noise(5000)), ("b.jpg", noise(5000, 1))], method))
    data[3000] ^= 1
    files = open_archive(write(tmp_path / "a.zip", bytes(data)))

    with pytest.raises(BrokenImageError, match=r"CRC|Error -3") as caught:
        files.read("a.jpg")

    assert caught.value.lasting is True
    assert files.read("b.jpg") == noise(5000, 1)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's list of open files")
@pytest.mark.parametrize("kind", KINDS)
def test_a_temporary_disk_error_breaks_no_image_permanently(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "faces", pack(kind, FACES))
    files = open_archive(path)
    name, data = str(FACES[-1][0]), FACES[-1][1]
    opened = [
        int(fd.name) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink() and fd.readlink() == path.resolve()
    ]
    saved = [os.dup(fd) for fd in opened]
    folder = os.open(tmp_path, os.O_RDONLY)  # reading from a folder is an OSError
    for fd in opened:
        os.dup2(folder, fd)

    with pytest.raises(BrokenImageError) as caught:
        files.read(name)
    for fd, back in zip(opened, saved, strict=True):
        os.dup2(back, fd)

    assert caught.value.lasting is False
    assert files.read(name) == data
    for fd in (folder, *saved):
        os.close(fd)


def test_a_member_is_not_inflated_beyond_its_claimed_size(tmp_path: Path) -> None:
    data = bytearray(zip_bytes([("a.jpg", b"\0" * 30_000_000)]))
    entry = data.index(b"PK\1\2")
    data[entry + 24 : entry + 28] = struct.pack("<I", 1000)  # really 30,000 times as much
    files = open_archive(write(tmp_path / "a.zip", bytes(data)))
    tracemalloc.start()
    with pytest.raises(BrokenImageError, match="CRC"):
        files.read("a.jpg")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2_000_000


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_tar_that_is_cut_after_listing_has_broken_images(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a", pack(kind, FACES))
    files = open_archive(path)
    files.read(str(FACES[2][0]))
    os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(BrokenImageError) as caught:
        files.read(str(FACES[-1][0]))

    assert caught.value.lasting is False
    assert files.read(str(FACES[2][0])) == FACES[2][1]


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_second_process_uses_the_cached_listing(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a", pack(kind, FACES))
    first = open_archive(path, cache=tmp_path / "cache")
    monkeypatch.setattr(tars, "list_tar", lambda path: pytest.fail("the archive was listed again"))

    second = open_archive(path, cache=tmp_path / "cache")

    names = first.names()
    assert second.names() == names
    assert second.stamps(names).tolist() == first.stamps(names).tolist()
    assert all(second.read(str(name)) == data for name, data in FACES)


def test_a_changed_archive_is_listed_again_in_the_same_cache_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tgz", pack("tar.gz", FACES))
    open_archive(path, cache=tmp_path / "cache")
    write(path, pack("tar.gz", FACES[:7]))

    files = open_archive(path, cache=tmp_path / "cache")

    assert len(files.names()) == 7
    assert all(files.read(str(name)) == data for name, data in FACES[:7])
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1


def test_a_damaged_or_incomplete_listing_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.tgz", pack("tar.gz", FACES))
    open_archive(path, cache=tmp_path / "cache")
    (cached,) = (tmp_path / "cache").glob("*.npz")
    good = cached.read_bytes()
    damages = [b"", b"no npz", good[: len(good) // 2], good[:-9]]
    for at in range(200, len(good), len(good) // 25):
        damages.append(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])

    for damage in damages:
        cached.write_bytes(damage)
        files = open_archive(path, cache=tmp_path / "cache")

        assert all(files.read(str(name)) == data for name, data in FACES[::9])
    assert "damaged" in caplog.text


def test_an_archive_opened_several_times_at_once_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.tgz", pack("tar.gz", FACES))
    calls, real = [], tars.list_tar
    monkeypatch.setattr(tars, "list_tar", lambda path: calls.append(path) or real(path))

    with ThreadPoolExecutor(4) as pool:  # a file lock works between threads as between processes
        opened = list(pool.map(lambda _: open_archive(path, cache=tmp_path / "cache"), range(4)))

    assert len(calls) == 1
    assert all(files.read(str(FACES[5][0])) == FACES[5][1] for files in opened)


def test_a_cache_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", pack("tar", ONE))
    write(tmp_path / "file", b"")

    with pytest.raises(UserError, match=r"cannot list .*set paths\.cache elsewhere"):
        open_archive(path, cache=tmp_path / "file" / "cache")


def tar_with_member(kind: bytes, **fields: object) -> Callable[[], bytes]:
    def build() -> bytes:
        info = tarfile.TarInfo("CACD2000/b.jpg")
        info.type = kind
        for name, value in fields.items():
            setattr(info, name, value)
        return tar_bytes([*ONE, (info, b"")])

    return build


def patched(data: bytes, at: int, change: bytes) -> bytes:
    return data[:at] + change + data[at + len(change) :]


def with_checksum(data: bytes, at: int) -> bytes:
    """Correct the checksum of the tar header at an offset."""
    header = data[at : at + 512]
    return patched(data, at + 148, b"%06o\0 " % (sum(header[:148]) + 8 * 0x20 + sum(header[156:])))


def zip_with_entry(offset: int, change: bytes, contents: Contents = ONE) -> bytes:
    data = zip_bytes(contents)
    return patched(data, data.index(b"PK\1\2") + offset, change)


def unix_link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("a.jpg")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def overlapping() -> bytes:
    """Return a zip in which 300 names refer to the same 4 MB of zeros."""
    data = zip_bytes([(f"{i:03}.jpg", b"\0" * 4_000_000 if i == 0 else b"") for i in range(300)])
    first = data.index(b"PK\1\2")
    entry = data[first : data.index(b"PK\1\2", first + 4)]
    at = first
    for _ in range(299):
        at = data.index(b"PK\1\2", at + 4)
        data = patched(data, at + 16, entry[16:28])  # CRC and sizes
        data = patched(data, at + 42, entry[42:46])  # the offset of the data
    return data


def pax_sparse() -> bytes:
    info = tarfile.TarInfo("b.jpg")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999999"}
    return tar_bytes([*ONE, (info, b"1\n0\n512\n".ljust(1024, b"\0"))], form=tarfile.PAX_FORMAT)


def tar_with_size(size: int) -> bytes:
    info = tarfile.TarInfo("b.jpg")
    info.size = size
    return tar_bytes([*ONE, (info, b"")])


def nested_headers() -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 5
    return b"".join(info.tobuf(tarfile.GNU_FORMAT) + b"a.jpg".ljust(512, b"\0") for _ in range(5000)) + tar_bytes(ONE)


def long_name_of(size: int) -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    return tar_bytes(ONE, end=False) + info.tobuf(tarfile.GNU_FORMAT) + tar_bytes(ONE)


FULL_TAR, FULL_GZ, FULL_ZIP = tar_bytes(FACES), gzip.compress(tar_bytes(FACES), 1), zip_bytes(FACES)
DATA_END = len(tar_bytes(FACES, end=False))
RETRY = "resume its download, or delete it and download it again"

TARS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a symbolic link": (
        tar_with_member(tarfile.SYMTYPE, linkname="/etc/passwd"),
        r"'CACD2000/b.jpg', a link; pack the files",
    ),
    "a hard link": (tar_with_member(tarfile.LNKTYPE, linkname="a.jpg"), r"'CACD2000/b.jpg', a link; pack the files"),
    "a FIFO": (tar_with_member(tarfile.FIFOTYPE), "b.jpg', which is neither a file nor a folder"),
    "a device": (
        tar_with_member(tarfile.CHRTYPE, devmajor=1, devminor=5),
        "b.jpg', which is neither a file nor a folder",
    ),
    "a block device": (tar_with_member(tarfile.BLKTYPE, devmajor=8), "b.jpg', which is neither a file nor a folder"),
    "a multi-volume part": (tar_with_member(b"M"), "b.jpg', which is neither a file nor a folder"),
    "a GNU sparse file": (tar_with_member(tarfile.GNUTYPE_SPARSE), "b.jpg', a sparse file; pack it without --sparse"),
    "a pax sparse file": (pax_sparse, "b.jpg', a sparse file; pack it without --sparse"),
    "an absurd size": (lambda: tar_with_size(2**40), "b.jpg', which claims 1,099,511,627,776 bytes, at most"),
    "a size just too large": (lambda: tar_with_size(MAX_BYTES + 1), "which claims 268,435,457 bytes, at most"),
    "a negative size": (
        lambda: with_checksum(patched(tar_bytes([*ONE, ("b.jpg", b"")]), 1536 + 124, b"\xff" * 11 + b"\x00"), 1536),
        "b.jpg', which claims -256 bytes",
    ),
    "a name of gigabytes": (lambda: long_name_of(2**33 - 512), "after 1 images .a header claims 8,589,934,080 bytes"),
    "nested headers": (nested_headers, "truncated or damaged after 0 images .*recursion"),
    "no member at all": (lambda: tar_bytes([]), "contains no image: give the archive"),
    "nothing but zeros": (lambda: bytes(512), "contains no image: give the archive"),
    "a member cut": (lambda: FULL_TAR[: DATA_END - 100], f"damaged after 39 images .*{RETRY}"),
    "cut between two members": (lambda: FULL_TAR[:DATA_END], f"damaged after 40 images .it has no end mark.*{RETRY}"),
    "a header cut": (lambda: FULL_TAR[:DATA_END] + b"a.jpg", f"damaged after 40 images .*{RETRY}"),
    "a header cut at first": (lambda: tar_bytes(ONE)[:512], f"damaged after 0 images .*{RETRY}"),
    "a damaged header": (
        lambda: patched(FULL_TAR, DATA_END - 38912 - 512 + 3, b"#"),
        "damaged after 39 images .there is no header",
    ),
    "garbage instead of the end mark": (
        lambda: FULL_TAR[:DATA_END] + noise(2048),
        "damaged after 40 images .there is no header",
    ),
}

ZIPS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a link": (unix_link, "'a.jpg', a link or device"),
    "encryption": (lambda: zip_with_entry(8, b"\1\0"), "'a.jpg', which is encrypted; unpack it with its password"),
    "AES": (lambda: zip_with_entry(8, b"\1\0\x63\0"), "'a.jpg', which is encrypted"),
    "bzip2": (lambda: zip_bytes(ONE, zipfile.ZIP_BZIP2), "'a.jpg', compressed by bzip2"),
    "LZMA": (lambda: zip_bytes(ONE, zipfile.ZIP_LZMA), "'a.jpg', compressed by lzma"),
    "deflate64": (lambda: zip_with_entry(10, b"\x09\0"), "'a.jpg', compressed by deflate64"),
    "an unknown method": (lambda: zip_with_entry(10, b"\x77\0"), "'a.jpg', compressed by 119"),
    "a bomb": (
        lambda: zip_bytes([("a.jpg", bytes(2**25))]),
        r"'a.jpg', which unpacks from 32,\d+ bytes to 33,554,432, like a bomb",
    ),
    "members that overlap": (
        overlapping,
        r"unpacks from [\d,]+ bytes to more than 1,200,000,000, like a decompression bomb",
    ),
    "an absurd size": (
        lambda: zip_with_entry(20, struct.pack("<II", 2**29, 2**29)),
        "'a.jpg', which claims 536,870,912 bytes, at most",
    ),
    "no member at all": (lambda: zip_bytes([]), "contains no image: give the archive"),
    "half": (lambda: FULL_ZIP[: len(FULL_ZIP) // 2], f"not a readable zip.*{RETRY}"),
    "no last byte": (lambda: FULL_ZIP[:-1], f"not a readable zip.*{RETRY}"),
    "four bytes": (lambda: FULL_ZIP[:4], f"not a readable zip.*{RETRY}"),
    "a broken directory": (
        lambda: FULL_ZIP.replace(b"PK\1\2", b"PK\1\3", 3),
        "not a readable zip, .*Bad magic number for central directory",
    ),
    "a directory with a wrong offset": (
        lambda: patched(FULL_ZIP, len(FULL_ZIP) - 10, b"\xff\xff\xff\x7f"),
        "not a readable zip",
    ),
    "a name that is not UTF-8": (
        lambda: zip_bytes([("Zoë.jpg", b"")]).replace("ë".encode(), b"\xff\xff"),
        "not a readable zip.*decode",
    ),
    "the last part of several": (
        lambda: zip_with_entry(34, b"\1\0"),
        "'a.jpg', which is in another part of a split zip",
    ),
}

OTHERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "is empty: delete it, and download it again"),
    "a web page": (lambda: b"<!DOCTYPE html><title>Log in</title>", "is a web page.* login: delete it"),
    "a web page in capitals": (lambda: b"\xef\xbb\xbf\r\n <HTML><BODY>Quota exceeded", "is a web page"),
    "an error of a storage service": (lambda: b"<?xml version='1.0'?><Error>Denied</Error>", "is a web page"),
    "RAR": (lambda: b"Rar!\x1a\x07\x01\x00" + noise(600), r"is a RAR file; supported are \.zip, \.tar and \.tar\.gz"),
    "7-Zip": (lambda: b"7z\xbc\xaf\x27\x1c" + noise(600), "is a 7-Zip file"),
    "xz": (lambda: lzma.compress(tar_bytes(ONE)), "is a xz file"),
    "bzip2": (lambda: b"BZh91AY&SY" + noise(600), "is a bzip2 file"),
    "Zstandard": (lambda: b"\x28\xb5\x2f\xfd" + noise(600), "is a Zstandard file"),
    "noise": (lambda: noise(5000), "is not an archive"),
    "an image": (lambda: b"\xff\xd8\xff\xe0" + noise(5000), "is not an archive"),
    "gzip of no tar": (lambda: gzip.compress(noise(5000)), r"contains no tar .*give the archive of the images"),
    "gzip of nothing": (lambda: gzip.compress(b""), "contains no tar"),
    "gzip, half": (lambda: FULL_GZ[: len(FULL_GZ) // 2], rf"damaged after 2\d images .*{RETRY}"),
    "gzip without its last byte": (lambda: FULL_GZ[:-1], f"damaged after 40 images .*{RETRY}"),
    "gzip of five bytes": (lambda: FULL_GZ[:5], f"damaged after 0 images .*{RETRY}"),
    "gzip with a wrong checksum": (
        lambda: patched(FULL_GZ, len(FULL_GZ) - 8, b"abcd"),
        f"damaged after 40 images .CRC check failed.*{RETRY}",
    ),
    "gzip with a wrong length": (lambda: patched(FULL_GZ, len(FULL_GZ) - 4, b"abcd"), "after 40 images .*length"),
    "gzip with a wrong bit": (lambda: patched(FULL_GZ, len(FULL_GZ) // 2, noise(9)), r"damaged after \d\d images"),
    "gzip followed by garbage": (lambda: FULL_GZ + b"<html>", "damaged after 40 images .Not a gzipped file"),
}


def check_refused(path: Path, words: str, cache: Path) -> None:
    for folder in (None, cache):
        with pytest.raises(UserError, match=words) as caught:
            open_archive(path, cache=folder)

        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert str(caught.value).encode()
        assert not isinstance(caught.value, BrokenImageError)
    assert list(cache.glob("*.npz")) == []


@pytest.mark.parametrize("kind", ZIPS)
def test_a_bad_zip_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    build, words = ZIPS[kind]

    check_refused(write(tmp_path / "a.zip", build()), words, tmp_path / "cache")


@pytest.mark.parametrize("kind", TARS)
@pytest.mark.parametrize("gzipped", [False, True])
def test_a_bad_tar_is_refused_in_one_sentence(tmp_path: Path, kind: str, gzipped: bool) -> None:
    build, words = TARS[kind]

    check_refused(
        write(tmp_path / "a.tar", gzip.compress(build(), 1) if gzipped else build()), words, tmp_path / "cache"
    )


@pytest.mark.parametrize("kind", OTHERS)
def test_a_file_that_is_not_a_complete_archive_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    build, words = OTHERS[kind]

    check_refused(write(tmp_path / "CACD2000.tar.gz", build()), words, tmp_path / "cache")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/etc/a.jpg", "the unsafe name '/etc/a.jpg'; use the archive as published"),
        ("../a.jpg", "the unsafe name"),
        ("CACD2000/../../a.jpg", "the unsafe name"),
        ("..", "the unsafe name"),
        ("..\\a.jpg", "the unsafe name"),
        ("\\\\server\\a.jpg", "the unsafe name"),
        ("C:\\a.jpg", "the unsafe name"),
        ("c:a.txt", "the unsafe name"),
        ("a\n\x1b[31m.jpg", re.escape(r"the name 'a\n\x1b[31m.jpg' with control characters")),
        ("x" * 5000 + "/../a.jpg", "the unsafe name 'xxx"),
        ("CACD2000/./face.jpg", "'CACD2000/face.jpg', more than once; pack one copy"),
        ("CACD2000\\face.jpg", "'CACD2000/face.jpg', more than once; pack one copy"),
    ],
)
def test_an_archive_with_a_bad_name_is_refused(tmp_path: Path, kind: str, name: str, words: str) -> None:
    path = write(tmp_path / "a", pack(kind, [("CACD2000/face.jpg", b"a"), (name, b"b")]))

    check_refused(path, words, tmp_path / "cache")

    with pytest.raises(UserError) as caught:
        open_archive(path)
    assert len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_of_archives_is_reported(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a", pack(kind, [("readme.txt", b"x"), ("data/CACD2000.tar.gz", b"x")]))

    check_refused(path, r"no image, but the archive 'data/CACD2000.tar.gz': unpack it", tmp_path / "cache")


@pytest.mark.parametrize("place", ["before", "inside a member", "after"])
def test_a_gzip_bomb_is_not_unpacked_completely(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "HARMLESS_BYTES", 2**20)
    zeros = tarfile.TarInfo("zeros.bin")
    zeros.size = 2**26
    contents: Contents = [*ONE, (zeros, bytes(2**26))]
    tar = {
        "before": lambda: tar_bytes([contents[1], contents[0]]),
        "inside a member": lambda: tar_bytes(contents),
        "after": lambda: tar_bytes(ONE) + bytes(2**26),
    }[place]()
    path = write(tmp_path / "a.tgz", gzip.compress(tar, 9))
    inflated = 0
    real = gzip.GzipFile.read

    def count(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal inflated
        data = real(self, size)
        inflated += len(data)
        return data

    monkeypatch.setattr(gzip.GzipFile, "read", count)

    check_refused(path, "unpacks from .* bytes to more than .*, like a decompression bomb", tmp_path / "cache")

    assert inflated / 2 < 200 * path.stat().st_size + 2**20 + 1  # in two attempts


def test_a_folder_or_a_missing_file_is_not_an_archive(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.zip"):
        with pytest.raises(UserError, match=rf"cannot read the archive {path} \(.*\): check its permissions"):
            open_archive(path)


@pytest.mark.parametrize("kind", KINDS)
def test_random_damage_is_reported_or_harmless(tmp_path: Path, kind: str) -> None:
    contents = [(name, data) for name, data in FACES[:6]]
    good = pack(kind, contents)
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(120):
        data = bytearray(good)
        if trial % 3 == 0:
            del data[int(rng.integers(len(data))) :]
        else:
            for at in rng.integers(len(data), size=1 + trial % 4):
                data[at] = rng.integers(256)
        path = write(tmp_path / "a", bytes(data))

        try:
            files = open_archive(path)
            read = {name: files.read(name) for name in files.names()}
        except UserError:
            refused += 1
            continue

        # A tar has no checksum of the content of its members.
        assert kind == "tar" or set(read.values()) <= {content for _, content in contents}
    assert refused >= 40


@pytest.mark.data
@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
def test_archives_of_published_hiragana_are_read(test_data: Path, tmp_path: Path, form: str) -> None:
    base = test_data / "hiragana73_sample"
    path = Path(shutil.make_archive(str(tmp_path / "sample"), form, base))

    files = open_archive(path)

    assert len(files.names()) == 730
    assert all(files.read(name) == (base / name).read_bytes() for name in files.names())
