"""Pixels decoded once: against Pillow itself, and under failures."""

import io
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from agebench.data.store import fit, packed
from agebench.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (40, 30, 4), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (40, 30), dtype=np.uint16)


def through_file(image: Image.Image, kind: str, **options: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def drawn(mode: str) -> Image.Image:
    rgb = Image.fromarray(NOISE[..., :3])
    if mode == "P-transparent":
        return through_file(rgb.quantize(16), "PNG", transparency=3)
    if mode == "RGBA":
        return through_file(Image.fromarray(NOISE), "PNG")
    if mode == "CMYK":
        return through_file(rgb.convert("CMYK"), "JPEG")
    return through_file(rgb.quantize(16) if mode == "P" else rgb.convert(mode), "PNG")


def as_chw(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "P-transparent", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 64])
def test_pixels_are_what_pillow_makes_of_them_to_the_bit(mode: str, channels: int, size: int) -> None:
    pixels = fit(drawn(mode), size, channels)

    plain = drawn(mode).convert("L" if channels == 1 else "RGB")
    expected = as_chw(plain.resize((size, size), Image.Resampling.BILINEAR))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def test_an_image_of_the_right_size_keeps_every_pixel() -> None:
    pixels = fit(Image.fromarray(NOISE[:30, :30, :3]), 30, 3)

    np.testing.assert_array_equal(pixels, NOISE[:30, :30, :3].transpose(2, 0, 1))


def test_grey_from_colour_is_luma() -> None:
    image = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], dtype=np.uint8))

    pixels = fit(image, 2, 1)

    assert pixels.tolist() == [[[76, 150], [29, 9]]]  # ITU-R 601: 0.299, 0.587, 0.114


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_of_grey_are_divided_by_257(kind: str, channels: int) -> None:
    image = through_file(Image.fromarray(DEEP), kind)

    pixels = fit(image, 10, channels)

    eight = Image.fromarray(np.round(DEEP.astype(np.float64) / 257).astype(np.uint8))
    expected = np.asarray(eight.resize((10, 10), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels, np.stack([expected] * channels))


def test_a_nearly_black_image_of_sixteen_bits_stays_nearly_black() -> None:
    image = through_file(Image.fromarray(np.full((4, 4), 200, dtype=np.uint16)), "PNG")

    assert fit(image, 4, 1).max() == 1  # 200 / 257


def test_numbers_of_eight_bits_in_a_wider_mode_keep_their_value() -> None:
    image = Image.fromarray(np.full((4, 4), 200, dtype=np.int32))

    assert fit(image, 4, 1).tolist() == [[[200] * 4] * 4]


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_270), (8, Image.Transpose.ROTATE_90)],
)
def test_a_photo_taken_sideways_is_turned(orientation: int, turn: Image.Transpose) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = through_file(Image.fromarray(NOISE[..., :3]), "JPEG", exif=exif)
    flat = through_file(Image.fromarray(NOISE[..., :3]), "JPEG")

    pixels = fit(photo, 16, 3)

    expected = flat.transpose(turn).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pixels, as_chw(expected))


class Opener:
    """Opens images that show their row number, and counts."""

    def __init__(self, failing: int = -1, error: BaseException | None = None) -> None:
        self.opened: list[int] = []
        self.failing, self.error = failing, error

    def __call__(self, row: int) -> Image.Image:
        self.opened.append(row)
        if row == self.failing and self.error:
            raise self.error
        return Image.new("L", (5, 5), row)


def pack(cache: Path, open_image: Callable[[int], Image.Image], count: int = 20, **changes: object) -> np.ndarray:
    settings = {"size": 4, "channels": 1, "key": "k"} | changes
    return packed(cache, open_image, np.arange(count), **settings)  # type: ignore[arg-type]


def test_rows_come_in_the_order_asked_for(tmp_path: Path) -> None:
    pixels = packed(tmp_path, Opener(), np.array([7, 3, 9]), size=4, channels=3, key="k")

    assert pixels.shape == (3, 3, 4, 4)
    assert pixels.dtype == np.uint8
    assert pixels[:, 0, 0, 0].tolist() == [7, 3, 9]


def test_a_second_call_decodes_nothing(tmp_path: Path) -> None:
    first, second = Opener(), Opener()

    before, after = pack(tmp_path, first), pack(tmp_path, second)

    assert sorted(first.opened) == list(range(20))
    assert second.opened == []
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("changes", [{"size": 5}, {"channels": 3}, {"key": "l"}, {"count": 19}])
def test_whatever_decides_the_pixels_makes_another_file(tmp_path: Path, changes: dict[str, int]) -> None:
    pack(tmp_path, Opener())
    again = Opener()

    pack(tmp_path, again, **changes)

    assert len(again.opened) == changes.get("count", 20)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_writing_to_the_pixels_leaves_the_file_alone(tmp_path: Path) -> None:
    pixels = pack(tmp_path, Opener())

    pixels[:] = 255

    assert pack(tmp_path, Opener())[:, 0, 0, 0].tolist() == list(range(20))


@pytest.mark.parametrize("error", [UserError("cannot read the image 7.jpg"), KeyboardInterrupt()])
def test_a_failure_comes_out_as_it_is_and_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    broken, mended = Opener(failing=7, error=error), Opener()

    with pytest.raises(type(error)) as caught:
        pack(tmp_path, broken, count=5000)
    left = [path.suffix for path in tmp_path.iterdir()]
    pack(tmp_path, mended, count=5000)

    assert caught.value is error
    assert set(left) <= {".lock"}
    assert len(broken.opened) < 4900  # the others were called off
    assert len(mended.opened) == 5000


def test_a_disk_too_small_is_said_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=319))  # 20 x 4 x 4 is 320
    opener = Opener()

    with pytest.raises(UserError, match=r"GiB are free: set paths\.cache"):
        pack(tmp_path, opener)

    assert opener.opened == []


def test_threads_that_ask_at_once_pack_once(tmp_path: Path) -> None:
    opener, results = Opener(), []
    together = threading.Barrier(4)

    def ask() -> None:
        together.wait()
        results.append(pack(tmp_path, opener))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(opener.opened) == list(range(20))
    assert [pixels[:, 0, 0, 0].tolist() for pixels in results] == [list(range(20))] * 4


PROGRAM = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from PIL import Image
from agebench.data.store import packed

cache, killed = Path(sys.argv[1]), sys.argv[2] == "killed"

def open_image(row):
    (cache / f"{row}-{os.getpid()}.opened").touch()
    if killed and row == 15:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return Image.new("L", (5, 5), row)

pixels = packed(cache, open_image, np.arange(20), size=4, channels=1, key="k")
assert pixels[:, 0, 0, 0].tolist() == list(range(20))
"""


def run(cache: Path, how: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(cache), how], stderr=subprocess.PIPE)


def test_processes_that_ask_at_once_pack_once(tmp_path: Path) -> None:
    processes = [run(tmp_path, "whole"), run(tmp_path, "whole")]

    errors = [process.communicate(timeout=60)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], errors
    assert len(list(tmp_path.glob("*.opened"))) == 20


def test_what_a_killed_process_left_is_not_believed(tmp_path: Path) -> None:
    process = run(tmp_path, "killed")
    process.communicate(timeout=60)
    opener = Opener()

    pixels = pack(tmp_path, opener)

    assert process.returncode == -9
    assert len(opener.opened) == 20
    assert pixels[:, 0, 0, 0].tolist() == list(range(20))
    assert not list(tmp_path.glob("*.part"))
