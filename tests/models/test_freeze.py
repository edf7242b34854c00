"""Frozen backbones."""

import pytest
import timm
import torch
from torch import nn

from agebench.models.classifier import classifier_layers
from agebench.models.deep_convnet import DeepConvNet
from agebench.models.freeze import freeze_backbone, keep_frozen_in_eval
from agebench.models.keras_cnn import KerasCNN


@pytest.mark.parametrize(
    ("build", "trainable"),
    [
        (lambda: KerasCNN(8, 1, num_classes=3), {"classifier.weight", "classifier.bias"}),
        (lambda: DeepConvNet(8, 1, num_classes=3), {"classifier.weight", "classifier.bias"}),
        (lambda: timm.create_model("resnet10t", in_chans=1, num_classes=3), {"fc.weight", "fc.bias"}),
        (lambda: timm.create_model("test_convnext", in_chans=1, num_classes=3), {"head.fc.weight", "head.fc.bias"}),
        (
            lambda: timm.create_model("deit_tiny_distilled_patch16_224", img_size=16, num_classes=3),
            {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"},
        ),
    ],
)
def test_only_the_classifier_of_a_frozen_backbone_is_trainable(build, trainable) -> None:
    model = build()

    freeze_backbone(model)

    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trainable


def test_training_with_a_frozen_backbone_changes_only_the_classifier() -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", in_chans=1, num_classes=3)
    freeze_backbone(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)

    model.train()
    keep_frozen_in_eval(model)
    model(torch.rand(4, 1, 32, 32)).logsumexp(dim=1).sum().backward()
    optimizer.step()

    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert model.training


def test_dropout_in_front_of_the_classifier_stays_active() -> None:
    model = DeepConvNet(8, 1, num_classes=3).train()
    freeze_backbone(model)

    keep_frozen_in_eval(model)

    assert model.get_submodule("dropout1").training
    assert not model.get_submodule("conv1").training
    assert model.get_submodule("classifier").training


def test_an_unfrozen_network_stays_in_training_mode() -> None:
    model = timm.create_model("resnet10t").train()

    keep_frozen_in_eval(model)

    assert all(module.training for module in model.modules())


def test_a_network_without_a_linear_layer_has_no_classifier() -> None:
    with pytest.raises(ValueError, match="no linear layer"):
        classifier_layers(nn.Conv2d(1, 1, 1))
