"""The minimum image size of a network, and the check of the patch size."""

import pytest
import timm
import torch
from hydra.utils import instantiate
from torch import nn

from agebench.errors import UserError
from agebench.models import torchvision_nets
from agebench.models.minimum_size import check_patches, smallest_size


def test_the_smallest_side_of_alexnet_is_63() -> None:
    smallest = smallest_size(lambda size: torchvision_nets.create_torchvision("alexnet", in_chans=1, num_classes=7), 1)

    assert smallest == 63


def test_a_size_error_that_hydra_wraps_is_recognised() -> None:
    node = {"_target_": "agebench.models.LeNet", "num_classes": 7}

    smallest = smallest_size(lambda size: instantiate(node, image_size=size, in_chans=3), 3)

    assert smallest == 16  # the smallest common side that is at least 12


def test_a_network_that_accepts_no_common_side_has_no_smallest_side() -> None:
    smallest = smallest_size(lambda size: nn.Sequential(nn.Flatten(), nn.Linear(17 * 17, 2)), 1)

    assert smallest is None


def test_a_bug_in_the_network_is_not_treated_as_a_small_image() -> None:
    def build(size: int) -> nn.Module:
        raise NameError("no such layer")

    with pytest.raises(NameError):
        smallest_size(build, 1)


@pytest.mark.parametrize(("size", "advice"), [(40, 32), (10, 16), (60, 64)])
def test_a_side_that_is_not_a_multiple_of_the_patch_raises_an_error_with_the_nearest_multiple(size, advice) -> None:
    model = timm.create_model("test_vit", img_size=size)

    with pytest.raises(UserError, match=rf"model=vit cuts .* 16x16 pixels.*set data.image_size={advice} or"):
        check_patches(model, size, "model=vit")


def test_a_side_that_differs_from_the_transformers_image_size_raises_an_error() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224")

    with pytest.raises(UserError, match=r"224x224 pixels, not 64x64: set data.image_size=224, or add '\+model.img_si"):
        check_patches(model, 64, "model=timm")


def test_multiples_of_the_patch_and_networks_without_patches_are_accepted() -> None:
    with torch.device("meta"):
        networks = [timm.create_model("test_vit", img_size=48), nn.Linear(2, 2), timm.create_model("resnet10t")]

    for model in networks:
        check_patches(model, 48, "model=any")
