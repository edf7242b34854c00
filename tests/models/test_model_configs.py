"""Tests that run for every file in conf/model, also for new ones."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from agebench.testing import check_backbone

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))

# Parameters for RGB images and 1,000 classes, from the documentation of torchvision (Xception: of Keras, trainable).
PUBLISHED = {
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "googlenet": 6_624_904,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet152": 60_192_808,
    "densenet121": 7_978_856,
    "xception": 22_855_952,
    "mobilenetv3": 2_542_856,
    "vit": 86_567_656,
    "swin": 28_288_354,
    "convnext": 28_589_128,
}
SMALL = ("mlp", "small_cnn", "keras_cnn", "deep_convnet", "lenet", "timm")  # quick to train a step of


def config(path: Path) -> DictConfig:
    model = OmegaConf.load(path)
    assert isinstance(model, DictConfig)
    if path.stem == "timm":
        model.model_name = "resnet10t"
    if "pretrained" in model:
        model.pretrained = False
    return OmegaConf.create({"data": {"image_size": None}, "model": model})


def options(path: Path, *, image_size: int) -> dict[str, Any]:
    """Return the target and the keys of a YAML, without those that agebench reads itself."""
    composed = config(path)
    composed.data.image_size = image_size
    node = OmegaConf.to_container(composed.model, resolve=True)
    assert isinstance(node, dict)
    return {("target" if key == "_target_" else str(key)): value for key, value in node.items()}


def every(paths) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def test_all_documented_models_have_a_config() -> None:
    promised = "mlp small_cnn keras_cnn deep_convnet lenet alexnet vgg16 vgg19 googlenet resnet18 resnet50 resnet152 "
    promised += "densenet121 xception mobilenetv3 vit swin convnext timm"

    assert set(promised.split()) <= {path.stem for path in CONFIGS}


@every(CONFIGS)
def test_the_first_line_is_a_short_comment(path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]

    assert first.startswith("# ")
    assert 10 < len(first) <= 92


@every([path for path in CONFIGS if path.stem != "timm" and "timm.create_model" in path.read_text(encoding="utf-8")])
def test_a_timm_model_names_pretrained_weights_that_exist(path) -> None:
    model = OmegaConf.load(path)

    assert "." in model.model_name
    assert timm.models.is_model_pretrained(model.model_name)


def test_only_the_convnext_of_the_lectures_is_pretrained_by_default() -> None:
    pretrained = [path.stem for path in CONFIGS if OmegaConf.load(path).get("pretrained")]

    assert pretrained == ["convnext"]
    convnext = OmegaConf.load(next(path for path in CONFIGS if path.stem == "convnext"))
    assert convnext.model_name == "convnext_tiny.fb_in1k"
    assert convnext.drop_path_rate == 0.1


@every(CONFIGS)
def test_a_backbone_has_the_shapes_of_the_contract(path) -> None:
    check_backbone(**options(path, image_size=64), size=64, shapes_only=True)


@every([path for path in CONFIGS if path.stem in PUBLISHED])
def test_the_number_of_parameters_equals_the_published_number(path) -> None:
    with torch.device("meta"):
        found = options(path, image_size=224)
        model = get_object(found.pop("target"))(in_chans=3, num_classes=1000, **found)

    total = sum(parameter.numel() for parameter in model.parameters())

    assert total == PUBLISHED[path.stem]


@every([pytest.param(path, marks=() if path.stem in SMALL else pytest.mark.slow) for path in CONFIGS])
def test_a_backbone_keeps_the_contract(path) -> None:
    check_backbone(**options(path, image_size=64), size=64)
