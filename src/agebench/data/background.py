"""Whether images have the other background than the training images, such as dark digits on white paper."""

from collections.abc import Sequence

import numpy as np

from agebench.data.records import Array

DARK, BRIGHT = 0.4, 0.6
SAMPLE = 1_000  # training images that are measured


def border_brightness(images: Array) -> Array:
    """Return the mean brightness of the border of each image in [0, 1], float64, shape (N,).

    The border is a sixteenth of the side wide, at least 1 px.

    Args:
        images: uint8, shape (N, C, S, S).
    """
    wide = max(1, images.shape[-1] // 16)
    border = np.ones(images.shape[-2:], dtype=bool)
    border[wide:-wide, wide:-wide] = False
    found: Array = images[..., border].mean(axis=(1, 2)) / 255  # (N, C, border) -> (N,)
    return found


def training_background(images: Array, rows: Array) -> list[float]:
    """Return the 10% and the 90% quantile of the border brightness of training images, which a checkpoint stores.

    Args:
        images: uint8, shape (N, C, S, S).
        rows: Rows of the training images.
    """
    chosen = np.sort(rows[:: max(1, len(rows) // SAMPLE)][:SAMPLE])
    return [float(each) for each in np.quantile(border_brightness(images[chosen]), (0.1, 0.9))]


def has_other_background(images: Array, training: Sequence[float] | None) -> Array:
    """Return whether the background of each image is on the other side of mid grey, bool, shape (N,).

    A training set has a background if at least 90% of its images have a dark border (below 0.4), or at least 90% a
    bright one (above 0.6). Photos of faces have borders of all kinds, so no image differs from them.

    Args:
        images: uint8, shape (N, C, S, S).
        training: The result of training_background; None if it is unknown.
    """
    low, high = training or (0.0, 1.0)
    if high < DARK:
        return border_brightness(images) > 0.5
    if low > BRIGHT:
        return border_brightness(images) < 0.5
    return np.zeros(len(images), dtype=bool)
