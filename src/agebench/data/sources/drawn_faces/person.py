"""A person who is drawn: the fixed features of the face, and the signs of age in one photo."""

from dataclasses import dataclass

import numpy as np

from agebench.data.records import Array

SKIN = np.array(
    [[247, 220, 200], [238, 196, 166], [222, 172, 136], [196, 140, 100], [150, 98, 66], [104, 66, 46]], float
)
HAIR = np.array([[34, 26, 24], [62, 40, 28], [104, 66, 38], [150, 100, 52], [206, 168, 100], [146, 62, 30]], float)
EYES = np.array([[70, 44, 26], [104, 72, 36], [84, 112, 70], [80, 122, 160], [110, 124, 134]], float)
GREY = np.array([206.0, 204.0, 202.0])


def _level(age: float, middle: float, width: float) -> float:
    """Return the strength of a sign of age, 0 to 1: 0.5 at the middle; age, middle and width are in years."""
    return float(1 / (1 + np.exp((middle - age) / width)))


def blend(first: Array, second: Array, share: float) -> Array:
    """Return the colour between two colours, shape (3,), at a share of the second."""
    return first + (second - first) * min(max(share, 0.0), 1.0)


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
    skin = blend(SKIN[int(tone)], SKIN[int(tone) + 1], tone % 1) + rng.normal(0, 4, 3)
    dark = tone > 3
    pace = near(0, 2.0)
    return Face(
        long_hair=long_hair,
        skin=skin,
        hair=HAIR[rng.integers(2 if dark else len(HAIR))] * rng.uniform(0.8, 1.15),
        eyes=EYES[rng.integers(2 if dark else len(EYES))] * rng.uniform(0.85, 1.15),
        lips=blend(skin, np.array([176.0, 62.0, 72.0]), rng.uniform(0.35, 0.75) if long_hair else 0.3),
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
