"""The LightningDataModule: puts a source, a target, a split and a store together."""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import torch
from PIL import Image

from agebench.data import split as splits
from agebench.data.loader import BatchSampler, Pixels, TimedLoader
from agebench.data.protocol import target_name
from agebench.data.records import Array, Records, Source
from agebench.data.residency import choose_residency
from agebench.data.resize import Resize
from agebench.data.split import PARTS, Split
from agebench.data.store import Store, write_whole
from agebench.data.target import Target, make_target
from agebench.errors import UserError

log = logging.getLogger(__name__)


class ImageDataModule(L.LightningDataModule):
    """Batches of uint8 images with their labels, from any source.

    Args:
        source: Where images and what is known of them come from.
        split: Takes (records, labels) and returns who is in train, val and test.
        name: The data set's name in protocols and folders.
        target: `class`, `decade`, `age` or `bins`.
        bins: Lower edges in years, for the target `bins`.
        image_size: Side in px that every image is brought to.
        channels: 1 grey or 3 colour.
        batch_size: Images a training step over all devices together, or `full` for the whole train part.
        eval_batch_size: Images a step of validation and test over all devices; changes speed and memory only.
        crop_mode: `squash`, `center` or `border`: how an image that is not square becomes so.
        crop_pct: The share of each side that is kept, from the middle.
        interpolation: Pillow's filter.
        per_class: Keep at most so many train images a label.
        limit: Keep at most so many images of each part.
        require_all: Whether it is an error that an image is missing or broken, and not a warning.
        residency: Where the pixels are while training: `gpu`, `ram`, `mapped`, or `auto` for the first that they fit.
        num_workers: Processes that gather batches; 0 gathers in the training process, the fastest for a packed store.
        cache: Folder of the packed stores.
        seed: Decides the order of the training images.
    """

    name: str
    records: Records  # the rows with an image, after setup
    target: Target
    split: Split
    missing: Array  # (M,) names that the data set lists but that have no image
    broken: dict[str, str]  # names of images that cannot be decoded, known after setup, with the reason
    where: str | None = None  # the pixels are during training: gpu, ram or mapped, once a trainer has begun

    def __init__(
        self,
        source: Source,
        split: Callable[[Records, Array], Split],
        *,
        name: str,
        target: str,
        image_size: int,
        channels: int,
        batch_size: int | str,
        cache: str,
        seed: int,
        bins: Sequence[float] | None = None,
        eval_batch_size: int = 256,
        crop_mode: str = "squash",
        crop_pct: float = 1.0,
        interpolation: str = "bilinear",
        per_class: int | None = None,
        limit: int | None = None,
        require_all: bool = False,
        residency: str = "auto",
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.source, self.make_split, self.name = source, split, name
        self.target_name, self.bins = target, bins
        self.image_size, self.channels = image_size, channels
        self.resize = Resize(image_size, channels, crop_mode, crop_pct, interpolation)
        self._batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.per_class, self.limit, self.num_workers = per_class, limit, num_workers
        self.require_all, self.residency = require_all, residency
        self.cache, self.seed = Path(cache).expanduser(), seed
        self._planned = False
        self._store: Store | None = None
        self._parts: dict[str, Pixels] = {}

    @property
    def protocol(self) -> str:
        """`dataset/split/target`: what a figure must share with another to be compared with it."""
        return f"{self.name}/{self.split.name}/{target_name(self.target_name, self.bins)}"

    @property
    def batch_size(self) -> int:
        """Images a training step over all devices together; known after setup."""
        return len(self.split.train) if self._batch_size == "full" else int(self._batch_size)

    @property
    def counts(self) -> dict[str, int]:
        """Images of each part."""
        return {part: len(self.split.part(part)) for part in PARTS}

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return len(BatchSampler(len(self.split.train), self.batch_size, shuffle=True))

    def prepare_data(self) -> None:
        """Download or draw what the source lacks, and pack the pixels."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Work out records, labels and split, and map the packed pixels; a second call costs nothing."""
        if self._store is not None:
            return
        self.plan()
        rows = self._used()
        store = Store(self.cache, self.name, key=self._key, count=len(self._everything), resize=self.resize)
        pixels, broken = store.fill(self.source, self._rows[rows])
        self._leave_out(broken)
        for part in PARTS:
            chosen = self.split.part(part)
            where, labels = self._rows[chosen], self.target.labels[chosen]
            self._parts[part] = Pixels(pixels, torch.from_numpy(where), torch.from_numpy(labels))
        self._store = store

    @property
    def store(self) -> Store:
        """Where the pixels are packed; known after setup."""
        if self._store is None:
            raise RuntimeError("call setup() before reading pixels")
        return self._store

    @property
    def packed_bytes(self) -> int:
        """Bytes of the pixels that the split uses."""
        return len(self._used()) * self.store.row_bytes

    @property
    def _key(self) -> str:
        """Return what decides which image is in which row of a store: the source, where it lies, and its names."""
        kind, root = type(self.source), getattr(self.source, "root", None)
        where = "" if root is None else str(Path(root).absolute())
        names = hashlib.sha256("\n".join(self._everything.names.tolist()).encode("utf-8", "surrogateescape"))
        return f"{kind.__module__}.{kind.__qualname__}|{where}|{names.hexdigest()}"

    def _used(self) -> Array:
        """Return the rows of the records that are in any part, ascending."""
        return np.unique(np.concatenate([self.split.part(part) for part in PARTS]))

    def _leave_out(self, broken: dict[int, str]) -> None:
        """Take images that cannot be decoded out of the split, and say so."""
        names = self._everything.names
        self.broken = {str(names[row]): why for row, why in sorted(broken.items())}
        if not broken:
            return
        gone = np.isin(self._rows, list(broken))
        lost = {part: int(gone[self.split.part(part)].sum()) for part in PARTS}
        first = ", ".join(f"{name} ({why})" for name, why in list(self.broken.items())[:3])
        count = f"{len(broken):,} of the images in use"
        self._complain(f"{count} cannot be decoded ({_counts(lost)}): {first}", "broken.csv")
        train, val, test = (rows[~gone[rows]] for rows in map(self.split.part, PARTS))
        self.split = replace(self.split, train=train, val=val, test=test)
        splits.check(self.split)

    def _complain(self, text: str, table: str) -> None:
        if self.require_all:
            raise UserError(f"{text}; data.require_all=true wants every image")
        log.warning("%s; they are left out (all of them: %s)", text, table)

    def plan(self, *, listed: bool = False) -> None:
        """Work out records, labels and split without opening an image; a second call costs nothing.

        Args:
            listed: True plans with every image that the data set lists, whether its file is there or not.
        """
        if self._planned:
            return
        if not listed:
            self.source.prepare()
        self._everything = self.source.records()
        present = np.ones(len(self._everything), dtype=bool) if listed else self.source.present()
        self._rows = np.flatnonzero(present)
        self.missing, self.broken = self._everything.names[~present], {}
        target = make_target(self._everything, self.target_name, bins=self.bins)
        if len(self._rows) == 0:
            raise UserError(
                f"data={self.name} lists {len(present):,} images and none of them is there "
                f"(the first is {self._everything.names[0]}): check data.root"
            )
        self.records = self._everything.take(self._rows)
        self.target = replace(target, labels=target.labels[self._rows])
        split = self.make_split(self.records, self.target.labels)
        splits.check(split)
        self.split = splits.cap(split, self.target.labels, per_class=self.per_class, limit=self.limit)
        if len(self.missing):
            self._complain(
                f"{len(self.missing):,} of the {len(present):,} images that data={self.name} lists are not there, such "
                f"as {', '.join(str(name) for name in self.missing[:3])}; in use are {_counts(self.counts)}",
                "missing.csv",
            )
        splits.check(self.split)
        if self.split.val_is_test:
            log.warning(
                "data/split=%s validates on the images it tests on, as its lecture does: "
                "an epoch or a setting chosen by val makes the test figure optimistic",
                split.name,
            )
        self._planned = True

    def statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel over the train part, in [0, 1], worked out once."""
        self.setup()
        part = self._parts["train"]
        file = self.store.folder / f"statistics-{self.store.state(part.rows.numpy())}.json"
        if file.exists():
            known = json.loads(file.read_text())
            return known["mean"], known["std"]
        mean, std = channel_statistics(part)
        with contextlib.suppress(OSError):  # a cache that others have packed may be theirs alone to write
            write_whole(file, json.dumps({"mean": mean, "std": std}).encode())
        return mean, std

    def part(self, name: str) -> Pixels:
        """Return the images of train, val or test."""
        return self._parts[name]

    def file(self, row: int) -> bytes | Image.Image:
        """Return the file of a row of the records as it is, or the image if it is in no file of its own."""
        read = getattr(self.source, "read", self.source.open)
        content: bytes | Image.Image = read(int(self._rows[row]))
        return content

    def in_reading_order(self, rows: Array) -> Array:
        """Return rows of the records, int64, shape (n,), in the order in which reading their files is fastest."""
        everything = self.source.reading_order(self._rows[rows])
        return np.searchsorted(self._rows, everything)

    def reside(self, device: torch.device) -> str:
        """Bring the pixels to where they are read during training, and return where that is.

        Args:
            device: What trains.
        """
        where = choose_residency(self.residency, self.packed_bytes, device=device, num_workers=self.num_workers)
        rows = self._rows[self._used()]
        if where == "ram":
            self.store.warm(rows)
        if where == "gpu":
            pixels = self._parts["train"].store
            resident = torch.empty((len(rows), *pixels.shape[1:]), dtype=torch.uint8, device=device)
            for first in range(0, len(rows), 1024):  # a copy of them all would be needed in RAM otherwise
                chunk = torch.from_numpy(rows[first : first + 1024])
                resident[first : first + 1024] = pixels.index_select(0, chunk).to(device)
            for name, part in self._parts.items():
                at = torch.from_numpy(np.searchsorted(rows, part.rows.numpy()))
                self._parts[name] = Pixels(resident, at.to(device), part.target.to(device))
        return where

    def train_dataloader(self) -> TimedLoader:
        """Return the training batches, in a new order each epoch."""
        return self._loader("train", self.batch_size, shuffle=True)

    def val_dataloader(self) -> TimedLoader:
        """Return the validation batches, every image once."""
        return self._loader("val", self.eval_batch_size, shuffle=False)

    def test_dataloader(self) -> TimedLoader:
        """Return the test batches, every image once."""
        return self._loader("test", self.eval_batch_size, shuffle=False)

    def _loader(self, part: str, batch_size: int, *, shuffle: bool) -> TimedLoader:
        if self.trainer and self.where is None:
            self.where = self.reside(self.trainer.strategy.root_device)
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        count = len(self._parts[part])
        sampler = BatchSampler(count, batch_size, shuffle=shuffle, seed=self.seed, rank=rank, world=world)
        # Batch norm refuses to learn from one image; an evaluation batch must leave none of the devices without any.
        smallest, each = (min(batch_size, count), 2) if shuffle else (count // len(sampler), 1)
        if world > 1 and smallest < each * world:
            key = "data.batch_size" if shuffle else "data.eval_batch_size"
            raise UserError(
                f"{world} devices cannot share a {part} batch of {smallest}, for each needs {each} of its images: "
                f"raise {key}, or use more data or fewer devices"
            )
        # A sampler of whole batches with batch_size=None: the data set gathers each of them in one go.
        # A generator of its own: otherwise every loader draws from the one that augmentation and dropout follow.
        generator = torch.Generator().manual_seed(self.seed)
        make = partial(TimedLoader, self._parts[part], sampler=sampler, batch_size=None, generator=generator)
        pin = torch.cuda.is_available() and self._parts[part].store.device.type == "cpu"
        if self.num_workers == 0:
            return make(pin_memory=pin)
        return make(num_workers=self.num_workers, persistent_workers=True, pin_memory=pin)


def channel_statistics(part: Pixels) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, in [0, 1], worked out exactly from counts of the levels."""
    channels = part.store.shape[1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    # Counting widens each pixel to eight bytes.
    for rows in part.rows.split(max(1, 2**24 // part.store[0].numel())):
        images = part.store.index_select(0, rows)
        for channel in range(channels):
            counts[channel] += np.bincount(images[:, channel].numpy().ravel(), minlength=256)
    levels = np.arange(256) / 255
    mean = counts @ levels / counts.sum(1)
    std = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / counts.sum(1))
    return mean.tolist(), np.maximum(std, 1e-3).tolist()  # a constant image would divide by zero


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{part} {count:,}" for part, count in counts.items())
