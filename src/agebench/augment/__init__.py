"""Random changes to a whole batch of images on its device, a draw of its own for each image."""

from agebench.augment.batch import Augment
from agebench.augment.randaugment import RandAugment

__all__ = ["Augment", "RandAugment"]
