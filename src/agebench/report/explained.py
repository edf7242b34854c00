"""The arrays of report/explained.npz: what the network of a run sees in some test images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agebench.files import atomic_write
from agebench.report.outcome import Array

NAMES = ("rows", "images", "heat", "method", "layer", "kernels", "map_image")


@dataclass(frozen=True)
class Explained:
    """What a network sees in k test images.

    Args:
        rows: Rows of the outcome, int64, shape (k,).
        images: Their pixels, uint8, shape (k, C, S, S).
        heat: Positive where the image raises the explained number, float, shape (k, S, S). The number is the output
            for the prediction, or the estimate of ordered labels.
        method: `HiResCAM`, `occlusion`, or `Grad-CAM` in files of older versions.
        layer: The layer of a class activation map, else empty.
        kernels: Weights of the first layer, float, shape (K, C, h, w); shape (0,) if they are no images.
        map_image: The image of the feature maps, uint8, shape (C, S, S).
        stages: Feature maps by layer, float, shape (c, h, w) each.
    """

    rows: Array
    images: Array
    heat: Array
    method: str
    layer: str
    kernels: Array
    map_image: Array
    stages: dict[str, Array]

    def save(self, path: Path) -> Path:
        """Write the arrays to an npz file and return its path."""
        arrays: dict[str, Any] = {name: np.asarray(getattr(self, name)) for name in NAMES}
        maps: dict[str, Any] = {f"stage_{i}": each for i, each in enumerate(self.stages.values())}
        with atomic_write(path) as part, part.open("wb") as file:
            np.savez_compressed(file, stages=np.array(list(self.stages), dtype=str), **arrays, **maps)
        return path

    @classmethod
    def load(cls, path: Path) -> "Explained":
        """Return the arrays of a file that `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in NAMES}
            stages = {str(name): stored[f"stage_{i}"] for i, name in enumerate(stored["stages"])}
        return cls(**{**arrays, "method": str(arrays["method"]), "layer": str(arrays["layer"])}, stages=stages)
