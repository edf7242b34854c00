"""Tests that run for every file in conf/model, also for new ones."""

from pathlib import Path

import pytest
import timm
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

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


def config(path: Path) -> DictConfig:
    model = OmegaConf.load(path)
    assert isinstance(model, DictConfig)
    if path.stem == "timm":
        model.model_name = "resnet10t"
    if "pretrained" in model:
        model.pretrained = False
    return OmegaConf.create({"data": {"image_size": None}, "model": model})


def build(path: Path, *, image_size: int, in_chans: int, num_classes: int) -> nn.Module:
    composed = config(path)
    composed.data.image_size = image_size
    model = instantiate(composed.model, in_chans=in_chans, num_classes=num_classes)
    assert isinstance(model, nn.Module)
    return model


def every(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


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
@pytest.mark.parametrize("in_chans", [1, 3], ids=["grey", "color"])
def test_a_forward_pass_in_training_has_num_classes_outputs(path, in_chans) -> None:
    with torch.device("meta"):  # shapes only
        model = build(path, image_size=64, in_chans=in_chans, num_classes=7).train()
        outputs = model(torch.empty(2, in_chans, 64, 64))

    assert isinstance(outputs, torch.Tensor)
    assert outputs.shape == (2, 7)


@every([path for path in CONFIGS if path.stem in PUBLISHED])
def test_the_number_of_parameters_equals_the_published_number(path) -> None:
    with torch.device("meta"):
        model = build(path, image_size=224, in_chans=3, num_classes=1000)

    total = sum(parameter.numel() for parameter in model.parameters())

    assert total == PUBLISHED[path.stem]


@pytest.mark.slow
@every(CONFIGS)
@pytest.mark.parametrize("in_chans", [1, 3], ids=["grey", "color"])
def test_outputs_and_gradients_of_a_training_step_are_finite(path, in_chans) -> None:
    torch.manual_seed(0)
    model = build(path, image_size=64, in_chans=in_chans, num_classes=7).train()

    outputs = model(torch.randn(2, in_chans, 64, 64))
    outputs.logsumexp(dim=1).sum().backward()

    assert outputs.shape == (2, 7)
    assert outputs.isfinite().all()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(gradients) > 0.9 * len(list(model.parameters()))  # stochastic depth skips a few layers
    assert all(gradient.isfinite().all() for gradient in gradients)
