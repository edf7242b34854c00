"""The features for TensorBoard's projector, each image a thumbnail."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from agebench.report.outcome import Array
from agebench.report.projection import SEED, TSNE_DIMENSIONS, TSNE_MOST, sample_rows, why_not

THUMBNAIL = 48  # px a side at most: 800 of them make 1,392 px, and TensorBoard takes 8,192
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
    """Write what the projector shows of a run, at most 800 images; nothing if there is nothing to be seen.

    Args:
        run_dir: Where TensorBoard looks for projector_config.pbtxt; the rest goes to report/projector/.
        part: train, val or test.
        features: Float, shape (n, d); of more than 50 dimensions the first 50 principal components are written, for
            TensorBoard reads the files of all runs before it shows one.
        images: uint8, shape (n, C, S, S), C 1 or 3.
        about: At least two columns, each with n cells, to colour and to search by.
    """
    finite = np.flatnonzero(np.isfinite(features).all(axis=1))
    rows = finite[sample_rows(len(finite), TSNE_MOST)]
    if why_not(features[rows]):
        return
    folder = run_dir / "report" / "projector"
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / f"{part}.tsv", _reduced(features[rows]), fmt="%.5g", delimiter="\t")
    cells = zip(*([_plain(column[row]) for row in rows] for column in about.values()), strict=True)
    lines = ["\t".join(line) for line in (tuple(about), *cells)]
    (folder / f"{part}_about.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sheet, side = _sheet(images[rows])
    sheet.save(folder / f"{part}.jpg", quality=90, subsampling=0)
    text = CONFIG.format(part=part, folder="report/projector", side=side)
    (run_dir / "projector_config.pbtxt").write_text(text, encoding="utf-8")


def _reduced(features: Array) -> Array:
    from sklearn.decomposition import PCA

    if features.shape[1] <= TSNE_DIMENSIONS:
        return features
    dimensions = min(TSNE_DIMENSIONS, len(features))
    return np.asarray(PCA(n_components=dimensions, random_state=SEED).fit_transform(np.float64(features)))


def _plain(cell: object) -> str:
    return " ".join(str(cell).split())  # a tab would begin a column


def _sheet(images: Array) -> tuple[Image.Image, int]:
    """Return all images as thumbnails in one, row by row, and the side of each in px.

    As many rows as columns, the last ones empty: TensorBoard finds the row by the number of rows, not of columns.
    """
    side, columns = min(THUMBNAIL, images.shape[2]), math.ceil(math.sqrt(len(images)))
    colour = images.shape[1] == 3
    sheet = Image.new("RGB" if colour else "L", (side * columns, side * columns))
    for i, pixels in enumerate(images):
        image = Image.fromarray(pixels.transpose(1, 2, 0) if colour else pixels[0])  # (C, S, S) -> (S, S, C)
        sheet.paste(image.resize((side, side)), (i % columns * side, i // columns * side))
    return sheet, side
