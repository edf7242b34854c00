"""A training step on a fake GPU mixes no devices and does not synchronise with the GPU.

torch's fake tensors have a shape, a dtype and a device, but no values, and need no GPU. An operation that mixes devices
raises an error, and so does one that reads a value (`.item()`, `if tensor`, indexing by a mask).
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from agebench.data.loader import Pixels
from agebench.models.normalise import Normalise
from agebench.module import ImageModule

CONF = Path(__file__).parents[1] / "conf"
HEADS = sorted(path.stem for path in (CONF / "head").glob("*.yaml"))
AUGMENTS = sorted(path.stem for path in (CONF / "augment").glob("*.yaml"))
GPU = torch.device("cuda:0")


def moved(module: nn.Module, mode: FakeTensorMode) -> None:
    """Move every parameter and buffer to the fake GPU."""
    for part in module.modules():
        for kept in (part._parameters, part._buffers):
            for name, tensor in list(kept.items()):
                if tensor is not None:
                    fake = mode.from_tensor(tensor.detach())
                    with mode:
                        there = fake.to(GPU)
                    kept[name] = nn.Parameter(there) if isinstance(tensor, nn.Parameter) else there


def module_of(head_name: str, augment_name: str) -> ImageModule:
    labels = 2 if head_name == "binary" else 6
    head = instantiate(
        OmegaConf.load(CONF / "head" / f"{head_name}.yaml"), labels, list(map(float, range(labels))), ordered=True
    )
    augment = instantiate(OmegaConf.load(CONF / "augment" / f"{augment_name}.yaml"), _convert_="all")
    head.set_label_counts(torch.tensor([5, 4, 3, 2, 1, 1][:labels]))
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, head.num_outputs))
    return ImageModule(
        network,
        head,
        normalise=Normalise([0.5] * 3, [0.2] * 3),
        augment=augment,
        optim=torch.optim.Adam,
        scheduler=None,
        unit="decades",
        channels_last=True,
        seed=0,
        stamp={},
    )


def resident(mode: FakeTensorMode) -> Pixels:
    """Return a part whose pixels are on the GPU, as with data.residency=gpu."""
    with mode:
        pixels = torch.empty(100, 3, 32, 32, dtype=torch.uint8, device=GPU)
        return Pixels(pixels, torch.arange(50, device=GPU), torch.zeros(50, dtype=torch.int64, device=GPU))


def step(module: ImageModule, mode: FakeTensorMode, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    moved(module.train(), mode)
    monkeypatch.setattr(ImageModule, "device", GPU)
    monkeypatch.setattr(ImageModule, "trainer", SimpleNamespace(log_every_n_steps=0))
    part = resident(mode)
    assert all(each.device == GPU for each in module.state_dict().values())
    with mode:
        first, second = part.batches([torch.arange(8), torch.arange(8, 20)])
        assert (first.images.device, first.target.device, first.rows.device) == (GPU,) * 3
        assert (len(first.images), len(second.images)) == (8, 12)
        return module.training_loss(second)


@pytest.mark.parametrize(
    ("head", "augment"), [*((name, "none") for name in HEADS), *(("softmax", name) for name in AUGMENTS)]
)
def test_a_step_mixes_no_devices_and_does_not_synchronise(monkeypatch, head, augment) -> None:
    loss = step(module_of(head, augment), FakeTensorMode(), monkeypatch)

    assert (loss.device, loss.shape, loss.dtype) == (GPU, (), torch.float32)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda outputs, target: outputs.sum() + torch.ones(12).sum(dim=0, keepdim=True), RuntimeError),
        (lambda outputs, target: outputs.sum() * outputs.max().item(), DataDependentOutputException),
    ],
    ids=["mixed", "waiting"],
)
def test_a_head_that_mixes_devices_or_synchronises_raises(monkeypatch, wrong, error) -> None:
    module = module_of("softmax", "none")
    monkeypatch.setattr(module.head, "loss", wrong)

    with pytest.raises(error):
        step(module, FakeTensorMode(), monkeypatch)
