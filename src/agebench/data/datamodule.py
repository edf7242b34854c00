"""The LightningDataModule: batches of packed images, with the pixels on the GPU, in RAM or on the disk."""

import warnings
from collections.abc import Iterator
from functools import partial

import lightning as L
import numpy as np
import torch

from agebench.data.loader import Batch, BatchSampler, Pixels, TimedLoader
from agebench.data.packed import PackedImages
from agebench.data.plan import Plan
from agebench.data.residency import choose_residency
from agebench.data.split import PARTS
from agebench.errors import UserError

COPIED_AT_ONCE = 1024  # images per copy; copying all at once would double the RAM that they need


class ImageDataModule(L.LightningDataModule):
    """Batches of uint8 images with their labels.

    Args:
        images: Packed images and their plan.
        batch_size: Images per training step over all devices together, or `full` for the whole train part.
        eval_batch_size: Images per step of validation and test over all devices; affects speed and memory only.
        residency: Where the pixels are during training: `gpu`, `ram`, `mapped`, or `auto` for the first that fits.
        num_workers: Processes that gather batches. 0, the fastest, gathers in the training process.
        seed: Random seed of the order of the training images.
    """

    where: str | None = None  # the pixels are during training: gpu, ram or mapped; set when a trainer starts

    def __init__(
        self,
        images: PackedImages,
        *,
        batch_size: int | str,
        seed: int,
        eval_batch_size: int = 256,
        residency: str = "auto",
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.images = images
        self._batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.residency, self.num_workers, self.seed = residency, num_workers, seed
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")  # nothing writes to the pixels
            pixels = torch.from_numpy(images.pixels)
        plan = images.plan
        self._parts = {
            part: Pixels(
                pixels,
                torch.from_numpy(plan.rows[plan.split.part(part)]),
                torch.from_numpy(plan.target.labels[plan.split.part(part)]),
            )
            for part in PARTS
        }

    @property
    def plan(self) -> Plan:
        """Records, labels and split."""
        return self.images.plan

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of an image, (C, S, S)."""
        _, channels, height, width = self.images.store.shape
        return channels, height, width

    @property
    def batch_size(self) -> int:
        """Images per training step over all devices together."""
        return len(self._parts["train"]) if self._batch_size == "full" else int(self._batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of one epoch."""
        return len(BatchSampler(len(self._parts["train"]), self.batch_size, shuffle=True))

    def part(self, name: str) -> Pixels:
        """Return the images of train, val or test."""
        return self._parts[name]

    def place_pixels(self, device: torch.device) -> str:
        """Move the pixels to the device or into RAM for training, and return `gpu`, `ram` or `mapped`.

        Args:
            device: The training device.
        """
        size = self.images.num_bytes
        where = choose_residency(self.residency, size, device=device, num_workers=self.num_workers)
        rows = self.plan.rows[self.plan.used]
        if where == "ram":
            self.images.store.warm(rows)
        if where == "gpu":
            self._copy_to(device, rows)
        return where

    def _copy_to(self, device: torch.device, rows: np.ndarray) -> None:
        """Copy the given rows of the store to a device, and make all parts read from there."""
        pixels = self._parts["train"].store
        resident = torch.empty((len(rows), *pixels.shape[1:]), dtype=torch.uint8, device=device)
        for first in range(0, len(rows), COPIED_AT_ONCE):
            chunk = torch.from_numpy(rows[first : first + COPIED_AT_ONCE])
            resident[first : first + COPIED_AT_ONCE] = pixels.index_select(0, chunk).to(device)
        for name, part in self._parts.items():
            at = torch.from_numpy(np.searchsorted(rows, part.rows.numpy()))
            self._parts[name] = Pixels(resident, at.to(device), part.target.to(device))

    def statistics_batches(self) -> Iterator[Batch]:
        """Yield the training batches of the first epoch, complete in each process."""
        part = self._parts["train"]
        return part.batches(BatchSampler(len(part), self.batch_size, shuffle=True, seed=self.seed))

    def train_dataloader(self) -> TimedLoader:
        """Return the training batches, in a new order each epoch."""
        return self._loader("train", self.batch_size, shuffle=True)

    def val_dataloader(self) -> TimedLoader:
        """Return the validation batches, with every image once."""
        return self._loader("val", self.eval_batch_size, shuffle=False)

    def test_dataloader(self) -> TimedLoader:
        """Return the test batches, with every image once."""
        return self._loader("test", self.eval_batch_size, shuffle=False)

    def _loader(self, part: str, batch_size: int, *, shuffle: bool) -> TimedLoader:
        if self.trainer and self.where is None:
            self.where = self.place_pixels(self.trainer.strategy.root_device)
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        count = len(self._parts[part])
        sampler = BatchSampler(count, batch_size, shuffle=shuffle, seed=self.seed, rank=rank, world=world)
        # Batch norm needs two images per device in training. In evaluation each device needs at least one image.
        smallest, each = (min(batch_size, count), 2) if shuffle else (count // len(sampler), 1)
        if world > 1 and smallest < each * world:
            key = "data.batch_size" if shuffle else "data.eval_batch_size"
            raise UserError(
                f"{world} devices cannot share a {part} batch of {smallest}, because each needs {each} of its images: "
                f"raise {key}, or use more data or fewer devices"
            )
        # batch_size=None, because the sampler yields complete batches, which the data set gathers in one operation.
        # The loader has its own generator. Otherwise it would use that of augmentation and dropout.
        generator = torch.Generator().manual_seed(self.seed)
        make = partial(TimedLoader, self._parts[part], sampler=sampler, batch_size=None, generator=generator)
        pin = torch.cuda.is_available() and self._parts[part].store.device.type == "cpu"
        if self.num_workers == 0:
            return make(pin_memory=pin)
        return make(num_workers=self.num_workers, persistent_workers=True, pin_memory=pin)
