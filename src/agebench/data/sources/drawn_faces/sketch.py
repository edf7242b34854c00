"""Draws shapes in the units of a face, in the pose of a photo."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from agebench.data.records import Array


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
        self.draw.polygon(self.place(points, depth).ravel().tolist(), fill=ink(colour))

    def lines(self, strokes: Array, colours: Array, *, width: float, depth: float = 1.0) -> None:
        """Draw strokes, shape (m, n, 2), in colours, shape (m, 3) or (3,); the width is in face units."""
        px = max(1, round(width * self.pose.scale * self.side))
        placed = self.place(strokes, depth)
        for stroke, colour in zip(placed, np.broadcast_to(colours, (len(strokes), colours.shape[-1])), strict=True):
            self.draw.line(stroke.ravel().tolist(), fill=ink(colour), width=px, joint="curve" if px > 3 else None)

    def dots(self, centres: Array, radii: Array, colours: Array, *, depth: float = 1.0) -> None:
        """Fill circles with centres, shape (m, 2), and radii, shape (m,), in face units."""
        r = radii * self.pose.scale * self.side
        for (x, y), radius, colour in zip(self.place(centres, depth), r, colours, strict=True):
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink(colour))


def ink(colour: Array) -> tuple[int, ...] | int:
    """Return a colour, shape (3,) or (1,), as Pillow's."""
    values = tuple(int(min(max(value, 0), 255)) for value in colour.tolist())
    return values[0] if len(values) == 1 else values


def curve(x: Array, y: Array) -> Array:
    """Return points, shape (n, 2), from their coordinates, shape (n,) each."""
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    return points


def oval(x: float, y: float, rx: float, ry: float, n: int = 20) -> Array:
    """Return n points of an ellipse, shape (n, 2), from its centre and its radii."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return curve(x + rx * np.cos(angle), y + ry * np.sin(angle))
