"""The images of each step, on one and on several devices."""

import time

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from agebench.data.loader import BatchSampler, Pixels, TimedLoader

COUNTS = [1, 2, 3, 4, 5, 7, 8, 16, 17, 31, 32, 33, 100]
SIZES = [1, 2, 3, 4, 6, 8, 32, 100, 256]


def batches(
    count: int, size: int, *, shuffle: bool, epoch: int = 0, seed: int = 0, rank: int = 0, world: int = 1
) -> list[list[int]]:
    sampler = BatchSampler(count, size, shuffle=shuffle, seed=seed, rank=rank, world=world)
    sampler.set_epoch(epoch)
    yielded = [batch.tolist() for batch in sampler]
    assert len(sampler) == len(yielded)
    return yielded


@pytest.mark.parametrize("count", COUNTS)
def test_an_epoch_is_full_batches_and_a_rest_of_at_least_two_images(count: int) -> None:
    for size in SIZES:
        epoch = batches(count, size, shuffle=True)

        # Independent computation: drop a last batch of one image, unless the batch size is one.
        expected = [min(size, count - start) for start in range(0, count, size)]
        if expected[-1] == 1 and size > 1:
            expected.pop()
        assert [len(batch) for batch in epoch] == expected, size
        rows = [row for batch in epoch for row in batch]
        assert len(set(rows)) == len(rows)
        assert set(rows) <= set(range(count))


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2**32 - 1, 0)]

    orders = [batches(50, 8, shuffle=True, seed=seed, epoch=epoch) for seed, epoch in pairs]
    again = [batches(50, 8, shuffle=True, seed=seed, epoch=epoch) for seed, epoch in pairs]

    assert orders == again
    assert len({str(order) for order in orders}) == len(pairs)
    assert sorted(orders[0][0]) != list(range(8))


def test_epochs_leave_out_different_images() -> None:
    left_out = {
        (set(range(9)) - {row for batch in batches(9, 4, shuffle=True, epoch=epoch) for row in batch}).pop()
        for epoch in range(20)
    }

    assert len(left_out) > 3


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("count", "size"), [(64, 16), (70, 16), (33, 33), (50, 12), (100, 7)])
def test_processes_share_the_batches_of_a_single_process(count: int, size: int, shuffle: bool, world: int) -> None:
    alone = batches(count, size, shuffle=shuffle, epoch=2)
    shares = [batches(count, size, shuffle=shuffle, epoch=2, rank=rank, world=world) for rank in range(world)]

    if shuffle and len(alone[-1]) < 2 * world:
        alone.pop()  # too small to give every process two images
    assert [len(share) for share in shares] == [len(alone)] * world
    for step, batch in enumerate(alone):
        for rank in range(world):
            assert shares[rank][step] == batch[rank::world]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [size for size in SIZES if size >= 8])
def test_no_process_trains_on_a_single_image(size: int, world: int) -> None:
    for count in COUNTS:
        shares = [batches(count, size, shuffle=True, rank=rank, world=world) for rank in range(world)]

        assert min((len(batch) for share in shares for batch in share), default=2) >= 2, count


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", COUNTS)
def test_evaluation_uses_every_image_once_in_even_batches(count: int, world: int) -> None:
    for size in SIZES:
        shares = [batches(count, size, shuffle=False, epoch=3, rank=rank, world=world) for rank in range(world)]

        assert sorted(row for share in shares for batch in share for row in batch) == list(range(count)), size
        steps = [sum(len(share[step]) for share in shares) for step in range(len(shares[0]))]
        assert max(steps) - min(steps) <= 1
        assert max(steps) <= size
        assert len(steps) == -(-count // size)
        if world == 1:
            assert [row for batch in shares[0] for row in batch] == list(range(count))


def test_a_batch_equals_indexing_with_numpy() -> None:
    rng = np.random.default_rng(0)
    store = rng.integers(0, 256, (20, 3, 4, 4), dtype=np.uint8)
    rows, target = rng.permutation(20)[:8], rng.integers(0, 5, 8)
    part = Pixels(torch.from_numpy(store), torch.from_numpy(rows), torch.from_numpy(target))
    index = np.array([5, 0, 7])

    batch = part[torch.from_numpy(index)]

    assert len(part) == 8
    np.testing.assert_array_equal(batch.images.numpy(), store[rows[index]])
    np.testing.assert_array_equal(batch.target.numpy(), target[index])
    np.testing.assert_array_equal(batch.rows.numpy(), index)
    assert batch.images.dtype == torch.uint8


class Slow(Dataset[int]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        time.sleep(0.03)
        return index


def test_the_loader_measures_the_wait_for_batches_only() -> None:
    loader = TimedLoader(Slow(), batch_size=None)

    start = time.perf_counter()
    seen = []
    for batch in loader:
        time.sleep(0.2)
        seen.append(batch)
    elapsed = time.perf_counter() - start

    assert seen == [0, 1, 2]
    assert 0.09 <= loader.wait_s <= elapsed - 0.6
