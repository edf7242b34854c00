"""Packed images: decoded once, shared only between equal sources, without broken images, and their statistics."""

import logging
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from memory_source import Memory, pack_images, pixels_of
from PIL import Image

from agebench.data import packed as packed_module
from agebench.data import split as splits
from agebench.data.packed import PackedImages
from agebench.data.sources.cacd import CACD
from agebench.data.sources.folder import Folder
from agebench.data.split import PARTS
from agebench.errors import UserError


def source_at(root: Path | str, seed: int) -> Memory:
    """Return a source with a folder; names and stamps are always the same, the pixels depend on the seed."""
    source = Memory(np.random.default_rng(seed).integers(0, 256, (60, 9, 7, 3), dtype=np.uint8))
    source.root = root  # type: ignore[attr-defined]  # as sources of files have
    return source


def shrink(source: Memory, row: int, *, size: int = 5, channels: int = 3) -> np.ndarray:
    """Return the resized pixels of one row, uint8, shape (size, size, channels)."""
    image = Image.fromarray(source.images[row]).convert("L" if channels == 1 else "RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, channels)


def write_pets(root: Path) -> Folder:
    """Write 24 pets, of which one is not an image and another is truncated."""
    rng = np.random.default_rng(0)
    for name in "abcdefghijkl":
        for kind in ("cat", "dog"):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / kind / f"{name}.png")
    (root / "dog" / "f.png").write_text("<html>")
    (root / "cat" / "b.png").write_bytes((root / "cat" / "b.png").read_bytes()[:-60])
    return Folder(str(root))


def test_planning_and_packing_again_decodes_no_image_twice(tmp_path: Path) -> None:
    source, again = Memory(), Memory()

    pack_images(tmp_path, source)
    pack_images(tmp_path, again, partial(splits.random, seed=5))  # another split of the same images

    assert source.opened == 60
    assert again.opened == 0


def test_two_folders_with_the_same_names_do_not_share_pixels(tmp_path: Path) -> None:
    here, there = source_at(tmp_path / "here", seed=1), source_at(tmp_path / "there", seed=2)

    first, second = pack_images(tmp_path / "cache", here), pack_images(tmp_path / "cache", there)

    assert first.store.folder != second.store.folder
    for images, source in ((first, here), (second, there)):
        row = int(images.plan.split.test[0])
        np.testing.assert_array_equal(pixels_of(images, "test")[0], shrink(source, row).transpose(2, 0, 1))


def test_a_relative_and_an_absolute_path_of_a_folder_share_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    again = source_at("faces", seed=1)
    pack_images(tmp_path / "cache", source_at(tmp_path / "faces", seed=1))

    pack_images(tmp_path / "cache", again)

    assert again.opened == 0


def test_two_classes_of_source_with_the_same_names_do_not_share_a_store(tmp_path: Path) -> None:
    class Other(Memory):
        """Reads the same names in another way."""

    other = Other()
    pack_images(tmp_path)

    pack_images(tmp_path, other)

    assert other.opened == 60


def test_images_that_a_limit_leaves_out_are_not_opened(tmp_path: Path) -> None:
    source = Memory()

    images = pack_images(tmp_path, source, limit=4)

    assert images.plan.counts == {"train": 4, "val": 4, "test": 4}
    assert source.opened == 12
    assert images.num_bytes == 12 * 3 * 5 * 5


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_numpy_over_the_train_part(tmp_path: Path, channels: int) -> None:
    source = Memory()
    images = pack_images(tmp_path, source, channels=channels, size=6)

    mean, std = images.statistics()

    train = np.stack([shrink(source, row, size=6, channels=channels) for row in images.plan.split.train])
    values = train.reshape(-1, channels).astype(np.float64) / 255  # (n, 6, 6, C) -> (36 n, C)
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, values.std(0), rtol=1e-12)


def test_statistics_are_cached_for_each_train_part(tmp_path: Path) -> None:
    first = pack_images(tmp_path).statistics()
    file = next(tmp_path.glob("*/statistics-*.json"))
    file.write_text('{"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}')

    again = pack_images(tmp_path).statistics()
    other = pack_images(tmp_path, per_class=5).statistics()

    assert again == ([0.1, 0.2, 0.3], [1.0, 1.0, 1.0])
    assert other != again
    assert other != first


def test_statistics_are_computed_if_the_cache_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = pack_images(tmp_path / "own").statistics()
    images = pack_images(tmp_path / "shared")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(packed_module, "atomic_write", refuse)

    assert images.statistics() == known


def test_the_deviation_of_constant_images_is_not_zero(tmp_path: Path) -> None:
    for shade in (0, 59, 118, 125, 169, 223, 255):  # for five of them E[x²] - E[x]² is below 0 in float64
        images = pack_images(tmp_path, Memory(np.full((30, 5, 5, 3), shade, dtype=np.uint8)), name=f"flat{shade}")

        mean, std = images.statistics()

        np.testing.assert_allclose(mean, [shade / 255] * 3, atol=1e-12)
        assert std == [1e-3] * 3


def test_threads_that_compute_statistics_at_once_agree(tmp_path: Path) -> None:
    several, results = [pack_images(tmp_path) for _ in range(6)], []
    barrier = threading.Barrier(6)

    def compute(images: PackedImages) -> None:
        barrier.wait()
        results.append(images.statistics())

    threads = [threading.Thread(target=compute, args=(images,)) for images in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 6
    assert all(result == results[0] for result in results)


def test_broken_images_are_listed_and_left_out_by_the_first_and_by_later_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_pets(tmp_path / "pets")

    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            images = pack_images(tmp_path / "cache", source, size=8)

        plan = images.plan
        assert sorted(plan.broken) == ["cat/b.png", "dog/f.png"]
        assert plan.broken["dog/f.png"].startswith("it is not an image in a supported format")
        assert "2 of the used images cannot be decoded" in caplog.text
        assert "dog/f.png" in caplog.text
        assert sum(plan.counts.values()) == 22
        for part in PARTS:
            names = plan.records.names[plan.split.part(part)]
            files = np.stack([np.asarray(Image.open(tmp_path / "pets" / name)) for name in names])
            np.testing.assert_array_equal(pixels_of(images, part).transpose(0, 2, 3, 1), files)


def test_a_broken_image_is_an_error_if_all_are_required(tmp_path: Path) -> None:
    source = write_pets(tmp_path / "pets")

    with pytest.raises(UserError, match=r"data\.require_all=true needs every image") as caught:
        pack_images(tmp_path / "cache", source, require_all=True)

    assert "\n" not in str(caught.value)


def test_a_data_set_of_broken_images_is_an_error(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for i in range(9):
            (tmp_path / "pets" / kind / f"{i}.png").touch()

    with pytest.raises(UserError, match=r"leaves no image in train"):
        pack_images(tmp_path / "cache", Folder(str(tmp_path / "pets")))


def test_metadata_added_later_does_not_mix_up_the_pixels(tmp_path: Path) -> None:
    root = tmp_path / "cacd"
    root.mkdir()
    names = [f"{age}_Person_{age % 7}_0001.jpg" for age in range(20, 60)]
    for name in names:
        Image.new("L", (6, 6), int(name[:2])).save(root / name, "PNG")
    options = {"target": "bins", "bins": [40], "name": "cacd", "channels": 1}
    pack_images(tmp_path / "cache", CACD(str(root)), **options)  # type: ignore[arg-type]
    cells = np.empty((40, 1), dtype=object)
    cells[:, 0] = names[::-1]
    fields = {field: np.ones((40, 1)) for field in ("identity", "year", "rank", "lfw", "birth")}
    fields |= {"age": np.array([[int(name[:2])] for name in names[::-1]]), "name": cells}
    scipy.io.savemat(root / "celebrity2000_meta.mat", {"celebrityImageData": fields})

    images = pack_images(tmp_path / "cache", CACD(str(root)), **options)  # type: ignore[arg-type]

    assert images.plan.records.names.tolist() == names
    for part in PARTS:
        ages = images.plan.records.columns["age"][images.plan.split.part(part)]
        assert pixels_of(images, part)[:, 0, 0, 0].tolist() == ages.tolist()
