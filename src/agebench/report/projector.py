"""Features and thumbnails for TensorBoard's embedding projector."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from agebench.files import atomic_write, write_text
from agebench.report.outcome import Array
from agebench.report.projection import MAX_TSNE_IMAGES, TSNE_DIMENSIONS, obstacle, sample_rows

THUMBNAIL = 48  # largest side, px; 800 thumbnails make a sprite of 1,392 px, and TensorBoard allows 8,192
CONFIG = """\
embeddings {{
  tensor_name: "{part} features"
  tensor_path: "{folder}/{part}.tsv"
  metadata_path: "{folder}/{part}_about.tsv"
  sprite {{ image_path: "{folder}/{part}.jpg" single_image_dim: {side} single_image_dim: {side} }}
}}
"""


def write_projector(
    run_dir: Path, part: str, features: Array, images: Array, about: Mapping[str, Sequence[str]]
) -> None:
    """Write the projector's files for at most 800 images; nothing if the features cannot be projected.

    Args:
        run_dir: The run directory. TensorBoard reads projector_config.pbtxt there; the other files are written to
            report/projector/.
        part: train, val or test.
        features: Float, shape (n, d). More than 50 dimensions are reduced to 50 by PCA, because TensorBoard reads the
            files of all runs at once.
        images: uint8, shape (n, C, S, S), C 1 or 3.
        about: At least two metadata columns of n cells each, for colours and search.
    """
    finite = np.flatnonzero(np.isfinite(features).all(axis=1))
    rows = finite[sample_rows(len(finite), MAX_TSNE_IMAGES)]
    if obstacle(features[rows]):
        return
    folder = run_dir / "report" / "projector"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"{part}.tsv") as file:
        np.savetxt(file, _reduced(features[rows]), fmt="%.5g", delimiter="\t")
    cells = zip(*([_plain(column[row]) for row in rows] for column in about.values()), strict=True)
    lines = ["\t".join(line) for line in (tuple(about), *cells)]
    write_text(folder / f"{part}_about.tsv", "\n".join(lines) + "\n")
    sheet, side = _sheet(images[rows])
    with atomic_write(folder / f"{part}.jpg") as file:
        sheet.save(file, format="JPEG", quality=90, subsampling=0)
    text = CONFIG.format(part=part, folder="report/projector", side=side)
    write_text(run_dir / "projector_config.pbtxt", text)


def _reduced(features: Array) -> Array:
    """Return the first principal components. scikit-learn computes the same, but its import takes longer."""
    images, width = features.shape
    if width <= TSNE_DIMENSIONS:
        return features
    dimensions = min(TSNE_DIMENSIONS, images)
    centred = np.float64(features) - features.mean(axis=0, dtype=np.float64)
    if width <= images:
        _, axes = np.linalg.eigh(centred.T @ centred)  # ascending eigenvalues
        return np.asarray(centred @ axes[:, ::-1][:, :dimensions])
    values, points = np.linalg.eigh(centred @ centred.T)  # (n, n) is smaller than (d, d)
    return np.asarray(points[:, ::-1] * np.sqrt(np.maximum(values[::-1], 0)))[:, :dimensions]


def _plain(cell: object) -> str:
    return " ".join(str(cell).split())  # a tab would start a new column


def _sheet(images: Array) -> tuple[Image.Image, int]:
    """Return the sprite image with all thumbnails, row by row, and the side of a thumbnail in px.

    The sprite is square and may have empty rows at its end: TensorBoard expects as many columns as rows.
    """
    side, columns = min(THUMBNAIL, images.shape[2]), math.ceil(math.sqrt(len(images)))
    colour = images.shape[1] == 3
    sheet = Image.new("RGB" if colour else "L", (side * columns, side * columns))
    for i, pixels in enumerate(images):
        image = Image.fromarray(pixels.transpose(1, 2, 0) if colour else pixels[0])  # (C, S, S) -> (S, S, C)
        sheet.paste(image.resize((side, side)), (i % columns * side, i // columns * side))
    return sheet, side
