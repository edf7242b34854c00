"""The LightningDataModule: puts a source, a target, a split and a store together."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import torch
from filelock import FileLock
from PIL import Image

from agebench.data import split as splits
from agebench.data.loader import BatchSampler, Pixels, TimedLoader
from agebench.data.records import Array, Records, Source
from agebench.data.split import PARTS, Split
from agebench.data.store import packed
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
        per_class: Keep at most so many train images a label.
        limit: Keep at most so many images of each part.
        num_workers: Processes that gather batches; 0 gathers in the training process, the fastest for a packed store.
        cache: Folder of the packed stores.
        seed: Decides the order of the training images.
    """

    records: Records  # the rows with an image, after setup
    target: Target
    split: Split
    missing: Array  # (M,) names that the data set lists but that have no image

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
        per_class: int | None = None,
        limit: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.source, self.make_split, self.name = source, split, name
        self.target_name, self.bins = target, bins
        self.image_size, self.channels = image_size, channels
        self._batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.per_class, self.limit, self.num_workers = per_class, limit, num_workers
        self.cache, self.seed = Path(cache).expanduser(), seed
        self._store: torch.Tensor | None = None
        self._parts: dict[str, Pixels] = {}

    @property
    def protocol(self) -> str:
        """`dataset/split/target`: what a figure must share with another to be compared with it."""
        target = (
            f"bins-{'-'.join(f'{b:g}' for b in self.bins or ())}" if self.target_name == "bins" else self.target_name
        )
        return f"{self.name}/{self.split.name}/{target}"

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
        rows = np.unique(np.concatenate([self.split.part(part) for part in PARTS]))
        store = packed(
            self.cache,
            lambda row: self.source.open(int(self._rows[row])),
            rows,
            size=self.image_size,
            channels=self.channels,
            key=self._pixels_key(rows),
        )
        self._store = torch.from_numpy(store)
        for part in PARTS:
            chosen = self.split.part(part)
            where = torch.from_numpy(np.searchsorted(rows, chosen))
            self._parts[part] = Pixels(self._store, where, torch.from_numpy(self.target.labels[chosen]))

    def _pixels_key(self, rows: Array) -> str:
        """Return what decides the pixels of some rows: the files, and which image each row stands for.

        The same files give other rows once a metadata file lies beside them.
        """
        names = hashlib.sha256("\n".join(self.records.names[rows].tolist()).encode()).hexdigest()
        return f"{self.name}|{self.source.stamp()}|{names}"

    def plan(self) -> None:
        """Work out records, labels and split without opening an image."""
        self.source.prepare()
        everything = self.source.records()
        present = self.source.present()
        self._rows = np.flatnonzero(present)
        self.missing = everything.names[~present]
        target = make_target(everything, self.target_name, bins=self.bins)
        if len(self._rows) == 0:
            raise UserError(
                f"data={self.name} lists {len(everything):,} images and none of them is there "
                f"(the first is {everything.names[0]}): check data.root"
            )
        if len(self.missing):
            log.warning(
                "%s of the %s images that data=%s lists are there; missing: %s, ... (all in missing.csv)",
                f"{len(self._rows):,}",
                f"{len(everything):,}",
                self.name,
                ", ".join(str(n) for n in self.missing[:3]),
            )
        self.records = everything.take(self._rows)
        self.target = Target(
            target.name,
            target.labels[self._rows],
            target.label_names,
            target.values,
            ordered=target.ordered,
            unit=target.unit,
        )
        split = self.make_split(self.records, self.target.labels)
        self.split = splits.cap(split, self.target.labels, per_class=self.per_class, limit=self.limit)
        splits.check(self.split)
        if self.split.val_is_test:
            log.warning(
                "data/split=%s validates on the images it tests on, as its lecture does: "
                "an epoch or a setting chosen by val makes the test figure optimistic",
                split.name,
            )

    def statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel over the train part, in [0, 1], worked out once."""
        self.setup()
        rows = self._parts["train"].rows
        key = f"{self._pixels_key(self.split.train)}|{self.image_size}|{self.channels}"
        file = self.cache / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}-statistics.json"
        with FileLock(f"{file}.lock"):
            if not file.exists():
                self._write_statistics(file, rows)
            known = json.loads(file.read_text())
        return known["mean"], known["std"]

    def _write_statistics(self, file: Path, rows: torch.Tensor) -> None:
        counts = np.zeros((self.channels, 256), dtype=np.int64)
        for chunk in rows.split(4096):
            images = self.pixels[chunk]
            for channel in range(self.channels):
                counts[channel] += np.bincount(images[:, channel].numpy().ravel(), minlength=256)
        levels = np.arange(256) / 255
        mean = counts @ levels / counts.sum(1)
        std = np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / counts.sum(1))
        # A constant image would divide by zero.
        text = json.dumps({"mean": mean.tolist(), "std": np.maximum(std, 1e-3).tolist()})
        partial_file = file.with_suffix(".part")
        partial_file.write_text(text)
        partial_file.replace(file)

    @property
    def pixels(self) -> torch.Tensor:
        """Every packed image, uint8, shape (N, C, S, S)."""
        if self._store is None:
            raise RuntimeError("call setup() before reading pixels")
        return self._store

    def part(self, name: str) -> Pixels:
        """Return the images of train, val or test."""
        return self._parts[name]

    def image(self, part: str, row: int) -> Image.Image:
        """Decode the original file of a row of a part, for showing."""
        return self.source.open(int(self._rows[self.split.part(part)[row]]))

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
        pin = torch.cuda.is_available()
        if self.num_workers == 0:
            return make(pin_memory=pin)
        return make(num_workers=self.num_workers, persistent_workers=True, pin_memory=pin)
