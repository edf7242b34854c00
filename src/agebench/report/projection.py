"""Two-dimensional projections of features: PCA and t-SNE."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agebench.files import write_csv
from agebench.report.outcome import Array

log = logging.getLogger(__name__)

MIN_IMAGES = 5  # minimum number of images for a projection
MAX_TSNE_IMAGES = 800  # images per part; 1,000 took 3 to 5 s on one core
TSNE_DIMENSIONS = 50  # van der Maaten and Hinton (2008) reduce to 30 by PCA; scikit-learn's guide advises 50
SEED = 0  # independent of the run's seed, so that all runs show the same images


@dataclass(frozen=True)
class Plane:
    """The plane of the first two principal components.

    Args:
        mean: Mean of the features, shape (d,).
        axes: Orthonormal components, shape (2, d); zeros for a missing component.
        explained: Explained variance ratio of each component, shape (2,).
        part: The part that it was fitted on.
    """

    mean: Array
    axes: Array
    explained: Array
    part: str

    def project(self, features: Array) -> Array:
        """Return features projected onto the plane, float64, (n, d) -> (n, 2)."""
        return (features - self.mean) @ self.axes.T


def obstacle(features: Array) -> str | None:
    """Return why features, shape (n, d), cannot be projected, or None if they can."""
    if len(features) < MIN_IMAGES:
        return f"it has {len(features)} images with finite features, but {MIN_IMAGES} are needed"
    if not np.ptp(features, axis=0).any():
        return "its features are identical for all images"
    return None


def fit_plane(features: Array, part: str) -> Plane:
    """Return the plane of the first two principal components of features, finite and not constant, shape (n, d)."""
    from sklearn.decomposition import PCA

    width = features.shape[1]
    pca = PCA(n_components=min(2, width), random_state=SEED).fit(features)
    missing = 2 - pca.n_components_  # one-dimensional features have no second component
    return Plane(
        mean=pca.mean_,
        axes=np.concatenate([pca.components_, np.zeros((missing, width))]),
        explained=np.concatenate([pca.explained_variance_ratio_, np.zeros(missing)]),
        part=part,
    )


def sample_rows(count: int, most: int) -> Array:
    """Return at most `most` of `count` row indices, sampled with a fixed seed, ascending, int64."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(SEED).choice(count, size=most, replace=False))


def embed(features: Array) -> Array:
    """Return t-SNE coordinates of features, float, finite and not constant, (n, d) -> (n, 2)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    dimensions = min(TSNE_DIMENSIONS, len(features) - 1, features.shape[1])
    reduced = PCA(n_components=dimensions, random_state=SEED).fit_transform(features)  # (n, d) -> (n, 50)
    reduced /= reduced.std(axis=0).max()  # avoids float32 overflow in t-SNE; the scale does not change the neighbours
    tsne = TSNE(
        perplexity=min(30.0, (len(features) - 1) / 3),
        init="pca" if dimensions >= 2 else "random",
        random_state=SEED,
    )
    with threadpool_limits(1):  # several threads wait for each other: 6x the CPU time on a busy machine of two cores
        return np.asarray(tsne.fit_transform(reduced), dtype=np.float64)


@dataclass(frozen=True)
class Projected:
    """The projections of the features of a part.

    Args:
        labels: Label indices, int64, shape (n,).
        pca: Coordinates in the plane, float64, shape (n, 2).
        tsne: Coordinates of t-SNE, float64, shape (n, 2); NaN for images outside its sample.
        plane: The plane, that of train if train has one.
    """

    labels: Array
    pca: Array
    tsne: Array
    plane: Plane


def project_parts(features: Mapping[str, tuple[Array, Array]]) -> dict[str, Projected]:
    """Return the projections of each part, and log the reason for each that cannot be projected.

    Args:
        features: Features, float, shape (n, d), and label indices, int64, shape (n,), of each part.
    """
    usable: dict[str, tuple[Array, Array]] = {}
    for part, (rows, labels) in features.items():
        finite = np.isfinite(rows).all(axis=1)  # (n, d) -> (n,)
        kept = np.asarray(rows[finite], dtype=np.float64)
        if (reason := obstacle(kept)) is not None:
            log.info("report: skipped pca_%s and tsne_%s: %s", part, part, reason)
        else:
            usable[part] = kept, labels[finite]
    shared = fit_plane(usable["train"][0], "train") if "train" in usable else None
    found = {}
    for part, (rows, labels) in usable.items():
        plane = shared or fit_plane(rows, part)
        shown = sample_rows(len(rows), MAX_TSNE_IMAGES)
        tsne = np.full((len(rows), 2), np.nan)
        if (reason := obstacle(rows[shown])) is None:  # the sample may be constant although the features are not
            tsne[shown] = embed(rows[shown])
        else:
            log.info("report: skipped tsne_%s: %s", part, reason)
        found[part] = Projected(labels, plane.project(rows), tsne, plane)
    return found


def write_projection(path: Path, *, pca: Array, tsne: Array, labels: list[str]) -> Path:
    """Write one row per image and return the path. NaN coordinates, of images outside t-SNE's sample, are empty."""
    cells = [["" if np.isnan(x) else f"{x:.6g}" for x in row] for row in np.concatenate([pca, tsne], axis=1)]
    rows = ([*row, label] for row, label in zip(cells, labels, strict=True))
    return write_csv(path, ["pca1", "pca2", "tsne1", "tsne2", "target"], rows)
