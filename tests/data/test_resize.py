"""Resizing of decoded images, compared with Pillow."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from agebench.data.resize import Resize
from agebench.errors import BrokenImageError, UserError

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
def test_pixels_are_identical_to_those_of_pillow(mode: str, channels: int, size: int) -> None:
    pixels = Resize(size, channels)(drawn(mode))

    plain = drawn(mode).convert("L" if channels == 1 else "RGB")
    expected = as_chw(plain.resize((size, size), Image.Resampling.BILINEAR))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def test_an_image_of_the_right_size_is_unchanged() -> None:
    pixels = Resize(30, 3)(Image.fromarray(NOISE[:30, :30, :3]))

    np.testing.assert_array_equal(pixels, NOISE[:30, :30, :3].transpose(2, 0, 1))


def test_grey_from_colour_is_luma() -> None:
    image = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], dtype=np.uint8))

    pixels = Resize(2, 1)(image)

    assert pixels.tolist() == [[[76, 150], [29, 9]]]  # ITU-R 601: 0.299, 0.587, 0.114


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_of_grey_are_divided_by_257(kind: str, channels: int) -> None:
    image = through_file(Image.fromarray(DEEP), kind)

    pixels = Resize(10, channels)(image)

    eight = Image.fromarray(np.round(DEEP.astype(np.float64) / 257).astype(np.uint8))
    expected = np.asarray(eight.resize((10, 10), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels, np.stack([expected] * channels))


def test_a_nearly_black_image_of_sixteen_bits_stays_nearly_black() -> None:
    image = through_file(Image.fromarray(np.full((4, 4), 200, dtype=np.uint16)), "PNG")

    assert Resize(4, 1)(image).max() == 1  # 200 / 257


def test_eight_bit_values_in_a_wider_mode_are_unchanged() -> None:
    image = Image.fromarray(np.full((4, 4), 200, dtype=np.int32))

    assert Resize(4, 1)(image).tolist() == [[[200] * 4] * 4]


def test_integers_that_are_all_0_or_1_are_not_shares() -> None:
    image = Image.fromarray(np.eye(4, dtype=np.int32))

    assert Resize(4, 1)(image)[0].tolist() == np.eye(4).tolist()


@pytest.mark.parametrize(
    ("top", "kind"), [(1.0, np.float32), (255, np.float32), (65535, np.float32), (65535, np.int32)]
)
def test_grey_of_a_wider_mode_is_scaled_from_its_known_range(top: float, kind: type) -> None:
    image = through_file(Image.fromarray((np.array([[0.0, 0.2], [0.4, 1.0]]) * top).astype(kind)), "TIFF")

    assert Resize(2, 1)(image).tolist() == [[[0, 51], [102, 255]]]


@pytest.mark.parametrize("grey", [70_000.0, -1.0, float("nan"), float("inf")])
def test_grey_outside_known_ranges_is_a_broken_image(grey: float) -> None:
    image = Image.fromarray(np.full((4, 4), grey, dtype=np.float32))

    with pytest.raises(BrokenImageError, match="fit no known range"):
        Resize(4, 1)(image)


@pytest.mark.parametrize(
    ("orientation", "rotation"),
    [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_270), (8, Image.Transpose.ROTATE_90)],
)
def test_exif_orientation_is_applied(orientation: int, rotation: Image.Transpose) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = through_file(Image.fromarray(NOISE[..., :3]), "JPEG", exif=exif)
    flat = through_file(Image.fromarray(NOISE[..., :3]), "JPEG")

    pixels = Resize(16, 3)(photo)

    expected = flat.transpose(rotation).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pixels, as_chw(expected))


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_the_named_filter_is_used(name: str) -> None:
    pixels = Resize(8, 3, interpolation=name)(drawn("RGB"))

    expected = drawn("RGB").resize((8, 8), Image.Resampling[name.upper()])
    np.testing.assert_array_equal(pixels, as_chw(expected))


def test_center_resizes_the_shorter_side_and_crops_the_middle() -> None:
    high = drawn("RGB").crop((0, 0, 30, 38))

    pixels = Resize(15, 3, crop_mode="center")(high)

    expected = high.resize((15, 19), Image.Resampling.BILINEAR).crop((0, 2, 15, 17))
    np.testing.assert_array_equal(pixels, as_chw(expected))


@pytest.mark.parametrize("rotated", [False, True])
def test_center_with_crop_pct_keeps_a_share_of_the_shorter_side(rotated: bool) -> None:
    high = drawn("RGB").crop((0, 0, 30, 36))
    image, box, size = (
        (high.transpose(Image.Transpose.ROTATE_90), (7, 5, 17, 15), (24, 20))
        if rotated
        else (high, (5, 7, 15, 17), (20, 24))
    )

    pixels = Resize(10, 3, crop_mode="center", crop_pct=0.5)(image)

    # 15 of 30 px become 10, so the image is resized to two thirds and its middle is cropped.
    np.testing.assert_array_equal(pixels, as_chw(image.resize(size, Image.Resampling.BILINEAR).crop(box)))


def test_center_with_crop_pct_averages_only_the_middle() -> None:
    pixels = Resize(4, 3, crop_mode="center", crop_pct=8 / 30, interpolation="box")(Image.fromarray(NOISE[..., :3]))

    middle = NOISE[16:24, 11:19, :3].astype(np.float64)  # 8 of 40 px down, 8 of 30 px across
    means = middle.reshape(4, 2, 4, 2, 3).mean((1, 3))  # (8, 8, 3) -> (4, 4, 3)
    np.testing.assert_allclose(pixels, means.transpose(2, 0, 1), atol=1)  # Pillow rounds after each direction


def test_border_pads_the_shorter_side_with_black() -> None:
    white = Image.new("RGB", (30, 40), "white")

    pixels = Resize(40, 3, crop_mode="border")(white)

    assert (pixels[:, :, :5] == 0).all()
    assert (pixels[:, :, 5:35] == 255).all()
    assert (pixels[:, :, 35:] == 0).all()


def test_half_of_each_side_is_the_middle_of_the_image_at_twice_the_size() -> None:
    pixels = Resize(10, 3, crop_pct=0.5)(drawn("RGB"))

    expected = drawn("RGB").resize((20, 20), Image.Resampling.BILINEAR).crop((5, 5, 15, 15))
    np.testing.assert_array_equal(pixels, as_chw(expected))


def test_a_border_is_added_after_cropping() -> None:
    pixels = Resize(10, 3, crop_mode="border", crop_pct=0.8)(drawn("RGB"))

    expected = ImageOps.pad(drawn("RGB").crop((3, 4, 27, 36)), (10, 10), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pixels, as_chw(expected))


def test_an_image_of_the_right_size_is_still_cropped() -> None:
    pixels = Resize(30, 3, crop_pct=0.5)(Image.fromarray(NOISE[:30, :30, :3]))

    expected = Image.fromarray(NOISE[:30, :30, :3]).resize((30, 30), 2, box=(7.5, 7.5, 22.5, 22.5))
    np.testing.assert_array_equal(pixels, as_chw(expected))


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"crop_mode": "crop"}, "data.crop_mode must be one of squash, center, border, got crop"),
        ({"crop_pct": 0.0}, "data.crop_pct must be a share"),
        ({"crop_pct": 1.1}, "data.crop_pct must be a share"),
        ({"interpolation": "linear"}, "data.interpolation must be one of nearest, .*, got linear"),
    ],
)
def test_an_unknown_option_is_refused(options: dict[str, object], needed: str) -> None:
    with pytest.raises(UserError, match=needed):
        Resize(8, 3, **options)  # type: ignore[arg-type]
