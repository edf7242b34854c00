"""The background of images, compared with that of the training images."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from agebench.data.background import border_brightness, has_other_background, training_background
from agebench.data.sources.drawn_faces.person import sample_face
from agebench.data.sources.drawn_faces.photo import draw_photo


def digits(*, ink: int, paper: int, size: int = 28) -> np.ndarray:
    """Return the ten digits, drawn with Pillow, uint8, shape (10, 1, S, S)."""
    drawn = []
    for digit in range(10):
        image = Image.new("L", (size, size), paper)
        ImageDraw.Draw(image).text((size // 3, size // 5), str(digit), fill=ink, font=ImageFont.load_default(size // 2))
        drawn.append(np.asarray(image))
    return np.stack(drawn)[:, None]


def faces(count: int) -> np.ndarray:
    """Return drawn faces of different people, uint8, shape (N, 3, 48, 48)."""
    rng = np.random.default_rng(0)
    drawn = [draw_photo(sample_face(0, i, long_hair=i % 2 == 0), 20 + i, rng, 48) for i in range(count)]
    return np.stack([np.asarray(image.convert("RGB")) for image in drawn]).transpose(0, 3, 1, 2)


def test_the_brightness_of_the_border_is_the_mean_of_its_pixels() -> None:
    images = np.zeros((2, 1, 4, 4), dtype=np.uint8)
    images[0, 0, 0] = 255  # 4 of the 12 pixels of the border
    images[1, 0, 1:3, 1:3] = 255  # not the border

    assert border_brightness(images) == pytest.approx([4 / 12, 0])


@pytest.mark.parametrize(("paper", "other"), [(0, False), (110, False), (150, True), (255, True)])
def test_digits_on_bright_paper_differ_from_digits_on_black(paper, other) -> None:
    known = training_background(digits(ink=255, paper=0), np.arange(10))

    found = has_other_background(digits(ink=200 if paper < 128 else 0, paper=paper), known)

    assert found.tolist() == [other] * 10


def test_digits_on_black_differ_from_digits_on_paper_and_inverted_ones_do_not() -> None:
    known = training_background(digits(ink=20, paper=230), np.arange(10))
    images = digits(ink=255, paper=0)

    assert has_other_background(images, known).all()
    assert not has_other_background(255 - images, known).any()


def test_no_image_differs_from_faces() -> None:
    drawn = faces(60)
    known = training_background(drawn[:40], np.arange(40))
    images = [drawn[40:], 255 - drawn[40:], np.zeros_like(drawn[:1]), np.full_like(drawn[:1], 255)]

    assert not has_other_background(np.concatenate(images), known).any()


def test_nothing_differs_from_an_unknown_background() -> None:
    assert not has_other_background(digits(ink=0, paper=255), None).any()
