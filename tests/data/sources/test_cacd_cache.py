"""CACD's metadata is parsed once and then read from the cache."""

from pathlib import Path

import numpy as np
import pytest

from agebench.data.sources import cacd_cache
from agebench.data.sources.cacd_cache import load_columns, store_columns

COLUMNS = {"name": np.array(["14_Ann_0001.jpg", "53_José_0002.jpg"]), "age": np.array([14, 53])}


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    file = tmp_path / "celebrity2000_meta.mat"
    file.write_bytes(b"MATLAB 5.0")
    return file


def test_stored_columns_come_back_with_their_types(tmp_path: Path, metadata: Path) -> None:
    store_columns(metadata, tmp_path / "cache", COLUMNS)

    loaded = load_columns(metadata, tmp_path / "cache")

    assert loaded is not None
    assert loaded["name"].tolist() == ["14_Ann_0001.jpg", "53_José_0002.jpg"]
    assert loaded["name"].dtype.kind == "U"
    assert loaded["age"].tolist() == [14, 53]
    assert loaded["age"].dtype == np.int64


def test_another_content_is_not_taken_from_the_cache(tmp_path: Path, metadata: Path) -> None:
    store_columns(metadata, tmp_path / "cache", COLUMNS)
    metadata.write_bytes(b"MATLAB 7.3")

    assert load_columns(metadata, tmp_path / "cache") is None


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_damaged_cache_is_ignored(tmp_path: Path, metadata: Path, kept: int) -> None:
    store_columns(metadata, tmp_path / "cache", COLUMNS)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:kept])

    assert load_columns(metadata, tmp_path / "cache") is None


def test_one_changed_byte_in_the_cache_is_noticed(tmp_path: Path, metadata: Path) -> None:
    store_columns(metadata, tmp_path / "cache", COLUMNS)
    (file,) = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    file.write_bytes(content.replace(b"53_Jos", b"52_Jos"))

    assert load_columns(metadata, tmp_path / "cache") is None


def test_without_a_cache_nothing_is_stored(tmp_path: Path, metadata: Path) -> None:
    store_columns(metadata, None, COLUMNS)

    assert load_columns(metadata, None) is None
    assert list(tmp_path.iterdir()) == [metadata]


def test_a_cache_that_cannot_be_written_is_ignored(tmp_path: Path, metadata: Path) -> None:
    (tmp_path / "cache").write_text("a file")

    store_columns(metadata, tmp_path / "cache", COLUMNS)

    assert load_columns(metadata, tmp_path / "cache") is None


def test_the_version_is_part_of_the_name(tmp_path: Path, metadata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_columns(metadata, tmp_path / "cache", COLUMNS)
    monkeypatch.setattr(cacd_cache, "VERSION", cacd_cache.VERSION + 1)

    assert load_columns(metadata, tmp_path / "cache") is None
