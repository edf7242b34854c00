"""Projector files, parsed with TensorBoard's own protocol buffers."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from agebench.report.projector import write_projector


def images(count: int, *, channels: int, side: int) -> np.ndarray:
    """Return constant images, each with a different grey level."""
    levels = np.linspace(0, 255, count).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, channels, side, side)).copy()


def features(count: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)


def write(folder: Path, rows: np.ndarray, pixels: np.ndarray) -> ProjectorConfig:
    about = {"label": [f"{i}s" for i in range(len(rows))], "name": [f"a\tname\n{i}" for i in range(len(rows))]}
    write_projector(folder, "test", rows, pixels, about)
    return text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 64)])
def test_each_image_has_its_features_label_and_thumbnail(tmp_path: Path, channels: int, side: int) -> None:
    rows, pixels = features(10, 4), images(10, channels=channels, side=side)

    (embedding,) = write(tmp_path, rows, pixels).embeddings

    np.testing.assert_allclose(np.loadtxt(tmp_path / embedding.tensor_path), rows, rtol=1e-4)
    lines = (tmp_path / embedding.metadata_path).read_text().splitlines()
    assert lines[:3] == ["label\tname", "0s\ta name 0", "1s\ta name 1"]
    assert len(lines) == 11
    width, height = embedding.sprite.single_image_dim
    assert width == height == min(side, 48)
    with Image.open(tmp_path / embedding.sprite.image_path) as sheet:
        assert sheet.size == (4 * width, 4 * height)  # ten thumbnails in rows of four; the sprite must be square
        for i in range(10):
            level = np.asarray(sheet.convert("L"))[i // 4 * height + height // 2, i % 4 * width + width // 2]
            assert abs(int(level) - int(pixels[i].flat[0])) <= 3


def test_at_most_800_images_and_50_dimensions_are_written_and_distances_are_preserved(tmp_path: Path) -> None:
    rows = features(900, 3) @ features(3, 60)  # of rank three

    (embedding,) = write(tmp_path, rows, images(900, channels=3, side=20)).embeddings

    shown = np.loadtxt(tmp_path / embedding.tensor_path)
    assert shown.shape == (800, 50)
    labels = [int(line.partition("s")[0]) for line in (tmp_path / embedding.metadata_path).read_text().splitlines()[1:]]
    assert len(set(labels)) == 800
    expected = np.linalg.norm(rows[labels[:30]][:, None] - rows[labels[:30]][None], axis=2)
    found = np.linalg.norm(shown[:30][:, None] - shown[:30][None], axis=2)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    with Image.open(tmp_path / embedding.sprite.image_path) as sheet:
        assert max(sheet.size) <= 8192


def test_images_with_non_finite_features_are_excluded(tmp_path: Path) -> None:
    rows, pixels = features(12, 4), images(12, channels=1, side=8)
    rows[[0, 5]] = np.nan

    (embedding,) = write(tmp_path, rows, pixels).embeddings

    assert len(np.loadtxt(tmp_path / embedding.tensor_path)) == 10
    assert (tmp_path / embedding.metadata_path).read_text().splitlines()[1].startswith("1s\t")
    with Image.open(tmp_path / embedding.sprite.image_path) as sheet:
        assert abs(sheet.getpixel((4, 4)) - int(pixels[1].flat[0])) <= 3


def test_nothing_is_written_if_no_features_are_finite(tmp_path: Path) -> None:
    write_projector(tmp_path, "test", np.full((9, 4), np.nan), images(9, channels=1, side=8), {"label": ["a"] * 9})

    assert not list(tmp_path.iterdir())
