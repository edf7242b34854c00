"""Source, target, split and store put together."""

import logging
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from agebench.build.data import LOADED, PLANNED
from agebench.data import packed as packed_module
from agebench.data import split as splits
from agebench.data.datamodule import ImageDataModule
from agebench.data.packed import PackedImages, pack
from agebench.data.plan import Planner
from agebench.data.records import Records
from agebench.data.resize import Resize
from agebench.data.sources.cacd import CACD
from agebench.data.sources.digits import Digits
from agebench.data.sources.folder import Folder
from agebench.data.sources.table import Table
from agebench.data.split import PARTS
from agebench.errors import UserError

COLUMNS = {"path": "path", "label": "label", "identity": "identity", "split": "split"}


class Memory:
    """Images from memory: 60 of two classes and of ages 10 to 69, and a count of how often they are opened."""

    channels = 3
    targets = ("class", "age", "decade", "bins")

    def __init__(self, images: np.ndarray | None = None, *, gone: tuple[int, ...] = ()) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (60, 9, 7, 3), dtype=np.uint8) if images is None else images
        self.gone, self.opened = gone, 0

    def prepare(self) -> None: ...

    def records(self) -> Records:
        count = len(self.images)
        columns = {"class": np.arange(count) % 2, "age": np.arange(count) + 10}
        return Records(np.array([f"{i:02d}.png" for i in range(count)]), columns, ("even", "odd"))

    def present(self) -> np.ndarray:
        return ~np.isin(np.arange(len(self.images)), self.gone)

    def open(self, row: int) -> Image.Image:
        self.opened += 1
        return Image.fromarray(self.images[row])

    def stamps(self, rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), 7, dtype=np.uint64)

    def reading_order(self, rows: np.ndarray) -> np.ndarray:
        return rows


SETTINGS: dict[str, Any] = {"name": "mine", "target": "class", "image_size": 5, "channels": 3, "batch_size": 8}
SETTINGS |= {"seed": 0}


def planner(source: Any = None, split: Any = splits.random, **changes: Any) -> Planner:
    settings = SETTINGS | changes
    return Planner(source or Memory(), split, **{key: settings[key] for key in PLANNED if key in settings})


def packed(cache: Path, source: Any = None, split: Any = splits.random, **changes: Any) -> PackedImages:
    settings, how = SETTINGS | changes, planner(source, split, **changes)
    resize = Resize(settings["image_size"], settings["channels"])
    return pack(how.source, how.plan(), resize=resize, cache=cache, require_all=how.require_all)


def module(cache: Path, source: Any = None, split: Any = splits.random, **changes: Any) -> ImageDataModule:
    settings = SETTINGS | changes
    loaded = {key: settings[key] for key in (*LOADED, "seed") if key in settings}
    return ImageDataModule(packed(cache, source, split, **changes), **loaded)


def test_every_part_holds_the_pixels_and_labels_of_its_rows(tmp_path: Path) -> None:
    source = Memory(gone=(0, 17))
    data = module(tmp_path, source)

    left = [i for i in range(60) if i not in (0, 17)]
    for name in PARTS:
        part = data.part(name)
        batch = part[torch.arange(len(part))]
        for row, pixels, label in zip(data.plan.split.part(name), batch.images, batch.target, strict=True):
            original = left[row]
            small = Image.fromarray(source.images[original]).resize((5, 5), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(pixels.numpy(), np.asarray(small).transpose(2, 0, 1))
            assert int(label) == original % 2
            assert data.plan.records.names[row] == f"{original:02d}.png"
    assert data.plan.counts == {"train": 46, "val": 6, "test": 6}  # of 58; a tenth is 5.8


def test_the_protocol_names_data_split_and_target(tmp_path: Path) -> None:
    kfold = partial(splits.kfold, k=3, fold=1)
    cases = [
        (planner(), "mine/random/class"),
        (planner(target="age", limit=5, name="faces"), "faces/random-limit5/age"),
        (planner(target="bins", bins=[18, 30.5], per_class=3), "mine/random-per3/bins-18-30.5"),
        (planner(Memory(), partial(splits.lecture, per_label=10)), "mine/lecture/class"),
    ]

    protocols = [each.plan().protocol for each, _ in cases]

    assert protocols == [expected for _, expected in cases]
    with pytest.raises(UserError, match="needs the identity in each image"):
        planner(Memory(), kfold).plan()


def test_planning_opens_no_image_and_leaves_no_file(tmp_path: Path) -> None:
    source = Memory()

    plan = planner(source).plan()

    assert plan.counts == {"train": 48, "val": 6, "test": 6}
    assert source.opened == 0
    assert not (tmp_path / "cache").exists()


def test_images_are_packed_once_however_often_it_is_set_up(tmp_path: Path) -> None:
    source, again = Memory(), Memory()

    packed(tmp_path, source)
    packed(tmp_path, again, partial(splits.random, seed=5))  # another split of the same images

    assert source.opened == 60
    assert again.opened == 0


def lying_at(root: Path | str, seed: int) -> Memory:
    """Return a source that lies in a folder: names and stamps are always the same, the pixels are by the seed."""
    source = Memory(np.random.default_rng(seed).integers(0, 256, (60, 9, 7, 3), dtype=np.uint8))
    source.root = root  # type: ignore[attr-defined]  # sources of files have one
    return source


def shrunk(source: Memory, row: int) -> np.ndarray:
    small = Image.fromarray(source.images[row]).resize((5, 5), Image.Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1)


def test_two_folders_with_the_same_names_do_not_share_their_pixels(tmp_path: Path) -> None:
    here, there = lying_at(tmp_path / "here", seed=1), lying_at(tmp_path / "there", seed=2)
    first, second = module(tmp_path / "cache", here), module(tmp_path / "cache", there)

    assert first.images.store.folder != second.images.store.folder
    for data, source in ((first, here), (second, there)):
        row = int(data.plan.split.test[0])
        np.testing.assert_array_equal(data.part("test")[torch.tensor([0])].images[0].numpy(), shrunk(source, row))


def test_one_folder_has_one_store_however_its_path_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    again = lying_at("faces", seed=1)
    module(tmp_path / "cache", lying_at(tmp_path / "faces", seed=1))

    module(tmp_path / "cache", again)

    assert again.opened == 0


def test_two_kinds_of_source_with_the_same_names_do_not_share_a_store(tmp_path: Path) -> None:
    class Other(Memory):
        """Reads the same names in another way."""

    other = Other()
    module(tmp_path)

    module(tmp_path, other)

    assert other.opened == 60


def test_images_that_a_limit_leaves_out_are_never_opened(tmp_path: Path) -> None:
    source = Memory()
    data = module(tmp_path, source, limit=4)

    assert data.plan.counts == {"train": 4, "val": 4, "test": 4}
    assert source.opened == 12
    assert data.images.num_bytes == 12 * 3 * 5 * 5


def test_full_is_the_whole_train_part(tmp_path: Path) -> None:
    data = module(tmp_path, batch_size="full")

    batches = list(data.train_dataloader())

    assert (data.batch_size, data.steps_per_epoch) == (48, 1)
    assert [sorted(batch.rows.tolist()) for batch in batches] == [list(range(48))]


def test_training_steps_shuffle_and_evaluation_does_not(tmp_path: Path) -> None:
    data = module(tmp_path, batch_size=10, eval_batch_size=4)

    train = [batch.rows.tolist() for batch in data.train_dataloader()]
    tests = [batch.rows.tolist() for batch in data.test_dataloader()]
    vals = [batch.rows.tolist() for batch in data.val_dataloader()]

    assert [len(rows) for rows in train] == [10, 10, 10, 10, 8]
    assert data.steps_per_epoch == 5
    order = [row for rows in train for row in rows]
    assert sorted(order) == list(range(48))
    assert order != list(range(48))
    assert tests == vals == [[0, 1, 2], [3, 4, 5]]


def test_the_seed_decides_the_order_and_not_who_is_in_train(tmp_path: Path) -> None:
    first, other = module(tmp_path, seed=0), module(tmp_path, seed=1)

    assert first.plan.split.train.tolist() == other.plan.split.train.tolist()
    assert next(iter(first.train_dataloader())).rows.tolist() != next(iter(other.train_dataloader())).rows.tolist()


def test_workers_give_the_batches_that_the_process_itself_would(tmp_path: Path) -> None:
    alone, helped = module(tmp_path, batch_size=20), module(tmp_path, batch_size=20, num_workers=2)
    one, two = alone.train_dataloader(), helped.train_dataloader()

    for epoch in (0, 1):
        for loader in (one, two):
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # Lightning does this
        for a, b in zip(one, two, strict=True):
            for x, y in zip(a, b, strict=True):
                assert torch.equal(x, y)


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_numpys_over_the_train_part(tmp_path: Path, channels: int) -> None:
    source = Memory()
    images = packed(tmp_path, source, channels=channels, image_size=6)

    mean, std = images.statistics()

    def shrink(row: int) -> np.ndarray:
        image = Image.fromarray(source.images[row]).convert("L" if channels == 1 else "RGB")
        return np.asarray(image.resize((6, 6), Image.Resampling.BILINEAR)).reshape(36, channels)

    train = np.concatenate([shrink(row) for row in images.plan.split.train]).astype(np.float64) / 255
    np.testing.assert_allclose(mean, train.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, train.std(0), rtol=1e-12)


def test_statistics_are_worked_out_once_and_anew_for_another_train_part(tmp_path: Path) -> None:
    first = packed(tmp_path).statistics()
    file = next(tmp_path.glob("*/statistics-*.json"))
    file.write_text('{"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}')

    again = packed(tmp_path).statistics()
    other = packed(tmp_path, per_class=5).statistics()

    assert again == ([0.1, 0.2, 0.3], [1.0, 1.0, 1.0])
    assert other != again
    assert other != first


def test_statistics_that_cannot_be_kept_are_worked_out_all_the_same(tmp_path: Path, monkeypatch) -> None:
    known = packed(tmp_path / "own").statistics()
    images = packed(tmp_path / "others")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(packed_module, "atomic_write", refuse)

    assert images.statistics() == known


def test_images_of_one_shade_have_a_deviation_that_one_can_divide_by(tmp_path: Path) -> None:
    for shade in (0, 59, 118, 125, 169, 223, 255):  # E[x²] - E[x]² is below 0 in float64 for five of them
        images = packed(tmp_path, Memory(np.full((30, 5, 5, 3), shade, dtype=np.uint8)), name=f"flat{shade}")

        mean, std = images.statistics()

        np.testing.assert_allclose(mean, [shade / 255] * 3, atol=1e-12)
        assert std == [1e-3] * 3


def test_statistics_asked_for_by_several_at_once_are_the_same(tmp_path: Path) -> None:
    several, answers = [packed(tmp_path) for _ in range(6)], []
    together = threading.Barrier(6)

    def ask(images: PackedImages) -> None:
        together.wait()
        answers.append(images.statistics())

    threads = [threading.Thread(target=ask, args=(images,)) for images in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 6
    assert all(answer == answers[0] for answer in answers)


def test_missing_images_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        plan = planner(Memory(gone=(3, 8, 20, 21))).plan()

    assert plan.missing.tolist() == ["03.png", "08.png", "20.png", "21.png"]
    assert len(plan.records) == 56
    assert "4 of the 60 images that data=mine lists do not exist, such as 03.png, 08.png, 20.png" in caplog.text
    assert "used are train 44, val 6, test 6" in caplog.text


def test_a_label_whose_images_are_missing_keeps_its_place(tmp_path: Path) -> None:
    target = planner(Memory(gone=tuple(range(10))), target="decade").plan().target

    assert target.label_names[0] == "10s"
    assert target.num_labels == 6
    assert target.labels.min() == 1


def test_a_data_set_without_any_image_says_where_to_look(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("path,label\n" + "".join(f"{i}.png,cat\n" for i in range(1200)))

    with pytest.raises(UserError, match=r"lists 1,200 images and none of them exists .*0\.png.*check data\.root"):
        planner(Table(str(tmp_path / "mine.csv"), COLUMNS)).plan()


def pets(root: Path) -> Folder:
    """Write 24 pets, of which one is no image and another is cut short."""
    rng = np.random.default_rng(0)
    for name in "abcdefghijkl":
        for kind in ("cat", "dog"):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / kind / f"{name}.png")
    (root / "dog" / "f.png").write_text("<html>")
    (root / "cat" / "b.png").write_bytes((root / "cat" / "b.png").read_bytes()[:-60])
    return Folder(str(root))


def test_broken_images_are_listed_and_left_out_the_first_time_and_every_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = pets(tmp_path / "pets")

    for _ in range(2):
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            data = module(tmp_path / "cache", source, image_size=8)

        assert sorted(data.plan.broken) == ["cat/b.png", "dog/f.png"]
        assert data.plan.broken["dog/f.png"].startswith("it is no image of a kind that is read")
        assert "2 of the used images cannot be decoded" in caplog.text
        assert "dog/f.png" in caplog.text
        assert sum(data.plan.counts.values()) == 22
        for name in PARTS:
            rows = data.plan.split.part(name)
            files = [np.asarray(Image.open(tmp_path / "pets" / n)) for n in data.plan.records.names[rows]]
            images = data.part(name)[torch.arange(len(rows))].images
            np.testing.assert_array_equal(images.numpy().transpose(0, 2, 3, 1), np.stack(files))


@pytest.mark.parametrize("loss", ["missing", "broken"])
def test_whoever_wants_every_image_is_told_of_any_loss(tmp_path: Path, loss: str) -> None:
    source = Memory(gone=(3,)) if loss == "missing" else pets(tmp_path / "pets")

    with pytest.raises(UserError, match=r"data\.require_all=true needs every image") as caught:
        packed(tmp_path / "cache", source, require_all=True)

    assert "\n" not in str(caught.value)


def test_images_that_are_all_broken_are_an_error(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for i in range(9):
            (tmp_path / "pets" / kind / f"{i}.png").touch()

    with pytest.raises(UserError, match=r"leaves no image in train"):
        packed(tmp_path / "cache", Folder(str(tmp_path / "pets")))


def test_a_plan_of_all_that_is_listed_needs_no_file(tmp_path: Path) -> None:
    plan = planner(Memory(gone=tuple(range(60)))).plan(listed=True)

    assert sum(plan.counts.values()) == 60
    assert len(plan.missing) == 0


def test_metadata_that_comes_later_does_not_get_the_pixels_of_another_order(tmp_path: Path) -> None:
    root = tmp_path / "cacd"
    root.mkdir()
    names = [f"{age}_Person_{age % 7}_0001.jpg" for age in range(20, 60)]
    for name in names:
        Image.new("L", (6, 6), int(name[:2])).save(root / name, "PNG")
    flat: Any = partial(module, tmp_path / "cache", split=splits.random, target="age", name="cacd", channels=1)
    flat(CACD(str(root)), limit=None, target="bins", bins=[40])
    cells = np.empty((40, 1), dtype=object)
    cells[:, 0] = names[::-1]
    fields = {field: np.ones((40, 1)) for field in ("identity", "year", "rank", "lfw", "birth")}
    fields |= {"age": np.array([[int(name[:2])] for name in names[::-1]]), "name": cells}
    scipy.io.savemat(root / "celebrity2000_meta.mat", {"celebrityImageData": fields})

    data = flat(CACD(str(root)), target="bins", bins=[40])

    assert data.plan.records.names.tolist() == names
    for name in PARTS:
        rows = data.plan.split.part(name)
        batch = data.part(name)[torch.arange(len(rows))]
        assert batch.images[:, 0, 0, 0].tolist() == data.plan.records.columns["age"][rows].tolist()


def test_a_split_that_validates_on_its_test_part_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        planner(Memory(), splits.lecture).plan()

    assert "validates on its test images" in caplog.text


def test_a_split_that_leaves_a_part_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leaves no image in val"):
        module(tmp_path, Memory(np.zeros((4, 5, 5, 3), dtype=np.uint8))).plan()


def on(devices: int, data: ImageDataModule, rank: int = 0) -> ImageDataModule:
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=devices, strategy=strategy)  # type: ignore[assignment]
    return data


def test_two_devices_see_the_images_of_one_step_between_them(tmp_path: Path) -> None:
    alone = module(tmp_path, batch_size=10)
    shares = [on(2, module(tmp_path, batch_size=10), rank) for rank in (0, 1)]
    steps = zip(alone.train_dataloader(), *(data.train_dataloader() for data in shares), strict=True)

    for whole, first, second in steps:
        assert whole.rows[0::2].tolist() == first.rows.tolist()
        assert whole.rows[1::2].tolist() == second.rows.tolist()


def test_devices_that_would_get_one_image_or_none_are_refused(tmp_path: Path) -> None:
    data = module(tmp_path, batch_size=5, eval_batch_size=5)  # six of val and test: two batches of three

    with pytest.raises(UserError, match=r"3 devices cannot share a train batch of 5.* 2 .*raise data\.batch_size"):
        on(3, data).train_dataloader()
    with pytest.raises(UserError, match=r"4 devices cannot share a val batch of 3.*raise data\.eval_batch_size"):
        on(4, data).val_dataloader()
    assert len(on(2, data).train_dataloader()) == 9  # of 48: nine fives, and three are too few for two devices
    assert len(on(3, data).test_dataloader()) == 2


def test_grey_digits_go_through_as_they_are(tmp_path: Path) -> None:
    data = module(tmp_path, Digits(), channels=1, image_size=8)

    raw = np.stack([np.asarray(Digits().open(row)) for row in data.plan.split.train[:3].tolist()])
    first = data.part("train")[torch.arange(3)].images
    np.testing.assert_array_equal(first[:, 0].numpy(), raw)
    assert data.plan.counts == {"train": 1437, "val": 180, "test": 180}
