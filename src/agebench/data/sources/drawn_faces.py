"""Draws faces: age determines the signs of ageing, identity the features, and each photo has its own light and pose."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from agebench.data.records import Array


def _level(age: float, middle: float, width: float) -> float:
    """Return the strength of a sign of age, 0 to 1: 0.5 at the middle; age, middle and width are in years."""
    return float(1 / (1 + np.exp((middle - age) / width)))


def _blend(first: Array, second: Array, share: float) -> Array:
    return first + (second - first) * min(max(share, 0.0), 1.0)


SKIN = np.array(
    [[247, 220, 200], [238, 196, 166], [222, 172, 136], [196, 140, 100], [150, 98, 66], [104, 66, 46]], float
)
HAIR = np.array([[34, 26, 24], [62, 40, 28], [104, 66, 38], [150, 100, 52], [206, 168, 100], [146, 62, 30]], float)
EYES = np.array([[70, 44, 26], [104, 72, 36], [84, 112, 70], [80, 122, 160], [110, 124, 134]], float)
GREY = np.array([206.0, 204.0, 202.0])


@dataclass(frozen=True)
class Face:
    """The fixed features of a person, and how early each sign of age appears (in years, added to the age)."""

    long_hair: bool
    skin: Array
    hair: Array
    eyes: Array
    lips: Array
    width: float  # of the face, in half-heights
    jaw: float  # 2 round, 3 square
    chin: float
    eye_gap: float
    eye_size: float
    eye_height: float
    eye_tilt: float
    brow_height: float
    brow_weight: float
    nose_length: float
    nose_width: float
    mouth_height: float
    mouth_width: float
    lip_weight: float
    hairline: float
    hair_height: float
    hair_length: float  # below the face's middle; 0 is short
    wave: float
    parting: float
    fringe: bool
    balding: float
    dyed: bool
    beard: float  # share of the photos with a beard
    beard_kind: int  # 0 moustache, 1 goatee, 2 full
    glasses: float  # share of the photos with glasses
    glasses_round: bool
    earrings: bool
    marks: Array  # positions of spots and freckles, (60, 2) in face units
    freckles: int
    mole: tuple[float, float] | None
    early: dict[str, float]


def sample_face(seed: int, identity: int, *, long_hair: bool) -> Face:
    """Return the features of a person; they depend only on the arguments."""
    rng = np.random.default_rng((4, seed, identity))

    def near(middle: float, spread: float) -> float:
        return middle + spread * float(np.clip(rng.standard_normal(), -2, 2))

    tone = rng.uniform(0, len(SKIN) - 1.001)
    skin = _blend(SKIN[int(tone)], SKIN[int(tone) + 1], tone % 1) + rng.normal(0, 4, 3)
    dark = tone > 3
    pace = near(0, 2.0)
    return Face(
        long_hair=long_hair,
        skin=skin,
        hair=HAIR[rng.integers(2 if dark else len(HAIR))] * rng.uniform(0.8, 1.15),
        eyes=EYES[rng.integers(2 if dark else len(EYES))] * rng.uniform(0.85, 1.15),
        lips=_blend(skin, np.array([176.0, 62.0, 72.0]), rng.uniform(0.35, 0.75) if long_hair else 0.3),
        width=near(0.735, 0.04) - 0.02 * long_hair,
        jaw=near(2.35 if long_hair else 2.75, 0.25),
        chin=near(0, 0.035),
        eye_gap=near(0.325, 0.022),
        eye_size=near(0.15 if long_hair else 0.138, 0.012),
        eye_height=near(-0.04, 0.025),
        eye_tilt=near(0.01, 0.014),
        brow_height=near(0.2, 0.022),
        brow_weight=near(0.03 if long_hair else 0.045, 0.009),
        nose_length=near(0.4, 0.03),
        nose_width=near(0.125 if long_hair else 0.145, 0.018),
        mouth_height=near(0.61, 0.02),
        mouth_width=near(0.27, 0.028),
        lip_weight=near(0.08 if long_hair else 0.06, 0.015),
        hairline=near(-0.66, 0.04),
        hair_height=near(0.2 if long_hair else 0.15, 0.05),
        hair_length=rng.uniform(0.5, 1.7) if long_hair else 0.0,
        wave=rng.uniform(0.0, 0.07) if rng.random() < 0.6 else 0.0,
        parting=rng.uniform(-0.5, 0.5),
        fringe=bool(rng.random() < (0.3 if long_hair else 0.12)),
        balding=rng.uniform(0, 0.12) if long_hair else rng.uniform(0.1, 1.1),
        dyed=bool(rng.random() < (0.35 if long_hair else 0.1)),
        beard=0.0 if long_hair or rng.random() < 0.55 else rng.uniform(0.3, 1),
        beard_kind=int(rng.integers(3)),
        glasses=rng.uniform(0.4, 1) if rng.random() < 0.22 else 0.03,
        glasses_round=bool(rng.random() < 0.5),
        earrings=bool(long_hair and rng.random() < 0.4),
        marks=rng.uniform((-0.55, -0.6), (0.55, 0.7), (60, 2)),
        freckles=int(rng.integers(15, 45)) if tone < 2 and rng.random() < 0.2 else 0,
        mole=(rng.uniform(-0.5, 0.5), rng.uniform(0.2, 0.75)) if rng.random() < 0.2 else None,
        early={sign: pace + near(0, 3.2) for sign in ("lines", "grey", "hairline", "sag", "spots")},
    )


@dataclass(frozen=True)
class Pose:
    """The position of the face in a photo.

    In face units the middle is (0, 0), the crown is at y = -1 and the chin at y = 1.
    """

    middle: tuple[float, float]  # share of the side
    scale: float  # half-height of the face as a share of the side
    roll: float  # radians
    yaw: float  # -1 to 1
    pitch: float


class Sketch:
    """Draws shapes in face units on a picture, in a given pose.

    Args:
        picture: Square picture to draw on.
        pose: Position of the face.
    """

    def __init__(self, picture: Image.Image, pose: Pose) -> None:
        self.draw = ImageDraw.Draw(picture)
        self.pose = pose
        self.side = picture.size[0]

    def place(self, points: Array, depth: float) -> Array:
        """Return the px coordinates of points, shape (..., 2); a head turn moves points of greater depth further."""
        pose = self.pose
        x, y = points[..., 0], points[..., 1]
        bulge = np.maximum(1 - (x / 0.85) ** 2, -0.3)
        x, y = x + (0.17 * pose.yaw * depth) * bulge, y + 0.1 * pose.pitch * depth
        px = self.side * pose.scale
        cos, sin = px * math.cos(pose.roll), px * math.sin(pose.roll)
        placed = np.empty(points.shape)
        placed[..., 0] = cos * x - sin * y + self.side * pose.middle[0]
        placed[..., 1] = sin * x + cos * y + self.side * pose.middle[1]
        return placed

    def fill(self, points: Array, colour: Array, *, depth: float = 1.0) -> None:
        """Fill a polygon of points, shape (n, 2), with a colour, shape (3,), or (1,) on a grey picture."""
        self.draw.polygon(self.place(points, depth).ravel().tolist(), fill=_ink(colour))

    def lines(self, strokes: Array, colours: Array, *, width: float, depth: float = 1.0) -> None:
        """Draw strokes, shape (m, n, 2), in colours, shape (m, 3) or (3,); the width is in face units."""
        px = max(1, round(width * self.pose.scale * self.side))
        placed = self.place(strokes, depth)
        for stroke, colour in zip(placed, np.broadcast_to(colours, (len(strokes), colours.shape[-1])), strict=True):
            self.draw.line(stroke.ravel().tolist(), fill=_ink(colour), width=px, joint="curve" if px > 3 else None)

    def dots(self, centres: Array, radii: Array, colours: Array, *, depth: float = 1.0) -> None:
        """Fill circles with centres, shape (m, 2), and radii, shape (m,), in face units."""
        r = radii * self.pose.scale * self.side
        for (x, y), radius, colour in zip(self.place(centres, depth), r, colours, strict=True):
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_ink(colour))


def _ink(colour: Array) -> tuple[int, ...] | int:
    values = tuple(int(min(max(value, 0), 255)) for value in colour.tolist())
    return values[0] if len(values) == 1 else values


def _curve(x: Array, y: Array) -> Array:
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    return points


def _oval(x: float, y: float, rx: float, ry: float, n: int = 20) -> Array:
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return _curve(x + rx * np.cos(angle), y + ry * np.sin(angle))


@dataclass(frozen=True)
class Signs:
    """The strength of each sign of age in one photo, 0 to 1."""

    child: float
    lines: float
    grey: float
    bare: float  # hair loss
    sag: float
    spots: float


def sample_signs(face: Face, age: float, rng: np.random.Generator) -> Signs:
    """Return the signs of age in one photo, early or late for the person and slightly different in each photo."""

    def strength(sign: str, middle: float, width: float) -> float:
        return _level(age + face.early[sign] + 1.5 * rng.standard_normal(), middle, width)

    return Signs(
        child=1 - _level(age + 0.5 * face.early["sag"] + 1.5 * rng.standard_normal(), 19, 2.5),
        lines=strength("lines", 42, 8),
        grey=strength("grey", 48, 5) * (0.12 if face.dyed and rng.random() < 0.85 else 1),
        bare=face.balding * strength("hairline", 40, 8),
        sag=strength("sag", 46, 8),
        spots=strength("spots", 50, 7),
    )


def _outline(face: Face, signs: Signs, *, grow: float = 1.0) -> Array:
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
    right = _curve(half * grow, y * grow)
    left = right[-2:0:-1] * (-1, 1)
    return np.concatenate((right, left))


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
    hair = _blend(face.hair, GREY * rng.uniform(0.9, 1.05), 0.92 * signs.grey)
    hat = rng.random() < 0.05  # hides hair and forehead

    picture = _backdrop(rng, 2 * size)
    sketch = Sketch(picture, pose)
    _draw_behind(sketch, face, signs, hair, rng)
    outline = _outline(face, signs)
    sketch.fill(outline, face.skin, depth=0.2)
    contrast = rng.uniform(0.55, 1.15)  # makeup and soft light hide lines, hard light deepens them
    _draw_forehead(sketch, face, signs, contrast, rng)
    _draw_folds(sketch, face, signs, smile, contrast, rng)
    _draw_spots(sketch, face, signs, rng)
    if rng.random() < face.beard:
        _draw_beard(sketch, face, signs, outline, rng)
    _draw_nose(sketch, face, signs)
    _draw_mouth(sketch, face, signs, smile, rng)
    _draw_eyes(sketch, face, signs, smile, rng)
    if not hat:
        _draw_hair(sketch, face, signs, hair, rng)
    if rng.random() < face.glasses * (1 if age > 20 else 0.5):
        _draw_glasses(sketch, face, dark=rng.random() < 0.1)
    if hat:
        _draw_hat(sketch, face, rng)
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
        colour = _ink(base + rng.normal(0, 40) + rng.normal(0, 18, 3))
        if rng.random() < 0.6:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        else:
            draw.rectangle((x - r, 0 if rng.random() < 0.5 else y, x + r, side), fill=colour)
    return picture


def _draw_behind(sketch: Sketch, face: Face, signs: Signs, hair: Array, rng: np.random.Generator) -> None:
    """Draw everything behind the face: long hair, neck, clothes, ears."""
    cloth = rng.uniform(20, 235) * np.ones(3) + rng.normal(0, 45, 3)
    if face.hair_length > 0:
        t = np.linspace(0, np.pi, 40)
        y = -np.cos(t)
        half = (face.width + 0.13 + 0.12 * np.clip(y, 0, 1)) * np.sin(np.clip(t, 0, np.pi / 2)) ** 0.7
        half = half + face.wave * np.sin(9 * y + rng.uniform(0, 6))
        y = np.where(y < 0, y * (1 + face.hair_height), y * face.hair_length)
        right = _curve(half, y)
        sketch.fill(np.concatenate((right, right[::-1] * (-1, 1))), hair * 0.72, depth=-0.25)
    neck = face.width * (0.62 if face.long_hair else 0.72)
    y = np.array([0.3, 1.25, 1.45])
    right = _curve(neck * np.array([1, 1, 1.25]), y)
    sketch.fill(np.concatenate((right, right[::-1] * (-1, 1))), face.skin * 0.8, depth=-0.1)
    fold = _blend(face.skin * 0.8, face.skin * 0.5, signs.sag)
    if signs.sag > 0.35:  # neck folds
        x = np.linspace(-0.5 * neck, 0.5 * neck, 6)
        sketch.lines(np.stack([_curve(x, v + 0.05 * (x / neck) ** 2) for v in (1.1, 1.19)]), fold, width=0.018, depth=0)
    wide = 1.5 if face.long_hair else 1.8
    x = np.array([-wide, -wide * 0.93, -0.95 * neck, -0.45, 0.0, 0.45, 0.95 * neck, wide * 0.93, wide])
    v = rng.uniform(0.0, 0.25)
    top = np.array([3, 1.5, 1.16, 1.24 + 0.4 * v, 1.3 + v, 1.24 + 0.4 * v, 1.16, 1.5, 3])
    sketch.fill(_curve(x, top), cloth, depth=-0.1)
    sketch.lines(_curve(x, top)[None, 2:7], cloth * 0.75, width=0.04, depth=-0.1)
    if face.hair_length == 0 or face.parting > 0.25:
        grown = 0.15 + 0.03 * signs.sag  # ears never stop growing
        for side in (-1, 1):
            sketch.fill(_oval(side * (face.width + 0.015), 0.1, 0.085, grown), face.skin * 0.9, depth=-0.1)
            sketch.fill(_oval(side * (face.width + 0.015), 0.1, 0.045, grown * 0.6), face.skin * 0.74, depth=-0.1)


def _draw_forehead(sketch: Sketch, face: Face, signs: Signs, contrast: float, rng: np.random.Generator) -> None:
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


def _draw_folds(
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
            folds.append((_curve(x, y), depth * rng.uniform(0.4, 1)))
    for side in (-1, 1):
        eye = side * face.eye_gap
        for k in range(round(3.4 * signs.lines + 0.5 * laugh + 0.5 * rng.standard_normal())):  # crow's feet
            angle = (k % 4 - 1.5) * 0.42 + rng.normal(0, 0.06)
            r = 0.02 + (0.13 + 0.08 * signs.lines) * along
            x, y = eye + side * (face.eye_size + r * np.cos(angle)), face.eye_height + 0.01 + 1.1 * r * np.sin(angle)
            folds.append((_curve(x, y), 0.9 * depth + 0.09 * laugh))
        for k in range(1 + (signs.lines > 0.55)):  # below the eye
            x = (1.8 * along - 0.9) * face.eye_size
            y = face.eye_height + 0.085 + 0.035 * signs.sag + 0.04 * k - 1.8 * x**2
            folds.append((_curve(eye + x, y), 0.12 + 0.55 * max(depth, slack)))
        # From the nose past the corner of the mouth.
        x = side * (face.nose_width + 0.03 + 0.14 * along + 0.04 * smile)
        y = face.eye_height + face.nose_length - 0.03 + 0.27 * along**1.3
        folds.append((_curve(x, y), 0.1 + 0.65 * max(depth, 0.7 * slack) + 0.2 * max(smile, 0)))
        if signs.sag > 0.4:  # from the corner of the mouth to the chin
            x = side * (face.mouth_width + 0.05 + 0.04 * along)
            folds.append((_curve(x, face.mouth_height + 0.04 + 0.18 * along), 0.75 * slack))
        if signs.lines > 0.72:  # hollow cheeks
            x = side * (0.5 + 0.08 * along * (1 - along)) + rng.normal(0, 0.02)
            folds.append((_curve(x, 0.25 + 0.27 * along), 0.6 * depth))
    share = np.clip([[dark] for _, dark in folds], 0, 1)
    strokes = np.stack([stroke for stroke, _ in folds])
    sketch.lines(strokes, face.skin * (1 - 0.45 * share), width=0.014 + 0.008 * signs.lines)


def _draw_spots(sketch: Sketch, face: Face, signs: Signs, rng: np.random.Generator) -> None:
    """Draw age spots, freckles and pimples; freckles and age spots of a person have fixed positions."""
    pimples = rng.poisson(5) if signs.child > 0.3 and rng.random() < 0.4 else 0
    for first, count, colour, radius in (
        (0, min(rng.poisson(7 * signs.spots), 15), face.skin * (0.72, 0.64, 0.56), 0.024),
        (15, face.freckles, face.skin * (0.82, 0.7, 0.6), 0.012),
        (0, pimples, _blend(face.skin, np.array([200.0, 60, 60]), 0.4), 0.016),
    ):
        at = face.marks[first : first + count]
        tints = face.skin + (colour - face.skin) * rng.uniform(0.4, 0.9, (len(at), 1))
        sketch.dots(at, radius * rng.uniform(0.6, 1.3, len(at)), tints)
    if face.mole:
        sketch.dots(np.array([face.mole]), np.array([0.02]), face.skin[None] * 0.4)


def _draw_beard(sketch: Sketch, face: Face, signs: Signs, outline: Array, rng: np.random.Generator) -> None:
    """Draw a beard; it turns grey before the hair and is thin on young people."""
    grey = min(1.0, 1.5 * signs.grey + 0.05)
    strength = 0.75 * (1 - 0.85 * signs.child) * rng.uniform(0.5, 1)
    colour = _blend(face.skin, _blend(face.hair * 0.85, GREY, grey), strength)
    mouth = face.mouth_height
    if face.beard_kind == 2:
        low = outline[outline[:, 1] > 0.18]  # right side downwards, then left side upwards
        x = np.linspace(-1, 1, 15)
        inner = _curve(x * face.width * 0.86, 0.2 + 0.34 * (1 - x**4))
        sketch.fill(np.concatenate((low, inner)), colour, depth=0.3)
    if face.beard_kind == 1:
        sketch.fill(_oval(0, mouth + 0.2, 0.24, 0.2), colour)
    x = np.linspace(-1, 1, 11)
    lip = mouth - 0.055 - 0.075 * (1 - x**2)
    under = mouth - 0.02 + 0.07 * x**2
    sketch.fill(np.concatenate((_curve(x * 0.3, lip), _curve(x * 0.3, under)[::-1])), colour)
    n = 50 if face.beard_kind == 2 else 14
    start = rng.uniform((-0.5, mouth + 0.12), (0.5, 0.95), (n, 2)) * (1.0 if face.beard_kind == 2 else 0.4, 1)
    inside = np.abs(start[:, 0]) < 0.62 * np.sqrt(np.clip(1.1 - start[:, 1], 0, 1))
    if face.beard_kind and inside.any():
        start = start[inside]
        strokes = np.stack((start, start + np.array([0.0, 0.07])), axis=1)
        hairs = np.where(rng.random((len(start), 1)) < grey, _blend(colour, GREY, 0.6), colour * 0.75)
        sketch.lines(strokes, hairs, width=0.012)


def _draw_nose(sketch: Sketch, face: Face, signs: Signs) -> None:
    tip = face.eye_height + face.nose_length + 0.025 * signs.sag
    half = face.nose_width * (1 + 0.12 * signs.sag - 0.1 * signs.child)
    x = np.linspace(-1, 1, 13)
    sketch.lines(
        _curve(x * half, tip + 0.03 - 0.02 * np.cos(np.pi * x) - 0.05 * x**4)[None], face.skin * 0.66, width=0.02
    )
    for side in (-1, 1):
        sketch.fill(_oval(side * half * 0.48, tip + 0.02, half * 0.26, 0.02, 10), face.skin * 0.42)
        edge = side * half * np.array([0.98, 1.06, 0.9])
        sketch.lines(_curve(edge, tip + np.array([-0.07, -0.02, 0.03]))[None], face.skin * 0.74, width=0.016)


def _draw_mouth(sketch: Sketch, face: Face, signs: Signs, smile: float, rng: np.random.Generator) -> None:
    thin = face.lip_weight * (1 + 0.25 * signs.child - 0.55 * signs.sag)
    colour = _blend(face.lips, face.skin * 0.85, 0.5 * signs.lines)
    x = np.linspace(-1, 1, 15)
    half = face.mouth_width * (1 + 0.16 * smile)
    y = face.mouth_height + 0.02 * signs.sag - 0.09 * smile * (x**2 - 0.4) + 0.03 * signs.sag * x**2
    opening = max(0.0, rng.normal(0.5, 0.35)) * 0.13 * (smile > 0.35)
    round_ = 1 - x**2
    upper = y - thin * 0.8 * round_**0.7 * (1 - 0.25 * np.exp(-((x / 0.16) ** 2)))
    lower = y + opening * round_ + thin * 1.25 * round_**0.8
    sketch.fill(np.concatenate((_curve(x * half, upper), _curve(x * half, lower)[::-1])), colour)
    if opening > 0.02:
        bottom = y + opening * round_
        sketch.fill(
            np.concatenate((_curve(x * half * 0.93, y), _curve(x * half * 0.93, bottom)[::-1])),
            np.array([70.0, 24, 26]),
        )
        teeth = _blend(np.array([246.0, 244, 238]), np.array([222.0, 208, 170]), signs.lines)
        bite = y + np.minimum(opening * 0.72, 0.075) * round_
        sketch.fill(np.concatenate((_curve(x * half * 0.86, y), _curve(x * half * 0.86, bite)[::-1])), teeth)
    else:
        sketch.lines(_curve(x * half, y)[None], colour * 0.55, width=0.016)
    if signs.lines > 0.6:  # small lines above the lip
        starts = np.linspace(-0.6, 0.6, 6) * half
        strokes = np.stack(
            [_curve(np.array([v, v * 1.04]), face.mouth_height - thin - np.array([0.025, 0.085])) for v in starts]
        )
        sketch.lines(strokes, _blend(face.skin, face.skin * 0.6, signs.lines - 0.25), width=0.01)


def _draw_eyes(sketch: Sketch, face: Face, signs: Signs, smile: float, rng: np.random.Generator) -> None:
    rx = face.eye_size * (1 + 0.12 * signs.child - 0.07 * signs.sag)
    wide = np.clip(rng.normal(1, 0.14) - 0.12 * max(smile, 0), 0.55, 1.25)
    ry = 0.46 * rx * wide * (1 + 0.15 * signs.child - 0.34 * signs.sag)
    gaze = rng.normal(0, 0.2)
    x = np.linspace(-1, 1, 15)
    hair = _blend(face.hair * 0.75, GREY * 0.9, 0.7 * signs.grey)
    brow_lift = rng.normal(0, 0.012) - 0.018 * signs.sag
    for side in (-1, 1):
        middle = side * face.eye_gap
        tilt = (0.022 * signs.sag - face.eye_tilt) * x * side  # the outer corner drops with age
        upper = face.eye_height + tilt - ry * 1.1 * (1 - np.abs(x) ** 2.2)
        upper = upper + 0.035 * signs.sag * np.clip(x * side, 0, 1) ** 2  # a hooded lid
        lower = np.maximum(face.eye_height + tilt + ry * 0.8 * (1 - x**2), upper)
        white = _blend(np.array([246.0, 244, 240]), np.array([226.0, 214, 200]), 0.6 * signs.lines)
        sketch.fill(np.concatenate((_curve(middle + x * rx, upper), _curve(middle + x * rx, lower)[::-1])), white)
        for radius, colour in ((0.078, face.eyes), (0.036, np.array([16.0, 12, 12]))):
            iris = _oval(middle + gaze * 0.05, face.eye_height - 0.006, radius, radius, 18)
            at = (iris[:, 0] - middle) / rx
            iris[:, 1] = np.clip(iris[:, 1], np.interp(at, x, upper), np.interp(at, x, lower))
            sketch.fill(iris, colour)
        glint = np.array([[middle + gaze * 0.05 - 0.02, face.eye_height - 0.03]])
        sketch.dots(glint, np.array([0.014]), np.full((1, 3), 250.0))
        lash = (0.034 if face.long_hair else 0.02) * (1 - 0.4 * signs.lines)
        sketch.lines(_curve(middle + x * rx * 1.05, upper)[None], np.array([38.0, 26, 24]), width=lash)
        sketch.lines(_curve(middle + x * rx, lower)[None], face.skin * 0.62, width=0.012)
        lid = upper - 0.035 + 0.02 * signs.sag
        sketch.lines(_curve(middle + x * rx, lid)[None], face.skin * (0.72 - 0.12 * signs.sag), width=0.014)
        u = np.linspace(-1, 1, 9)
        out = u * side
        top = (
            face.eye_height - face.brow_height + brow_lift - 0.05 * (1 - u**2) + 0.025 * signs.sag * np.clip(out, 0, 1)
        )
        weight = face.brow_weight * (1.05 - 0.45 * np.clip(out, 0, 1)) * (1 - 0.35 * signs.lines * face.long_hair)
        brow = np.concatenate(
            (_curve(middle + u * rx * 1.3, top - weight), _curve(middle + u * rx * 1.3, top + weight)[::-1])
        )
        sketch.fill(brow, _blend(face.skin * 0.85, hair, 0.9 - 0.3 * signs.lines))


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


def _draw_hair(sketch: Sketch, face: Face, signs: Signs, hair: Array, rng: np.random.Generator) -> None:
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
    thin = _blend(hair, face.skin, 0.45 * np.clip(signs.bare - 0.15, 0, 1))
    outer = _curve(x * reach, top)
    inner = _curve(x * face.width * 0.99, line)
    sketch.fill(np.concatenate((outer, inner[::-1])), thin, depth=0.1)
    # Strands from the outer edge to the hairline; some turn white before others.
    n = 46
    at = rng.uniform(-0.97, 0.97, n)
    start = _curve(at * reach, np.interp(at, x, top) + 0.015)
    lean = np.clip(at + 0.25 * (at - face.parting) + rng.normal(0, 0.03, n), -1, 1)
    end = _curve(lean * face.width * 0.99, np.interp(lean, x, line) - 0.01)
    strands = np.stack((start, (start + end) / 2 + rng.normal(0, 0.012, (n, 2)), end), axis=1)  # (n, 3, 2)
    white = rng.random((n, 1)) < signs.grey
    tints = np.where(white, thin + (GREY * 1.1 - thin) * 0.5, thin * rng.uniform(0.68, 1.25, (n, 1)))
    sketch.lines(strands, tints, width=0.02, depth=0.1)
    if face.hair_length > 0:  # locks next to the face
        y = np.linspace(-0.3, max(0.45, face.hair_length), 12)
        for side in (-1, 1):
            edge = side * (face.width + 0.04 + face.wave * np.sin(9 * y + side))
            width = 0.13 * np.linspace(0.7, 1, 12)
            lock = np.concatenate((_curve(edge - side * width * 0.55, y), _curve(edge + side * width, y)[::-1]))
            sketch.fill(lock, hair * 0.88, depth=0)
            strokes = np.stack([_curve(edge + side * width * s, y) for s in rng.uniform(-0.4, 0.85, 5)])
            shades = hair * rng.uniform(0.6, 1.1, (5, 1))
            sketch.lines(strokes, shades, width=0.018, depth=0)
        if face.earrings and face.hair_length < 1:
            sketch.dots(
                np.array([[-1, 0.3], [1, 0.3]]) * (face.width + 0.02, 1),
                np.full(2, 0.035),
                np.array([[226.0, 196, 96]] * 2),
            )


def _draw_glasses(sketch: Sketch, face: Face, *, dark: bool) -> None:
    frame = face.hair * 0.3 + 8
    angle = np.linspace(0, 2 * np.pi, 25)
    power = 1.0 if face.glasses_round else 0.55
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power * 0.225
    y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power * (0.18 if face.glasses_round else 0.145)
    rims = np.stack([_curve(side * (face.eye_gap + 0.01) + x, face.eye_height + 0.02 + y) for side in (-1, 1)])
    if dark:
        for rim in rims:
            sketch.fill(rim, np.array([26.0, 24, 28]))
    sketch.lines(rims, frame, width=0.03)
    u = np.linspace(-1, 1, 7)
    sketch.lines(_curve(u * (face.eye_gap - 0.21), face.eye_height - 0.03 + 0.03 * u**2)[None], frame, width=0.03)
    for side in (-1, 1):
        ends = np.array(
            [[side * (face.eye_gap + 0.23), face.eye_height - 0.04], [side * face.width, face.eye_height - 0.02]]
        )
        sketch.lines(ends[None], frame, width=0.03, depth=0.5)


def _draw_hat(sketch: Sketch, face: Face, rng: np.random.Generator) -> None:
    colour = rng.uniform(20, 200) + rng.normal(0, 30, 3)
    x = np.linspace(-1, 1, 21)
    reach = face.width + 0.09
    dome = -0.42 - 0.85 * (1 - np.abs(x) ** 2.6) ** 0.5
    band = -0.42 - 0.14 * (1 - x**2)
    sketch.fill(np.concatenate((_curve(x * reach, dome), _curve(x * reach, band)[::-1])), colour, depth=0.1)
    brim = np.concatenate((_curve(x * reach, band - 0.09), _curve(x * reach, band + 0.05)[::-1]))
    sketch.fill(brim, colour * 0.7, depth=0.1)


def _shade(face: Face, signs: Signs, smile: float, pose: Pose, side: int) -> Image.Image:
    """Return the shading of the face: mode L, 128 is neutral."""
    picture = Image.new("L", (side, side), 128)
    sketch = Sketch(picture, pose)
    for grow, grey in ((1.0, 100), (0.93, 116), (0.85, 128), (0.6, 134)):
        sketch.fill(_outline(face, signs, grow=grow), np.array([float(grey)]), depth=0.2)
    eye, tip = face.eye_height, face.eye_height + face.nose_length
    sketch.fill(_oval(0, -0.5, 0.35, 0.12), np.array([140.0]))
    for s in (-1, 1):
        sketch.fill(_oval(s * face.eye_gap, eye - 0.08, 0.18, 0.07), np.array([114.0]))
        sketch.fill(_oval(s * (face.eye_gap - 0.02), eye + 0.11, 0.13, 0.05), np.array([122.0 - 30 * signs.sag]))
        sketch.fill(_oval(s * 0.36, 0.26 + 0.06 * signs.sag, 0.14, 0.1), np.array([142.0 + 6 * max(smile, 0)]))
        sketch.fill(_oval(s * 0.42, 0.5, 0.1, 0.14), np.array([128.0 - 20 * signs.sag * (1 - signs.child)]))
        sketch.fill(_oval(s * 0.5, 0.78, 0.12, 0.08), np.array([124.0 - 20 * signs.sag]))
        nose = np.array(
            [[s * 0.05, eye], [s * 0.11, tip - 0.1], [s * face.nose_width * 1.1, tip], [s * 0.05, tip - 0.05]]
        )
        sketch.fill(nose, np.array([113.0]))
    sketch.fill(_oval(0, (eye + tip) / 2, 0.035, 0.2), np.array([146.0]))
    sketch.fill(_oval(0, tip - 0.03, 0.06, 0.05), np.array([144.0]))
    sketch.fill(_oval(0, tip + 0.07, 0.12, 0.025), np.array([108.0]))
    sketch.fill(_oval(0, face.mouth_height + 0.17, 0.16, 0.03), np.array([112.0]))
    sketch.fill(_oval(0, 0.87, 0.15, 0.07), np.array([138.0]))
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
