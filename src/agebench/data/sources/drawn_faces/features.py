"""Draws the face: its outline, the lines and spots of the skin, nose, mouth and eyes."""

import numpy as np

from agebench.data.records import Array
from agebench.data.sources.drawn_faces.person import GREY, Face, Signs, blend
from agebench.data.sources.drawn_faces.sketch import Sketch, curve, oval


def outline_of(face: Face, signs: Signs, *, grow: float = 1.0) -> Array:
    """Return the outline of the face, shape (96, 2), clockwise from the crown."""
    t = np.linspace(0, np.pi, 49)
    y = -np.cos(t)
    below = np.clip(y, 0, 1)
    jaw = face.jaw - 0.35 * signs.child
    half = face.width * np.where(y < 0, np.sin(t) ** 0.8, (1 - below**jaw) ** (1 / 1.9))
    half = half * (1 - 0.1 * below)  # cheekbones are wider than the jaw
    half = half + 0.06 * signs.child * np.exp(-(((y - 0.4) / 0.25) ** 2))  # a child's cheeks
    half = half + 0.085 * signs.sag * np.exp(-(((y - 0.76) / 0.14) ** 2)) - 0.02 * signs.sag * (y > 0) * (y < 0.5)
    y = y + below * (face.chin - 0.13 * signs.child + 0.02 * signs.sag)
    right = curve(half * grow, y * grow)
    left = right[-2:0:-1] * (-1, 1)
    return np.concatenate((right, left))


def draw_forehead(sketch: Sketch, face: Face, signs: Signs, contrast: float, rng: np.random.Generator) -> None:
    """Draw the lines of the forehead."""
    raised = rng.random() < 0.12  # raised brows wrinkle any forehead
    count = min(max(round(4.6 * signs.lines + 0.6 * rng.standard_normal()), 2 * raised), 6)
    if count < 1:
        return
    x = np.linspace(-0.4, 0.4, 9)
    reach, shift = rng.uniform(0.75, 1.1, (count, 1)), rng.normal(0, 0.03, (count, 1))
    strokes = np.empty((count, 9, 2))
    strokes[..., 0] = x * reach + shift
    strokes[..., 1] = np.linspace(-0.36, -0.6, count + 2)[1:-1, None] + 0.14 * x**2 + rng.normal(0, 0.007, (count, 9))
    share = 0.85 * signs.lines * contrast * rng.uniform(0.6, 1.1, (count, 1)) + 0.25 * raised
    sketch.lines(strokes, face.skin * (1 - 0.45 * np.clip(share, 0, 1)), width=0.016 + 0.012 * signs.lines)


def draw_folds(
    sketch: Sketch, face: Face, signs: Signs, smile: float, contrast: float, rng: np.random.Generator
) -> None:
    """Draw the lines around eyes, nose and mouth, each a stroke of five points with a darkness of 0 to 1."""
    folds: list[tuple[Array, float]] = []
    depth = 0.85 * signs.lines * contrast
    slack = signs.sag * contrast
    laugh = max(smile, 0) * (1 - signs.child)
    along = np.linspace(0, 1, 5)
    if signs.lines > 0.3:  # frown lines
        for side in (-1, 1):
            x, y = 0.05 * side + 0.02 * side * along, face.eye_height - 0.28 + 0.16 * along
            folds.append((curve(x, y), depth * rng.uniform(0.4, 1)))
    for side in (-1, 1):
        eye = side * face.eye_gap
        for k in range(round(3.4 * signs.lines + 0.5 * laugh + 0.5 * rng.standard_normal())):  # crow's feet
            angle = (k % 4 - 1.5) * 0.42 + rng.normal(0, 0.06)
            r = 0.02 + (0.13 + 0.08 * signs.lines) * along
            x, y = eye + side * (face.eye_size + r * np.cos(angle)), face.eye_height + 0.01 + 1.1 * r * np.sin(angle)
            folds.append((curve(x, y), 0.9 * depth + 0.09 * laugh))
        for k in range(1 + (signs.lines > 0.55)):  # below the eye
            x = (1.8 * along - 0.9) * face.eye_size
            y = face.eye_height + 0.085 + 0.035 * signs.sag + 0.04 * k - 1.8 * x**2
            folds.append((curve(eye + x, y), 0.12 + 0.55 * max(depth, slack)))
        # From the nose past the corner of the mouth.
        x = side * (face.nose_width + 0.03 + 0.14 * along + 0.04 * smile)
        y = face.eye_height + face.nose_length - 0.03 + 0.27 * along**1.3
        folds.append((curve(x, y), 0.1 + 0.65 * max(depth, 0.7 * slack) + 0.2 * max(smile, 0)))
        if signs.sag > 0.4:  # from the corner of the mouth to the chin
            x = side * (face.mouth_width + 0.05 + 0.04 * along)
            folds.append((curve(x, face.mouth_height + 0.04 + 0.18 * along), 0.75 * slack))
        if signs.lines > 0.72:  # hollow cheeks
            x = side * (0.5 + 0.08 * along * (1 - along)) + rng.normal(0, 0.02)
            folds.append((curve(x, 0.25 + 0.27 * along), 0.6 * depth))
    share = np.clip([[dark] for _, dark in folds], 0, 1)
    strokes = np.stack([stroke for stroke, _ in folds])
    sketch.lines(strokes, face.skin * (1 - 0.45 * share), width=0.014 + 0.008 * signs.lines)


def draw_spots(sketch: Sketch, face: Face, signs: Signs, rng: np.random.Generator) -> None:
    """Draw age spots, freckles and pimples; freckles and age spots of a person have fixed positions."""
    pimples = rng.poisson(5) if signs.child > 0.3 and rng.random() < 0.4 else 0
    for first, count, colour, radius in (
        (0, min(rng.poisson(7 * signs.spots), 15), face.skin * (0.72, 0.64, 0.56), 0.024),
        (15, face.freckles, face.skin * (0.82, 0.7, 0.6), 0.012),
        (0, pimples, blend(face.skin, np.array([200.0, 60, 60]), 0.4), 0.016),
    ):
        at = face.marks[first : first + count]
        tints = face.skin + (colour - face.skin) * rng.uniform(0.4, 0.9, (len(at), 1))
        sketch.dots(at, radius * rng.uniform(0.6, 1.3, len(at)), tints)
    if face.mole:
        sketch.dots(np.array([face.mole]), np.array([0.02]), face.skin[None] * 0.4)


def draw_nose(sketch: Sketch, face: Face, signs: Signs) -> None:
    """Draw the nose, which grows with age."""
    tip = face.eye_height + face.nose_length + 0.025 * signs.sag
    half = face.nose_width * (1 + 0.12 * signs.sag - 0.1 * signs.child)
    x = np.linspace(-1, 1, 13)
    sketch.lines(
        curve(x * half, tip + 0.03 - 0.02 * np.cos(np.pi * x) - 0.05 * x**4)[None], face.skin * 0.66, width=0.02
    )
    for side in (-1, 1):
        sketch.fill(oval(side * half * 0.48, tip + 0.02, half * 0.26, 0.02, 10), face.skin * 0.42)
        edge = side * half * np.array([0.98, 1.06, 0.9])
        sketch.lines(curve(edge, tip + np.array([-0.07, -0.02, 0.03]))[None], face.skin * 0.74, width=0.016)


def draw_mouth(sketch: Sketch, face: Face, signs: Signs, smile: float, rng: np.random.Generator) -> None:
    """Draw lips and, in an open mouth, teeth. A smile of 1 is broad, and one below 0 a frown."""
    thin = face.lip_weight * (1 + 0.25 * signs.child - 0.55 * signs.sag)
    colour = blend(face.lips, face.skin * 0.85, 0.5 * signs.lines)
    x = np.linspace(-1, 1, 15)
    half = face.mouth_width * (1 + 0.16 * smile)
    y = face.mouth_height + 0.02 * signs.sag - 0.09 * smile * (x**2 - 0.4) + 0.03 * signs.sag * x**2
    opening = max(0.0, rng.normal(0.5, 0.35)) * 0.13 * (smile > 0.35)
    round_ = 1 - x**2
    upper = y - thin * 0.8 * round_**0.7 * (1 - 0.25 * np.exp(-((x / 0.16) ** 2)))
    lower = y + opening * round_ + thin * 1.25 * round_**0.8
    sketch.fill(np.concatenate((curve(x * half, upper), curve(x * half, lower)[::-1])), colour)
    if opening > 0.02:
        bottom = y + opening * round_
        sketch.fill(
            np.concatenate((curve(x * half * 0.93, y), curve(x * half * 0.93, bottom)[::-1])),
            np.array([70.0, 24, 26]),
        )
        teeth = blend(np.array([246.0, 244, 238]), np.array([222.0, 208, 170]), signs.lines)
        bite = y + np.minimum(opening * 0.72, 0.075) * round_
        sketch.fill(np.concatenate((curve(x * half * 0.86, y), curve(x * half * 0.86, bite)[::-1])), teeth)
    else:
        sketch.lines(curve(x * half, y)[None], colour * 0.55, width=0.016)
    if signs.lines > 0.6:  # small lines above the lip
        starts = np.linspace(-0.6, 0.6, 6) * half
        strokes = np.stack(
            [curve(np.array([v, v * 1.04]), face.mouth_height - thin - np.array([0.025, 0.085])) for v in starts]
        )
        sketch.lines(strokes, blend(face.skin, face.skin * 0.6, signs.lines - 0.25), width=0.01)


def draw_eyes(sketch: Sketch, face: Face, signs: Signs, smile: float, rng: np.random.Generator) -> None:
    """Draw eyes, lids and brows."""
    rx = face.eye_size * (1 + 0.12 * signs.child - 0.07 * signs.sag)
    wide = np.clip(rng.normal(1, 0.14) - 0.12 * max(smile, 0), 0.55, 1.25)
    ry = 0.46 * rx * wide * (1 + 0.15 * signs.child - 0.34 * signs.sag)
    gaze = rng.normal(0, 0.2)
    x = np.linspace(-1, 1, 15)
    hair = blend(face.hair * 0.75, GREY * 0.9, 0.7 * signs.grey)
    brow_lift = rng.normal(0, 0.012) - 0.018 * signs.sag
    for side in (-1, 1):
        middle = side * face.eye_gap
        tilt = (0.022 * signs.sag - face.eye_tilt) * x * side  # the outer corner drops with age
        upper = face.eye_height + tilt - ry * 1.1 * (1 - np.abs(x) ** 2.2)
        upper = upper + 0.035 * signs.sag * np.clip(x * side, 0, 1) ** 2  # a hooded lid
        lower = np.maximum(face.eye_height + tilt + ry * 0.8 * (1 - x**2), upper)
        white = blend(np.array([246.0, 244, 240]), np.array([226.0, 214, 200]), 0.6 * signs.lines)
        sketch.fill(np.concatenate((curve(middle + x * rx, upper), curve(middle + x * rx, lower)[::-1])), white)
        for radius, colour in ((0.078, face.eyes), (0.036, np.array([16.0, 12, 12]))):
            iris = oval(middle + gaze * 0.05, face.eye_height - 0.006, radius, radius, 18)
            at = (iris[:, 0] - middle) / rx
            iris[:, 1] = np.clip(iris[:, 1], np.interp(at, x, upper), np.interp(at, x, lower))
            sketch.fill(iris, colour)
        glint = np.array([[middle + gaze * 0.05 - 0.02, face.eye_height - 0.03]])
        sketch.dots(glint, np.array([0.014]), np.full((1, 3), 250.0))
        lash = (0.034 if face.long_hair else 0.02) * (1 - 0.4 * signs.lines)
        sketch.lines(curve(middle + x * rx * 1.05, upper)[None], np.array([38.0, 26, 24]), width=lash)
        sketch.lines(curve(middle + x * rx, lower)[None], face.skin * 0.62, width=0.012)
        lid = upper - 0.035 + 0.02 * signs.sag
        sketch.lines(curve(middle + x * rx, lid)[None], face.skin * (0.72 - 0.12 * signs.sag), width=0.014)
        u = np.linspace(-1, 1, 9)
        out = u * side
        top = (
            face.eye_height - face.brow_height + brow_lift - 0.05 * (1 - u**2) + 0.025 * signs.sag * np.clip(out, 0, 1)
        )
        weight = face.brow_weight * (1.05 - 0.45 * np.clip(out, 0, 1)) * (1 - 0.35 * signs.lines * face.long_hair)
        brow = np.concatenate(
            (curve(middle + u * rx * 1.3, top - weight), curve(middle + u * rx * 1.3, top + weight)[::-1])
        )
        sketch.fill(brow, blend(face.skin * 0.85, hair, 0.9 - 0.3 * signs.lines))
