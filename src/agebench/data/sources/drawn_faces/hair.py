"""Draws hair and beard."""

import numpy as np

from agebench.data.records import Array
from agebench.data.sources.drawn_faces.person import GREY, Face, Signs, blend
from agebench.data.sources.drawn_faces.sketch import Sketch, curve, oval


def _hairline(face: Face, signs: Signs, x: Array, top: Array) -> Array:
    """Return the hairline at x, in face units: with hair loss an M shape, then only the sides."""
    u = np.abs(x) / (face.width + 0.02)
    front = face.hairline + 0.05 * signs.child
    line = front + (0.08 - front) * u**5
    line = line - signs.bare * (
        0.3 * np.exp(-(((u - 0.52) / 0.2) ** 2)) + 0.34 * np.clip(signs.bare, 0, 1) * np.exp(-((u / 0.5) ** 4))
    )
    if face.fringe:
        line = np.maximum(
            line, -0.36 - 0.25 * signs.bare + 0.05 * (x - face.parting) ** 2 - 0.4 * np.clip(u - 0.8, 0, 1)
        )
    return np.asarray(np.maximum(line, top + 0.01))


def draw_hair(sketch: Sketch, face: Face, signs: Signs, hair: Array, rng: np.random.Generator) -> None:
    """Draw hair of a colour, shape (3,), with its strands and, if it is long, the locks next to the face."""
    x = np.linspace(-1, 1, 41)
    reach = face.width + 0.06 - 0.03 * signs.bare
    height = face.hair_height * (1 - 0.8 * min(signs.bare, 1)) * rng.uniform(0.85, 1.15)
    top = 0.1 * np.abs(x) ** 8 - (1 + height) * (1 - np.abs(x) ** 2.2) ** 0.46
    if face.wave:
        top = top - face.wave * np.abs(np.sin(14 * x + 3 * face.parting)) * (1 - 0.8 * min(signs.bare, 1)) * (1 - x**8)
    line = _hairline(face, signs, x * face.width, top)
    if not face.fringe:
        line = line - 0.06 * np.exp(-(((x - face.parting) / 0.06) ** 2))
    line = np.maximum(line, top + 0.01)
    thin = blend(hair, face.skin, 0.45 * np.clip(signs.bare - 0.15, 0, 1))
    outer = curve(x * reach, top)
    inner = curve(x * face.width * 0.99, line)
    sketch.fill(np.concatenate((outer, inner[::-1])), thin, depth=0.1)
    # Strands from the outer edge to the hairline; some turn white before others.
    n = 46
    at = rng.uniform(-0.97, 0.97, n)
    start = curve(at * reach, np.interp(at, x, top) + 0.015)
    lean = np.clip(at + 0.25 * (at - face.parting) + rng.normal(0, 0.03, n), -1, 1)
    end = curve(lean * face.width * 0.99, np.interp(lean, x, line) - 0.01)
    strands = np.stack((start, (start + end) / 2 + rng.normal(0, 0.012, (n, 2)), end), axis=1)  # (n, 3, 2)
    white = rng.random((n, 1)) < signs.grey
    tints = np.where(white, thin + (GREY * 1.1 - thin) * 0.5, thin * rng.uniform(0.68, 1.25, (n, 1)))
    sketch.lines(strands, tints, width=0.02, depth=0.1)
    if face.hair_length > 0:  # locks next to the face
        y = np.linspace(-0.3, max(0.45, face.hair_length), 12)
        for side in (-1, 1):
            edge = side * (face.width + 0.04 + face.wave * np.sin(9 * y + side))
            width = 0.13 * np.linspace(0.7, 1, 12)
            lock = np.concatenate((curve(edge - side * width * 0.55, y), curve(edge + side * width, y)[::-1]))
            sketch.fill(lock, hair * 0.88, depth=0)
            strokes = np.stack([curve(edge + side * width * s, y) for s in rng.uniform(-0.4, 0.85, 5)])
            shades = hair * rng.uniform(0.6, 1.1, (5, 1))
            sketch.lines(strokes, shades, width=0.018, depth=0)
        if face.earrings and face.hair_length < 1:
            sketch.dots(
                np.array([[-1, 0.3], [1, 0.3]]) * (face.width + 0.02, 1),
                np.full(2, 0.035),
                np.array([[226.0, 196, 96]] * 2),
            )


def draw_beard(sketch: Sketch, face: Face, signs: Signs, outline: Array, rng: np.random.Generator) -> None:
    """Draw a beard; it turns grey before the hair and is thin on young people."""
    grey = min(1.0, 1.5 * signs.grey + 0.05)
    strength = 0.75 * (1 - 0.85 * signs.child) * rng.uniform(0.5, 1)
    colour = blend(face.skin, blend(face.hair * 0.85, GREY, grey), strength)
    mouth = face.mouth_height
    if face.beard_kind == 2:
        low = outline[outline[:, 1] > 0.18]  # right side downwards, then left side upwards
        x = np.linspace(-1, 1, 15)
        inner = curve(x * face.width * 0.86, 0.2 + 0.34 * (1 - x**4))
        sketch.fill(np.concatenate((low, inner)), colour, depth=0.3)
    if face.beard_kind == 1:
        sketch.fill(oval(0, mouth + 0.2, 0.24, 0.2), colour)
    x = np.linspace(-1, 1, 11)
    lip = mouth - 0.055 - 0.075 * (1 - x**2)
    under = mouth - 0.02 + 0.07 * x**2
    sketch.fill(np.concatenate((curve(x * 0.3, lip), curve(x * 0.3, under)[::-1])), colour)
    n = 50 if face.beard_kind == 2 else 14
    start = rng.uniform((-0.5, mouth + 0.12), (0.5, 0.95), (n, 2)) * (1.0 if face.beard_kind == 2 else 0.4, 1)
    inside = np.abs(start[:, 0]) < 0.62 * np.sqrt(np.clip(1.1 - start[:, 1], 0, 1))
    if face.beard_kind and inside.any():
        start = start[inside]
        strokes = np.stack((start, start + np.array([0.0, 0.07])), axis=1)
        hairs = np.where(rng.random((len(start), 1)) < grey, blend(colour, GREY, 0.6), colour * 0.75)
        sketch.lines(strokes, hairs, width=0.012)
