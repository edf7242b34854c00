"""The LightningDataModule: pixels, labels and order of batches, on one and on several devices."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from memory_source import Memory, pack_images
from PIL import Image
from torch.utils.data import DataLoader

from agebench.data.datamodule import ImageDataModule
from agebench.data.sources.digits import Digits
from agebench.data.split import PARTS
from agebench.errors import UserError


def module(cache: Path, source: Any = None, *, batch_size: int | str = 8, seed: int = 0, **options: Any) -> Any:
    return ImageDataModule(pack_images(cache, source), batch_size=batch_size, seed=seed, **options)


def test_every_part_has_the_pixels_and_labels_of_its_rows(tmp_path: Path) -> None:
    source = Memory(missing=(0, 17))
    data = module(tmp_path, source)

    existing = [i for i in range(60) if i not in (0, 17)]
    for name in PARTS:
        part = data.part(name)
        batch = part[torch.arange(len(part))]
        for row, pixels, label in zip(data.plan.split.part(name), batch.images, batch.target, strict=True):
            original = existing[row]
            small = Image.fromarray(source.images[original]).resize((5, 5), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(pixels.numpy(), np.asarray(small).transpose(2, 0, 1))
            assert int(label) == original % 2
            assert data.plan.records.names[row] == f"{original:02d}.png"
    assert data.plan.counts == {"train": 46, "val": 6, "test": 6}  # of 58; a tenth is 5.8


def test_batch_size_full_is_the_complete_train_part(tmp_path: Path) -> None:
    data = module(tmp_path, batch_size="full")

    batches = list(data.train_dataloader())

    assert (data.batch_size, data.steps_per_epoch) == (48, 1)
    assert [sorted(batch.rows.tolist()) for batch in batches] == [list(range(48))]


def test_training_shuffles_and_evaluation_does_not(tmp_path: Path) -> None:
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


def test_the_seed_changes_the_order_but_not_the_split(tmp_path: Path) -> None:
    first, other = module(tmp_path, seed=0), module(tmp_path, seed=1)

    assert first.plan.split.train.tolist() == other.plan.split.train.tolist()
    assert next(iter(first.train_dataloader())).rows.tolist() != next(iter(other.train_dataloader())).rows.tolist()


def test_workers_give_the_same_batches_as_the_training_process(tmp_path: Path) -> None:
    without = module(tmp_path, batch_size=20).train_dataloader()
    workers = module(tmp_path, batch_size=20, num_workers=2).train_dataloader()

    for epoch in (0, 1):
        for loader in (without, workers):
            loader.sampler.set_epoch(epoch)  # as Lightning does
        for expected, batch in zip(without, workers, strict=True):
            for x, y in zip(expected, batch, strict=True):
                assert torch.equal(x, y)


def on_devices(count: int, data: ImageDataModule, rank: int = 0) -> ImageDataModule:
    """Return the data module as it is in process `rank` of `count`."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(global_rank=rank, world_size=count, strategy=strategy)  # type: ignore[assignment]
    return data


def test_two_devices_share_the_images_of_one_step(tmp_path: Path) -> None:
    single = module(tmp_path, batch_size=10)
    shares = [on_devices(2, module(tmp_path, batch_size=10), rank) for rank in (0, 1)]

    steps = zip(single.train_dataloader(), *(data.train_dataloader() for data in shares), strict=True)

    for batch, first, second in steps:
        assert batch.rows[0::2].tolist() == first.rows.tolist()
        assert batch.rows[1::2].tolist() == second.rows.tolist()


def test_devices_with_less_than_two_images_are_refused(tmp_path: Path) -> None:
    data = module(tmp_path, batch_size=5, eval_batch_size=5)  # six images of val and test: two batches of three

    with pytest.raises(UserError, match=r"3 devices cannot share a train batch of 5.* 2 .*raise data\.batch_size"):
        on_devices(3, data).train_dataloader()
    with pytest.raises(UserError, match=r"4 devices cannot share a val batch of 3.*raise data\.eval_batch_size"):
        on_devices(4, data).val_dataloader()
    assert len(on_devices(2, data).train_dataloader()) == 9  # of 48: nine fives; the last three are too few for two
    assert len(on_devices(3, data).test_dataloader()) == 2


def test_a_loader_does_not_use_the_generator_of_dropout(tmp_path: Path) -> None:
    loader = module(tmp_path).train_dataloader()
    before = torch.get_rng_state()

    next(DataLoader.__iter__(loader))  # as with workers, where PyTorch draws a seed for them

    assert torch.equal(torch.get_rng_state(), before)


def test_grey_digits_of_the_right_size_are_unchanged(tmp_path: Path) -> None:
    data = ImageDataModule(pack_images(tmp_path, Digits(), channels=1, size=8), batch_size=8, seed=0)

    first = data.part("train")[torch.arange(3)].images

    raw = np.stack([np.asarray(Digits().open(row)) for row in data.plan.split.train[:3].tolist()])
    np.testing.assert_array_equal(first[:, 0].numpy(), raw)
    assert data.plan.counts == {"train": 1437, "val": 180, "test": 180}
