"""Batches of packed pixels, each gathered by one indexing operation."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

GATHERED_BYTES = 1 << 22  # per indexing operation: many small batches share its cost


class Batch(NamedTuple):
    """The images and labels of one step."""

    images: Tensor  # (B, C, S, S) uint8
    target: Tensor  # (B,) int64, label indices in [0, R)
    rows: Tensor  # (B,) int64, row of each image in its part


class BatchSampler(Sampler[Tensor]):
    """Yields the rows of one batch at a time, int64, shape (B,).

    The batches of an epoch depend only on (seed, epoch) and are the same for any number of processes: each process
    takes every world-th image of every batch. A step on N devices therefore has the same images as on one device.

    Args:
        count: Images in the part.
        batch_size: Images per step over all processes together.
        shuffle: True for training: a new order each epoch. The last batch is dropped if it is too small to give every
            process two images, because batch norm fails with one. False for evaluation: every image exactly once, in
            order, in batches whose sizes differ by at most one, so that all processes have the same number of steps.
        seed: Seed of the order.
        rank: Rank of this process, in [0, world).
        world: Number of processes.
    """

    def __init__(
        self, count: int, batch_size: int, *, shuffle: bool, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.count, self.batch_size, self.shuffle, self.seed = count, batch_size, shuffle, seed
        self.rank, self.world, self.epoch = rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of steps."""
        full, rest = divmod(self.count, self.batch_size)
        if not self.shuffle:
            return full + bool(rest)
        smallest = min(2 * self.world, self.batch_size)
        return full + (rest >= smallest)

    def __iter__(self) -> Iterator[Tensor]:
        steps = len(self)
        if self.shuffle:
            generator = torch.Generator().manual_seed((self.seed << 20) + self.epoch)
            order = torch.randperm(self.count, generator=generator)
            batches = order.split(self.batch_size)[:steps]
        else:
            batches = torch.arange(self.count).tensor_split(steps)
        for batch in batches:
            yield batch if self.world == 1 else batch[self.rank :: self.world]


class Pixels(Dataset[Batch]):
    """The images of one part, memory-mapped or on a device. Each index is an array with the rows of a batch.

    Args:
        store: Packed pixels, uint8, shape (N, C, S, S), on any device.
        rows: Rows of the store that belong to the part, int64, shape (n,), on the same device.
        target: Their label indices, int64, shape (n,), on the same device.
    """

    def __init__(self, store: Tensor, rows: Tensor, target: Tensor) -> None:
        self.store, self.rows, self.target = store, rows, target

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor) -> Batch:
        index = index.to(self.store.device, non_blocking=True)
        # On a CPU this is ten times as fast as store[rows].
        return Batch(self.store.index_select(0, self.rows[index]), self.target[index], index)

    def batches(self, indices: Iterable[Tensor]) -> Iterator[Batch]:
        """Yield the batch of each index. Small batches are gathered together to reduce the overhead per call.

        Args:
            indices: Rows of the part for each batch, int64, shape (B,).
        """
        max_images = GATHERED_BYTES // max(1, self.store[:1].numel())
        waiting: list[Tensor] = []
        images = 0
        for index in indices:
            if waiting and images + len(index) > max_images:
                yield from self._gather(waiting)
                waiting, images = [], 0
            waiting.append(index)
            images += len(index)
        if waiting:
            yield from self._gather(waiting)

    def _gather(self, indices: list[Tensor]) -> Iterator[Batch]:
        sizes = [len(index) for index in indices]
        columns = (column.split(sizes) for column in self[torch.cat(indices)])
        return map(Batch._make, zip(*columns, strict=True))


class TimedLoader(DataLoader[Any]):
    """A DataLoader of complete batches (batch_size=None) that measures how long training waits for it.

    Without workers it bypasses the iterator of PyTorch, which takes longer than gathering the batches.

    Attributes:
        wait_s: Seconds of waiting for batches since the loader was created.
    """

    wait_s: float = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # DataLoader names a private iterator class
        direct = self.num_workers == 0 and not self.pin_memory and isinstance(self.dataset, Pixels)
        pixels: Any = self.dataset
        batches = pixels.batches(self.sampler) if direct else super().__iter__()
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.wait_s += time.perf_counter() - start
            if batch is None:
                return
            yield batch
