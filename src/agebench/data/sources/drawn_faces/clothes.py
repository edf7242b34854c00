"""Draws what is behind the face, glasses and hats."""

import numpy as np

from agebench.data.records import Array
from agebench.data.sources.drawn_faces.person import Face, Signs, blend
from agebench.data.sources.drawn_faces.sketch import Sketch, curve, oval


def draw_behind(sketch: Sketch, face: Face, signs: Signs, hair: Array, rng: np.random.Generator) -> None:
    """Draw everything behind the face: long hair, neck, clothes, ears."""
    cloth = rng.uniform(20, 235) * np.ones(3) + rng.normal(0, 45, 3)
    if face.hair_length > 0:
        t = np.linspace(0, np.pi, 40)
        y = -np.cos(t)
        half = (face.width + 0.13 + 0.12 * np.clip(y, 0, 1)) * np.sin(np.clip(t, 0, np.pi / 2)) ** 0.7
        half = half + face.wave * np.sin(9 * y + rng.uniform(0, 6))
        y = np.where(y < 0, y * (1 + face.hair_height), y * face.hair_length)
        right = curve(half, y)
        sketch.fill(np.concatenate((right, right[::-1] * (-1, 1))), hair * 0.72, depth=-0.25)
    neck = face.width * (0.62 if face.long_hair else 0.72)
    y = np.array([0.3, 1.25, 1.45])
    right = curve(neck * np.array([1, 1, 1.25]), y)
    sketch.fill(np.concatenate((right, right[::-1] * (-1, 1))), face.skin * 0.8, depth=-0.1)
    fold = blend(face.skin * 0.8, face.skin * 0.5, signs.sag)
    if signs.sag > 0.35:  # neck folds
        x = np.linspace(-0.5 * neck, 0.5 * neck, 6)
        sketch.lines(np.stack([curve(x, v + 0.05 * (x / neck) ** 2) for v in (1.1, 1.19)]), fold, width=0.018, depth=0)
    wide = 1.5 if face.long_hair else 1.8
    x = np.array([-wide, -wide * 0.93, -0.95 * neck, -0.45, 0.0, 0.45, 0.95 * neck, wide * 0.93, wide])
    v = rng.uniform(0.0, 0.25)
    top = np.array([3, 1.5, 1.16, 1.24 + 0.4 * v, 1.3 + v, 1.24 + 0.4 * v, 1.16, 1.5, 3])
    sketch.fill(curve(x, top), cloth, depth=-0.1)
    sketch.lines(curve(x, top)[None, 2:7], cloth * 0.75, width=0.04, depth=-0.1)
    if face.hair_length == 0 or face.parting > 0.25:
        grown = 0.15 + 0.03 * signs.sag  # ears never stop growing
        for side in (-1, 1):
            sketch.fill(oval(side * (face.width + 0.015), 0.1, 0.085, grown), face.skin * 0.9, depth=-0.1)
            sketch.fill(oval(side * (face.width + 0.015), 0.1, 0.045, grown * 0.6), face.skin * 0.74, depth=-0.1)


def draw_glasses(sketch: Sketch, face: Face, *, dark: bool) -> None:
    """Draw glasses, with dark lenses or clear ones."""
    frame = face.hair * 0.3 + 8
    angle = np.linspace(0, 2 * np.pi, 25)
    power = 1.0 if face.glasses_round else 0.55
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power * 0.225
    y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power * (0.18 if face.glasses_round else 0.145)
    rims = np.stack([curve(side * (face.eye_gap + 0.01) + x, face.eye_height + 0.02 + y) for side in (-1, 1)])
    if dark:
        for rim in rims:
            sketch.fill(rim, np.array([26.0, 24, 28]))
    sketch.lines(rims, frame, width=0.03)
    u = np.linspace(-1, 1, 7)
    sketch.lines(curve(u * (face.eye_gap - 0.21), face.eye_height - 0.03 + 0.03 * u**2)[None], frame, width=0.03)
    for side in (-1, 1):
        ends = np.array(
            [[side * (face.eye_gap + 0.23), face.eye_height - 0.04], [side * face.width, face.eye_height - 0.02]]
        )
        sketch.lines(ends[None], frame, width=0.03, depth=0.5)


def draw_hat(sketch: Sketch, face: Face, rng: np.random.Generator) -> None:
    """Draw a hat of a random colour, which hides hair and forehead."""
    colour = rng.uniform(20, 200) + rng.normal(0, 30, 3)
    x = np.linspace(-1, 1, 21)
    reach = face.width + 0.09
    dome = -0.42 - 0.85 * (1 - np.abs(x) ** 2.6) ** 0.5
    band = -0.42 - 0.14 * (1 - x**2)
    sketch.fill(np.concatenate((curve(x * reach, dome), curve(x * reach, band)[::-1])), colour, depth=0.1)
    brim = np.concatenate((curve(x * reach, band - 0.09), curve(x * reach, band + 0.05)[::-1]))
    sketch.fill(brim, colour * 0.7, depth=0.1)
