"""The store of decoded pixels: filled on demand, shared between processes, and robust to failures."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from agebench.data import store as store_module
from agebench.data.records import Array
from agebench.data.resize import Resize
from agebench.data.store import Store
from agebench.errors import BrokenImageError, UserError


class Shades:
    """A source of 5x5 images that show their row number; it records the opened rows."""

    def __init__(self, *, failing: int = -1, error: BaseException | None = None) -> None:
        self.opened: list[int] = []
        self.failing, self.error = failing, error
        self.version = np.full(5000, 7, dtype=np.uint64)
        self.plus = 0

    def open(self, row: int) -> Image.Image:
        self.opened.append(row)
        if row == self.failing and self.error:
            raise self.error
        return Image.new("L", (5, 5), (row + self.plus) % 256)

    def stamps(self, rows: Array) -> Array:
        return self.version[rows]

    def reading_order(self, rows: Array) -> Array:
        return rows[::-1]


def make(cache: Path, *, key: str = "k", count: int = 20, size: int = 4, channels: int = 1) -> Store:
    return Store(cache, "shades", key=key, count=count, resize=Resize(size, channels))


def fill(cache: Path, source: Shades, rows: Array | None = None, **changes: object) -> list[int]:
    """Fill rows of a store and return their packed shades."""
    store = make(cache, **changes)  # type: ignore[arg-type]
    rows = np.arange(store.shape[0]) if rows is None else rows
    pixels, _ = store.fill(source, rows)  # type: ignore[arg-type]
    return pixels[rows, 0, 0, 0].tolist()


def test_a_stamp_of_zero_is_not_taken_for_an_empty_row(tmp_path: Path) -> None:
    source = Shades()
    source.version[:] = 0

    shades = fill(tmp_path, source)

    assert shades == list(range(20))
    assert sorted(source.opened) == list(range(20))


def test_only_requested_rows_are_decoded_and_later_splits_add_missing_rows(tmp_path: Path) -> None:
    source = Shades()

    first = fill(tmp_path, source, np.array([3, 7, 9]))
    second = fill(tmp_path, source, np.array([1, 7, 9, 11]))

    assert (first, second) == ([3, 7, 9], [1, 7, 9, 11])
    assert sorted(source.opened) == [1, 3, 7, 9, 11]


def test_rows_are_read_in_the_reading_order_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "cores", lambda: 1)
    source = Shades()

    fill(tmp_path, source)

    assert source.opened == list(range(20))[::-1]


def test_empty_rows_take_no_disk_space(tmp_path: Path) -> None:
    store = make(tmp_path, count=5000, size=64)

    store.fill(Shades(), np.array([4000]))  # type: ignore[arg-type]

    pixels = store.folder / "pixels.u8"
    assert pixels.stat().st_size == 5000 * (64 * 64 + 8)
    if sys.platform == "linux":
        assert pixels.stat().st_blocks * 512 <= 6 * 4096


@pytest.mark.parametrize("changes", [{"size": 5}, {"channels": 3}, {"key": "l"}, {"count": 19}])
def test_settings_that_change_the_pixels_make_another_store(tmp_path: Path, changes: dict[str, int]) -> None:
    fill(tmp_path, Shades())
    again = Shades()

    fill(tmp_path, again, **changes)

    assert len(again.opened) == changes.get("count", 20)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("option", [{"crop_mode": "center"}, {"crop_pct": 0.9}, {"interpolation": "box"}])
def test_options_of_resizing_make_another_store(tmp_path: Path, option: dict[str, object]) -> None:
    plain = Store(tmp_path, "s", key="k", count=9, resize=Resize(4, 3))

    other = Store(tmp_path, "s", key="k", count=9, resize=Resize(4, 3, **option))  # type: ignore[arg-type]

    assert other.folder != plain.folder


def test_a_changed_file_is_decoded_again_and_mapped_pixels_stay_the_same(tmp_path: Path) -> None:
    source = Shades()
    store = make(tmp_path)
    old, _ = store.fill(source, np.arange(20))  # type: ignore[arg-type]
    before = store.state(np.arange(20))
    source.opened.clear()
    source.version[[4, 5]] += 1
    source.plus = 100

    now = fill(tmp_path, source, np.arange(10))

    assert sorted(source.opened) == [4, 5]
    assert now == [0, 1, 2, 3, 104, 105, 6, 7, 8, 9]
    assert fill(tmp_path, source)[10:] == list(range(10, 20))
    assert old[:, 0, 0, 0].tolist() == list(range(20))
    assert make(tmp_path).state(np.arange(20)) != before


def test_broken_images_are_reported_and_only_retried_after_their_file_changes(tmp_path: Path) -> None:
    source = Shades(failing=7, error=BrokenImageError("truncated"))
    store = make(tmp_path)
    rows = np.arange(20)

    _, first = store.fill(source, rows)  # type: ignore[arg-type]
    opened = len(source.opened)
    _, second = make(tmp_path).fill(source, rows)  # type: ignore[arg-type]
    reopened = len(source.opened) - opened
    _, elsewhere = make(tmp_path).fill(source, np.array([3, 4]))  # type: ignore[arg-type]
    source.error, source.version[7] = None, 8
    pixels, repaired = make(tmp_path).fill(source, rows)  # type: ignore[arg-type]

    assert first == second == {7: "truncated"}
    assert (opened, reopened) == (20, 0)
    assert elsewhere == repaired == {}
    assert pixels[7, 0, 0, 0] == 7


def test_an_image_that_could_not_be_read_is_retried_by_the_next_call(tmp_path: Path) -> None:
    source = Shades(failing=7, error=BrokenImageError("Input/output error", lasting=False))

    _, first = make(tmp_path).fill(source, np.arange(20))  # type: ignore[arg-type]
    source.error = None
    _, second = make(tmp_path).fill(source, np.arange(20))  # type: ignore[arg-type]

    assert (first, second) == ({7: "Input/output error"}, {})
    assert sorted(source.opened) == sorted([*range(20), 7])


@pytest.mark.parametrize("error", [UserError("the disk is gone"), KeyboardInterrupt()])
def test_an_exception_is_passed_on_and_decoded_rows_are_kept(tmp_path: Path, error: BaseException) -> None:
    source = Shades(failing=1000, error=error)

    with pytest.raises(type(error)) as caught:
        fill(tmp_path, source, count=5000)
    opened = len(source.opened)
    repaired = Shades()
    shades = fill(tmp_path, repaired, count=5000)

    assert caught.value is error
    assert 3900 < opened < 4900  # from the last row down to 1000; the others were cancelled
    assert len(repaired.opened) <= 5000 - 3900
    assert shades == [row % 256 for row in range(5000)]


def test_too_little_disk_space_is_an_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=319))  # 20 x 4 x 4 is 320
    source = Shades()

    with pytest.raises(UserError, match=r"MiB are free: set paths\.cache"):
        fill(tmp_path, source)

    assert source.opened == []


def test_a_disk_that_becomes_full_is_reported_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module, "_sync", full)

    with pytest.raises(UserError, match=r"No space left on device; set paths\.cache"):
        fill(tmp_path, Shades())


FULL = """
import numpy as np
from PIL import Image
from pathlib import Path
from agebench.data.resize import Resize
from agebench.data.store import Store
from agebench.errors import UserError

class Source:
    def open(self, row):
        if row == 300:  # another program uses the rest of the disk
            try:
                Path("{folder}/others").write_bytes(bytes(2**22))
            except OSError:
                pass
        return Image.new("L", (16, 16), row % 256)
    def stamps(self, rows):
        return np.full(len(rows), 7, dtype=np.uint64)
    def reading_order(self, rows):
        return rows

store = Store(Path("{folder}"), "shades", key="k", count=900, resize=Resize(16, 3))
try:
    store.fill(Source(), np.arange(900))
except UserError as error:
    print("error:", error)
Path("{folder}/others").unlink(missing_ok=True)
pixels, _ = store.fill(Source(), np.arange(300))
print("shades:", pixels[:300, 0, 0, 0].tolist() == [row % 256 for row in range(300)])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a separate disk, mounted as on Linux")
def test_a_full_disk_while_writing_stamps_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    """A write through a memory map would kill the process with a signal on a full disk."""
    mount = f"mount -t tmpfs -o size=1m none {tmp_path}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no permission to mount a disk")

    script = FULL.format(folder=tmp_path)
    line = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, script]
    done = subprocess.run(line, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "No space left on device; set paths.cache to another folder" in done.stdout
    assert "shades: True" in done.stdout


@pytest.mark.parametrize("text", ["[]", '{"3": 5}', '{"3": ["q", "a"]}', '{"x": [1, "a"]}', "cut"])
def test_an_invalid_list_of_broken_images_is_computed_again(tmp_path: Path, text: str) -> None:
    source = Shades(failing=7, error=BrokenImageError("truncated"))
    fill(tmp_path, source)
    next(tmp_path.glob("*/broken.json")).write_text(text)

    _, broken = make(tmp_path).fill(source, np.arange(20))  # type: ignore[arg-type]

    assert broken == {7: "truncated"}


def test_threads_that_fill_at_once_decode_once(tmp_path: Path) -> None:
    source, results = Shades(), []
    together = threading.Barrier(4)

    def ask() -> None:
        together.wait()
        results.append(fill(tmp_path, source))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(source.opened) == list(range(20))
    assert results == [list(range(20))] * 4


@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_a_store_with_a_missing_or_short_file_is_packed_again(tmp_path: Path, how: str) -> None:
    fill(tmp_path, Shades())
    file = next(tmp_path.glob("*/pixels.u8"))
    if how == "missing":
        file.unlink()
    else:
        os.truncate(file, 100)
    again = Shades()

    shades = fill(tmp_path, again)

    assert shades == list(range(20))
    assert len(again.opened) == 20


def test_warming_the_page_cache_changes_nothing(tmp_path: Path) -> None:
    store = make(tmp_path)
    rows = np.array([1, 2, 5, 19])
    pixels, _ = store.fill(Shades(), rows)  # type: ignore[arg-type]

    store._read_through(rows)

    assert pixels[rows, 0, 0, 0].tolist() == [1, 2, 5, 19]


def test_an_image_that_changes_between_two_fills_is_never_black(tmp_path: Path) -> None:
    source, rows = Shades(), np.arange(20)
    first, _ = make(tmp_path).fill(source, rows)  # type: ignore[arg-type]
    source.version[3], source.plus = 8, 50
    second, _ = make(tmp_path).fill(source, np.arange(5, 10))  # type: ignore[arg-type]
    third, _ = make(tmp_path).fill(source, rows)  # type: ignore[arg-type]

    assert first[:, 0, 0, 0].tolist() == list(range(20))
    assert second[5:10, 0, 0, 0].tolist() == [5, 6, 7, 8, 9]
    assert third[:, 0, 0, 0].tolist() == [53 if row == 3 else row for row in range(20)]


def test_dropping_a_changed_row_replaces_the_file_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, rows = Shades(), np.arange(20)
    mapped, _ = make(tmp_path).fill(source, rows)  # type: ignore[arg-type]
    source.version[3], source.plus = 8, 50

    def killed(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path).fill(source, rows)  # type: ignore[arg-type]
    again, _ = make(tmp_path).fill(source, rows)  # type: ignore[arg-type]

    assert mapped[:, 0, 0, 0].tolist() == list(range(20))
    assert again[3, 0, 0, 0] == 53
    assert not list(tmp_path.glob("*/*.part"))


def test_partial_files_of_a_killed_process_are_deleted_and_others_stay(tmp_path: Path) -> None:
    store = make(tmp_path, count=3)
    store.folder.mkdir(parents=True)
    names = ("pixels.part", "broken.json.1-2.part", "missing.csv.1-2.part", "statistics-0.json.1-2.part")
    for name in names:
        (store.folder / name).write_text("half")

    store.fill(Shades(), np.arange(3))  # type: ignore[arg-type]

    assert sorted(path.name for path in store.folder.glob("*.part")) == sorted(names[2:])


def test_an_image_that_cannot_be_converted_is_broken(tmp_path: Path) -> None:
    source, rows = Shades(), np.arange(3)

    def lab(row: int) -> Image.Image:
        return Image.new("LAB", (5, 5)) if row == 1 else Image.new("L", (5, 5), row)

    source.open = lab  # type: ignore[method-assign]
    _, broken = make(tmp_path, count=3).fill(source, rows)  # type: ignore[arg-type]

    assert list(broken) == [1]
    assert broken[1] == "it cannot be converted (conversion from LAB to RGB not supported)"


def test_an_empty_list_of_broken_images_is_computed_again(tmp_path: Path) -> None:
    source = Shades(failing=7, error=BrokenImageError("truncated"))
    fill(tmp_path, source)
    next(tmp_path.glob("*/broken.json")).write_text("")

    _, broken = make(tmp_path).fill(source, np.arange(20))  # type: ignore[arg-type]

    assert broken == {7: "truncated"}


PROGRAM = """
import os, sys, time
from pathlib import Path
import numpy as np
from PIL import Image
from agebench.data import store
from agebench.data.resize import Resize

cache, marks, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
store.COMMIT_S = 0.01

class Source:
    def open(self, row):
        (marks / f"{row}-{os.getpid()}.opened").touch()
        time.sleep(pause)
        return Image.new("L", (5, 5), row)
    def stamps(self, rows):
        return np.full(len(rows), 7, dtype=np.uint64)
    def reading_order(self, rows):
        return rows

print("ready", flush=True)
packed = store.Store(cache, "shades", key="k", count=200, resize=Resize(4, 1))
pixels, _ = packed.fill(Source(), np.arange(200))
assert pixels[:, 0, 0, 0].tolist() == list(range(200))
"""


def start(cache: Path, marks: Path, pause: float) -> subprocess.Popen[str]:
    marks.mkdir(exist_ok=True)
    command = [sys.executable, "-c", PROGRAM, str(cache), str(marks), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.ci
def test_processes_that_fill_at_once_decode_once(tmp_path: Path) -> None:
    processes = [start(tmp_path / "cache", tmp_path / "marks", 0.01) for _ in range(2)]

    errors = [process.communicate(timeout=120)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], errors
    assert len(list((tmp_path / "marks").iterdir())) == 200


@pytest.mark.slow
def test_packing_that_is_killed_repeatedly_gives_the_same_bytes(tmp_path: Path) -> None:
    unbroken, killed, marks = tmp_path / "unbroken", tmp_path / "killed", tmp_path / "marks"
    assert start(unbroken, marks, 0).wait(timeout=120) == 0
    pause, codes = random.Random(0), []

    for _ in range(5):
        process = start(killed, marks, 0.02)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause.uniform(0.05, 0.5))
        os.kill(process.pid, signal.SIGKILL)
        codes.append(process.wait())
    left = len(list(marks.iterdir()))
    assert start(killed, marks, 0).wait(timeout=120) == 0

    assert -9 in codes
    assert len(list(marks.iterdir())) - left < 200  # the last process resumed the work of the others
    assert next(killed.glob("*/pixels.u8")).read_bytes() == next(unbroken.glob("*/pixels.u8")).read_bytes()
