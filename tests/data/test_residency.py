"""Where packed pixels are while training."""

from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image

from agebench.data import split as splits
from agebench.data.datamodule import ImageDataModule
from agebench.data.residency import choose_residency
from agebench.data.sources.digits import Digits
from agebench.errors import UserError

CPU = torch.device("cpu")


def digits(cache: Path, residency: str, *, num_workers: int = 0) -> ImageDataModule:
    data = ImageDataModule(
        Digits(),
        splits.random,
        name="digits",
        target="class",
        image_size=8,
        channels=1,
        batch_size=32,
        cache=str(cache),
        seed=0,
        residency=residency,
        num_workers=num_workers,
    )
    data.setup()
    return data


@pytest.mark.parametrize("wanted", ["ram", "mapped"])
def test_what_is_asked_for_is_given(wanted: str) -> None:
    assert choose_residency(wanted, 2**60, device=CPU, num_workers=0) == wanted


def test_pixels_that_fit_into_the_memory_are_read_into_it_and_others_left_where_they_are() -> None:
    whole = psutil.virtual_memory().total

    assert choose_residency("auto", 2**20, device=CPU, num_workers=2) == "ram"
    assert choose_residency("auto", whole, device=CPU, num_workers=0) == "mapped"


def test_a_gpu_is_asked_for_only_where_one_trains() -> None:
    with pytest.raises(UserError, match=r"data\.residency=gpu needs training on a GPU .* this is cpu"):
        choose_residency("gpu", 1, device=CPU, num_workers=0)


@pytest.mark.parametrize("residency", ["ram", "mapped"])
def test_the_batches_do_not_depend_on_where_the_pixels_are(tmp_path: Path, residency: str) -> None:
    plain, other = digits(tmp_path, "mapped"), digits(tmp_path, residency)

    assert other.reside(CPU) == residency

    for a, b in zip(plain.train_dataloader(), other.train_dataloader(), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_gathered_on_a_gpu_are_those_gathered_in_memory(tmp_path: Path) -> None:
    plain, other = digits(tmp_path, "mapped"), digits(tmp_path, "gpu")

    assert other.reside(torch.device("cuda", 0)) == "gpu"

    for a, b in zip(plain.train_dataloader(), other.train_dataloader(), strict=True):
        assert b.images.device.type == "cuda"
        assert all(torch.equal(x, y.cpu()) for x, y in zip(a, b, strict=True))
    assert isinstance(other.file(0), Image.Image)
