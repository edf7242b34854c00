"""Where packed pixels are during training."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from agebench.data import datamodule as datamodule_module
from agebench.data import split as splits
from agebench.data.datamodule import ImageDataModule
from agebench.data.packed import pack
from agebench.data.plan import Planner
from agebench.data.records import Records
from agebench.data.residency import choose_residency
from agebench.data.resize import Resize
from agebench.data.sources.digits import Digits
from agebench.data.split import PARTS
from agebench.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)  # a torch.device needs no GPU


def digits(cache: Path, residency: str, *, num_workers: int = 0) -> ImageDataModule:
    source = Digits()
    plan = Planner(source, splits.random, name="digits", target="class").plan()
    images = pack(source, plan, resize=Resize(8, 1), cache=cache)
    return ImageDataModule(images, batch_size=32, seed=0, residency=residency, num_workers=num_workers)


@pytest.fixture
def free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate 1,000 free bytes on the GPU and 100 available bytes of RAM, of far more in total."""
    gpu = SimpleNamespace(mem_get_info=lambda device: (1_000, 10**12))
    monkeypatch.setattr(torch, "get_device_module", lambda device: gpu)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100, total=10**12))


@pytest.mark.parametrize("residency", ["ram", "mapped"])
@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_ram_and_mapped_are_used_on_request(residency: str, device: torch.device) -> None:
    assert choose_residency(residency, 2**60, device=device, num_workers=0) == residency
    assert choose_residency(residency, 1, device=device, num_workers=2) == residency


def test_a_gpu_is_used_on_request_even_if_the_pixels_may_not_fit(free_memory: None) -> None:
    assert choose_residency("gpu", 2**60, device=GPU, num_workers=0) == "gpu"


@pytest.mark.parametrize(
    ("size", "num_workers", "expected"),
    [
        (1, 0, "gpu"),
        (399, 0, "gpu"),  # below 40% of the free 1,000 bytes
        (400, 0, "mapped"),  # nor below half of the available 100 bytes
        (49, 1, "ram"),  # workers cannot gather on a GPU
        (50, 1, "mapped"),
    ],
)
def test_auto_on_a_gpu_chooses_gpu_then_ram_then_mapped(
    free_memory: None, size: int, num_workers: int, expected: str
) -> None:
    assert choose_residency("auto", size, device=GPU, num_workers=num_workers) == expected


@pytest.mark.parametrize(("size", "expected"), [(1, "ram"), (49, "ram"), (50, "mapped"), (399, "mapped")])
def test_auto_on_a_cpu_chooses_half_of_the_available_ram_or_mapped(free_memory: None, size: int, expected: str) -> None:
    assert choose_residency("auto", size, device=CPU, num_workers=0) == expected


def test_auto_on_a_device_of_unknown_free_memory_chooses_ram(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace())

    assert choose_residency("auto", 1, device=torch.device("mps"), num_workers=0) == "ram"


@pytest.mark.parametrize(("device", "num_workers"), [(CPU, 0), (CPU, 2), (GPU, 2)], ids=str)
def test_a_gpu_is_refused_on_a_cpu_and_with_workers(device: torch.device, num_workers: int) -> None:
    with pytest.raises(
        UserError,
        match=rf"needs training on a GPU .* got {device.type} with {num_workers} workers: use data\.residency=auto",
    ):
        choose_residency("gpu", 1, device=device, num_workers=num_workers)


def test_auto_with_real_memory_chooses_ram_for_few_and_mapped_for_many_pixels() -> None:
    total = psutil.virtual_memory().total

    assert choose_residency("auto", 2**20, device=CPU, num_workers=2) == "ram"
    assert choose_residency("auto", total, device=CPU, num_workers=0) == "mapped"


@pytest.mark.parametrize("residency", ["ram", "mapped"])
def test_batches_do_not_depend_on_the_residency(tmp_path: Path, residency: str) -> None:
    plain, other = digits(tmp_path, "mapped"), digits(tmp_path, residency)

    assert other.place_pixels(CPU) == residency

    for a, b in zip(plain.train_dataloader(), other.train_dataloader(), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class Numbered:
    """A source whose images encode their row number in two colours; every seventh image is missing."""

    channels = 3
    targets = ("class",)

    def __init__(self, count: int) -> None:
        self.count = count

    def prepare(self) -> None: ...

    def records(self) -> Records:
        return Records(np.array([f"{row}.png" for row in range(self.count)]), {"class": np.arange(self.count) % 3})

    def present(self) -> np.ndarray:
        return np.arange(self.count) % 7 != 0

    def open(self, row: int) -> Image.Image:
        return Image.new("RGB", (1, 1), (row % 256, row // 256, 0))

    def stamps(self, rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), 7, dtype=np.uint64)

    def reading_order(self, rows: np.ndarray) -> np.ndarray:
        return rows


@pytest.mark.parametrize("val_is_test", [False, True])
def test_every_part_has_the_right_pixels_after_a_copy_to_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, val_is_test: bool
) -> None:
    """Only the pixels in use are copied to a GPU, so the rows of a part differ from those of the store."""
    monkeypatch.setattr(datamodule_module, "choose_residency", lambda *args, **kwargs: "gpu")
    split: Any = partial(splits.subset, train=1_500, val=120, test=180)  # more than the 1,024 copied at a time
    if val_is_test:
        split = partial(splits.lecture, per_label=600)
    source = Numbered(2_800)
    plan = Planner(source, split, name="numbered", target="class").plan()
    data = ImageDataModule(pack(source, plan, resize=Resize(1, 3), cache=tmp_path), batch_size=32, seed=0)

    where = data.place_pixels(CPU)

    assert where == "gpu"
    for name in PARTS:
        rows = plan.split.part(name)
        expected = [int(str(image).removesuffix(".png")) for image in plan.records.names[rows]]
        part = data.part(name)
        batch = part[torch.arange(len(part))]
        shown = batch.images[:, 0, 0, 0].int() + 256 * batch.images[:, 1, 0, 0].int()
        assert shown.tolist() == expected
        assert batch.target.tolist() == [row % 3 for row in expected]
        assert len(part.store) == 1_800  # of 2,400 existing images


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_gathered_on_a_gpu_equal_those_gathered_in_memory(tmp_path: Path) -> None:
    plain, other = digits(tmp_path, "mapped"), digits(tmp_path, "gpu")

    assert other.place_pixels(torch.device("cuda", 0)) == "gpu"

    for a, b in zip(plain.train_dataloader(), other.train_dataloader(), strict=True):
        assert b.images.device.type == "cuda"
        assert all(torch.equal(x, y.cpu()) for x, y in zip(a, b, strict=True))
    assert isinstance(other.images.file(0), Image.Image)
