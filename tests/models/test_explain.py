"""HiResCAM, occlusion, kernels and feature maps: against hand computations, and for every network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from agebench.models.explain import explain, first_kernels, stage_maps

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))
SMALL = ("deep_convnet", "keras_cnn", "lenet", "mlp", "resnet18", "small_cnn")
IN_SIXTY_FOUR = ("alexnet", "xception", "vit", "swin")  # px; the others are tested with 32


class Toy(nn.Module):
    """A convolution without bias, mean pooling and a linear layer: all gradients are known."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.linear = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(images).mean(dim=(2, 3)))


def test_the_heat_of_a_network_that_averages_its_maps_is_the_class_weighted_sum_of_its_maps() -> None:
    torch.manual_seed(0)
    toy, images = Toy(), torch.randn(2, 2, 8, 8)
    kernels, weights = toy.conv.weight.detach().numpy(), toy.linear.weight.detach().numpy()
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    maps = np.zeros((2, 3, 8, 8))
    for y in range(8):
        for x in range(8):
            maps[:, :, y, x] = np.einsum("bchw,kchw->bk", padded[:, :, y : y + 3, x : x + 3], kernels)
    expected = np.einsum("k,bkhw->bhw", weights[1], maps) / 64  # the mean over 8 x 8 has the gradient 1 / 64

    found = explain(toy, images, lambda outputs: outputs[:, 1])

    assert (found.method, found.layer) == ("HiResCAM", "conv")
    np.testing.assert_allclose(found.maps.numpy(), expected, atol=1e-5)


def test_the_heat_of_a_network_that_flattens_its_maps_is_what_each_position_adds_to_the_output() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    images = torch.randn(2, 1, 8, 8)
    maps = network[:2](images).detach().numpy()
    weights = network[3].weight.detach().numpy()[1].reshape(3, 8, 8)
    expected = np.einsum("bkhw,khw->bhw", maps, weights)

    heat = explain(network, images, lambda outputs: outputs[:, 1]).maps.numpy()

    np.testing.assert_allclose(heat, expected, atol=1e-5)
    output = network(images)[:, 1].detach().numpy()
    np.testing.assert_allclose(heat.sum(axis=(1, 2)) + network[3].bias[1].item(), output, atol=1e-4)


def test_occlusion_of_a_linear_network_is_largest_at_the_pixels_with_an_effect() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(100, 2, bias=False))
    weight = torch.zeros(2, 10, 10)
    weight[1, 2, 7], weight[1, 8, 1] = 5.0, -3.0
    network[1].weight.data = weight.reshape(2, 100)

    found = explain(network, torch.ones(1, 1, 10, 10), lambda outputs: outputs[:, 1])

    assert (found.method, found.layer) == ("occlusion", "")
    heat = found.maps[0]
    assert heat[2, 7] == heat.max() == 5.0  # every square over this pixel lowers the output by 5
    assert heat[8, 1] == heat.min() == -3.0
    assert heat[5, 4] == 0.0


def test_a_frozen_backbone_is_explained() -> None:
    toy = Toy()
    toy.conv.requires_grad_(False)

    found = explain(toy, torch.randn(1, 2, 8, 8), lambda outputs: outputs[:, 0])

    assert found.maps.abs().max() > 0


def test_the_mode_of_each_layer_is_kept() -> None:
    toy = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(128, 2)).train()
    toy[1].eval()
    before = toy[1].running_mean.clone()

    explain(toy, torch.randn(3, 1, 8, 8), lambda outputs: outputs[:, 0])

    assert [layer.training for layer in toy] == [True, False, True, True]
    assert toy[1].running_mean.equal(before)


def test_the_units_of_an_mlp_are_kernels_of_the_size_of_an_image() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 5))

    kernels = first_kernels(network, (3, 6, 6))

    assert kernels is not None
    assert kernels.shape == (5, 3, 6, 6)
    assert kernels[2].flatten().equal(network[1].weight[2])


def test_the_maps_that_vary_most_come_first() -> None:
    toy = Toy()
    toy.conv.weight.data.mul_(torch.tensor([1e-3, 1.0, 1e-1])[:, None, None, None])
    image = torch.randn(2, 8, 8)
    varies = toy.conv(image[None])[0].flatten(1).std(1)

    maps = stage_maps(toy, image)["conv"]

    np.testing.assert_allclose(maps.flatten(1).std(1), varies.detach().sort(descending=True)[0], rtol=1e-5)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[] if path.stem in SMALL else pytest.mark.ci) for path in CONFIGS],
)
def test_every_network_can_be_explained(path) -> None:
    side = 64 if path.stem in IN_SIXTY_FOUR else 32
    torch.manual_seed(0)
    network = build(path, side)
    images = torch.randn(2, 3, side, side)

    heat = explain(network, images, lambda outputs: outputs[:, 0])
    maps, kernels = stage_maps(network, images[0]), first_kernels(network, (3, side, side))

    assert heat.method == ("occlusion" if path.stem == "mlp" else "HiResCAM")
    assert heat.maps.shape == (2, side, side)
    assert heat.maps.isfinite().all()
    assert heat.maps.abs().max() > 0
    assert kernels is not None
    assert kernels.shape[1] == 3
    assert len(maps) >= (0 if path.stem == "mlp" else 3)
    assert all(len(each) <= 8 and each.isfinite().all() for each in maps.values())


def build(path: Path, side: int) -> nn.Module:
    root = OmegaConf.create({"data": {"image_size": side}, "model": OmegaConf.load(path)})
    if "pretrained" in root.model:
        root.model.pretrained = False
    if path.stem == "timm":
        root.model.model_name = "resnet10t"
    return instantiate(root.model, in_chans=3, num_classes=7)
