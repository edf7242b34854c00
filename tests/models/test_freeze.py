"""Frozen backbones."""

import pytest
import timm
import torch
from torch import nn

from agebench.models.classifier import classifier_layers
from agebench.models.deep_convnet import DeepConvNet
from agebench.models.freeze import first_epochs, freeze_backbone, keep_frozen_in_eval
from agebench.models.keras_cnn import KerasCNN
from agebench.models.mlp import MLP


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


def test_head_then_all_trains_everything_but_the_classifier_from_one_epoch_on() -> None:
    model = timm.create_model("resnet10t", in_chans=1, num_classes=3)

    found = first_epochs(model, "head_then_all", 2)

    names = {name for name, _ in model.named_parameters()}
    assert found == dict.fromkeys(names - {"fc.weight", "fc.bias"}, 2)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [  # the blocks from the last to the first: ceil(epochs * i / 5)
        (5, {"layer4": 1, "layer3": 2, "layer2": 3, "layer1": 4, "conv1": 5, "bn1": 5}),
        (2, {"layer4": 1, "layer3": 1, "layer2": 2, "layer1": 2, "conv1": 2, "bn1": 2}),
        (8, {"layer4": 2, "layer3": 4, "layer2": 5, "layer1": 7, "conv1": 8, "bn1": 8}),
    ],
)
def test_gradual_trains_the_stages_of_timms_networks_from_the_last_to_the_first(epochs, expected) -> None:
    model = timm.create_model("resnet10t", in_chans=1, num_classes=3)

    found = first_epochs(model, "gradual", epochs)

    assert {(name.partition(".")[0], epoch) for name, epoch in found.items()} == set(expected.items())


def test_gradual_trains_the_layers_of_our_own_networks_from_the_last_to_the_first() -> None:
    model = MLP(8, 1, num_classes=3, hidden=[5, 4])

    found = first_epochs(model, "gradual", 4)

    of_layers = {"linear1": 4, "norm1": 4, "linear2": 2, "norm2": 2}
    assert found == {f"{layer}.{kind}": epoch for layer, epoch in of_layers.items() for kind in ("weight", "bias")}
