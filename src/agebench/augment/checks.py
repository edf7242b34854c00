"""Validation of the arguments and of the input of augmentations."""

from collections.abc import Sequence

import torch
from torch import Tensor

from agebench.errors import UserError


def number(name: str, value: object, low: float, high: float) -> float:
    """Return value as a float if it is a number in [low, high]; else raise UserError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(f"augment.{name} must be a number from {low:g} to {high:g}, not {value!r}")
    return float(value)


def span(name: str, value: object, low: float, high: float) -> tuple[float, float]:
    """Return value as (lower, upper) if it is two numbers in [low, high] in ascending order; else raise UserError."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise UserError(f"augment.{name} must be two numbers such as [{low:g},{high:g}], not {value!r}")
    lower, upper = (number(name, bound, low, high) for bound in value)
    if lower > upper:
        raise UserError(f"augment.{name} must be two numbers with the smaller first, not {value!r}; swap them")
    return lower, upper


def flag(name: str, value: object) -> bool:
    """Return value if it is true or false; else raise UserError."""
    if not isinstance(value, bool):
        raise UserError(f"augment.{name} must be true or false, not {value!r}")
    return value


def batch_of_images(images: Tensor) -> None:
    """Raise ValueError unless images are float32 of shape (B, C, S, S) with C 1 or 3."""
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] not in (1, 3) or shape[2] != shape[3] or images.dtype != torch.float32:
        raise ValueError(f"expected float32 images of shape (B, 1 or 3, S, S), got {images.dtype} of shape {shape}")
