"""Draws photos: age determines the signs of ageing, identity the features; light and pose differ in each photo."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from agebench.data.sources.drawn_faces.clothes import draw_behind, draw_glasses, draw_hat
from agebench.data.sources.drawn_faces.features import (
    draw_eyes,
    draw_folds,
    draw_forehead,
    draw_mouth,
    draw_nose,
    draw_spots,
    outline_of,
)
from agebench.data.sources.drawn_faces.hair import draw_beard, draw_hair
from agebench.data.sources.drawn_faces.person import GREY, Face, Signs, blend, sample_signs
from agebench.data.sources.drawn_faces.sketch import Pose, Sketch, ink, oval


def draw_photo(face: Face, age: float, rng: np.random.Generator, size: int) -> Image.Image:
    """Draw one photo of a person at an age in years: RGB, size x size px.

    Flat colours are drawn at twice the size; soft shading is added afterwards at a smaller size, where it is cheap.
    """
    signs = sample_signs(face, age, rng)
    pose = Pose(
        middle=(0.5 + rng.normal(0, 0.018), 0.5 + rng.normal(0, 0.018)),
        scale=0.335 * rng.uniform(0.9, 1.1),
        roll=rng.normal(0, 0.09),
        yaw=float(np.clip(rng.normal(0, 0.5), -1, 1)),
        pitch=float(np.clip(rng.normal(0, 0.4), -1, 1)),
    )
    smile = float(np.clip(rng.normal(0.42, 0.42), -0.3, 1))
    hair = blend(face.hair, GREY * rng.uniform(0.9, 1.05), 0.92 * signs.grey)
    hat = rng.random() < 0.05  # hides hair and forehead

    picture = _backdrop(rng, 2 * size)
    sketch = Sketch(picture, pose)
    draw_behind(sketch, face, signs, hair, rng)
    outline = outline_of(face, signs)
    sketch.fill(outline, face.skin, depth=0.2)
    contrast = rng.uniform(0.55, 1.15)  # makeup and soft light hide lines, hard light deepens them
    draw_forehead(sketch, face, signs, contrast, rng)
    draw_folds(sketch, face, signs, smile, contrast, rng)
    draw_spots(sketch, face, signs, rng)
    if rng.random() < face.beard:
        draw_beard(sketch, face, signs, outline, rng)
    draw_nose(sketch, face, signs)
    draw_mouth(sketch, face, signs, smile, rng)
    draw_eyes(sketch, face, signs, smile, rng)
    if not hat:
        draw_hair(sketch, face, signs, hair, rng)
    if rng.random() < face.glasses * (1 if age > 20 else 0.5):
        draw_glasses(sketch, face, dark=rng.random() < 0.1)
    if hat:
        draw_hat(sketch, face, rng)
    return _develop(picture.reduce(2), _shade(face, signs, smile, pose, max(8, size // 3)), signs, rng)


def _backdrop(rng: np.random.Generator, side: int) -> Image.Image:
    base = rng.uniform(30, 225) + rng.normal(0, 22, 3)
    corners = np.clip(base + rng.normal(0, 30, (3, 3, 1)) + rng.normal(0, 8, (3, 3, 3)), 0, 255)
    coarse = Image.fromarray(corners.astype(np.uint8)).resize((side // 4, side // 4), Image.Resampling.BILINEAR)
    picture = coarse.resize((side, side), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(0, 9))):  # lamps and posters, out of focus
        x, y = rng.uniform(0, side, 2)
        r = rng.uniform(0.02, 0.14) * side
        colour = ink(base + rng.normal(0, 40) + rng.normal(0, 18, 3))
        if rng.random() < 0.6:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        else:
            draw.rectangle((x - r, 0 if rng.random() < 0.5 else y, x + r, side), fill=colour)
    return picture


def _shade(face: Face, signs: Signs, smile: float, pose: Pose, side: int) -> Image.Image:
    """Return the shading of the face: mode L, 128 is neutral."""
    picture = Image.new("L", (side, side), 128)
    sketch = Sketch(picture, pose)
    for grow, grey in ((1.0, 100), (0.93, 116), (0.85, 128), (0.6, 134)):
        sketch.fill(outline_of(face, signs, grow=grow), np.array([float(grey)]), depth=0.2)
    eye, tip = face.eye_height, face.eye_height + face.nose_length
    sketch.fill(oval(0, -0.5, 0.35, 0.12), np.array([140.0]))
    for s in (-1, 1):
        sketch.fill(oval(s * face.eye_gap, eye - 0.08, 0.18, 0.07), np.array([114.0]))
        sketch.fill(oval(s * (face.eye_gap - 0.02), eye + 0.11, 0.13, 0.05), np.array([122.0 - 30 * signs.sag]))
        sketch.fill(oval(s * 0.36, 0.26 + 0.06 * signs.sag, 0.14, 0.1), np.array([142.0 + 6 * max(smile, 0)]))
        sketch.fill(oval(s * 0.42, 0.5, 0.1, 0.14), np.array([128.0 - 20 * signs.sag * (1 - signs.child)]))
        sketch.fill(oval(s * 0.5, 0.78, 0.12, 0.08), np.array([124.0 - 20 * signs.sag]))
        nose = np.array(
            [[s * 0.05, eye], [s * 0.11, tip - 0.1], [s * face.nose_width * 1.1, tip], [s * 0.05, tip - 0.05]]
        )
        sketch.fill(nose, np.array([113.0]))
    sketch.fill(oval(0, (eye + tip) / 2, 0.035, 0.2), np.array([146.0]))
    sketch.fill(oval(0, tip - 0.03, 0.06, 0.05), np.array([144.0]))
    sketch.fill(oval(0, tip + 0.07, 0.12, 0.025), np.array([108.0]))
    sketch.fill(oval(0, face.mouth_height + 0.17, 0.16, 0.03), np.array([112.0]))
    sketch.fill(oval(0, 0.87, 0.15, 0.07), np.array([138.0]))
    return picture.filter(ImageFilter.GaussianBlur(0.012 * side))


def _develop(picture: Image.Image, shade: Image.Image, signs: Signs, rng: np.random.Generator) -> Image.Image:
    """Add light, grain, colour and blur to the flat drawing; only the mottling of the skin depends on age."""
    size, low = picture.size[0], shade.size[0]
    folds = 1 + (np.asarray(shade, np.float32) / 128 - 1) * rng.uniform(0.7, 1.3)
    across = np.linspace(-1, 1, low)
    slope = rng.normal(0, 0.16, 2)
    light = rng.uniform(0.72, 1.22) * np.exp(slope[0] * across)[:, None] * np.exp(slope[1] * across)
    mottling = rng.normal(1, 0.01 + 0.04 * signs.spots, (low, low))
    gain = Image.fromarray((folds * light * mottling).astype(np.float32))
    gain = gain.resize((size, size), Image.Resampling.BILINEAR)
    if rng.random() < 0.05:  # black and white
        picture = picture.convert("L").convert("RGB")
    pixels = np.asarray(picture) * np.asarray(gain)[..., None]  # (size, size, 3)
    pixels += (rng.random((size, size, 1), np.float32) - 0.5) * np.float32(rng.uniform(2, 30))
    photo = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < 0.6:
        photo = photo.filter(ImageFilter.BoxBlur(size / 250 * rng.uniform(0.4, 2)))
    cast = rng.uniform(0.78, 1.12) * rng.normal(1, 0.05, (3, 1))
    curve = np.clip((np.arange(256) - 118) * cast + 118 + rng.normal(0, 6), 0, 255)  # (3, 256)
    return photo.point(curve.astype(np.uint8).ravel().tolist())
