"""The networks of this package: layers and parameter counts of their sources, initialization, activations, sizes."""

import numpy as np
import pytest
import torch
from torch import nn

from agebench.errors import UserError
from agebench.models.deep_convnet import DeepConvNet
from agebench.models.keras_cnn import KerasCNN
from agebench.models.lenet import LeNet
from agebench.models.mlp import MLP
from agebench.models.small_cnn import SmallCNN

NETWORKS = [MLP, SmallCNN, KerasCNN, DeepConvNet, LeNet]


def kinds(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model.children()]


def counts(model: nn.Module) -> list[int]:
    """Return the number of parameters of each layer with parameters."""
    sizes = [sum(parameter.numel() for parameter in layer.parameters()) for layer in model.children()]
    return [size for size in sizes if size]


def shapes(model: nn.Sequential, images: torch.Tensor) -> list[tuple[int, ...]]:
    result = []
    for layer in model:
        images = layer(images)
        result.append(tuple(images.shape[1:]))
    return result


def test_keras_cnn_has_the_layer_table_of_the_slides() -> None:
    model = KerasCNN(28, 1, num_classes=10)

    produced = shapes(model, torch.zeros(2, 1, 28, 28))

    assert counts(model) == [640, 73_856, 589_952, 1_290]
    assert sum(counts(model)) == 665_738
    # The slides list no activations and have channels last.
    without_activations = [
        shape for shape, kind in zip(produced, kinds(model), strict=True) if not kind.startswith("ReLU")
    ]
    assert without_activations == [
        (64, 28, 28),
        (64, 14, 14),
        (128, 12, 12),
        (128, 6, 6),
        (128, 6, 6),
        (4608,),
        (128,),
        (128,),
        (10,),
    ]
    assert [layer.p for layer in model if isinstance(layer, nn.Dropout)] == [0.5, 0.25]


def test_keras_cnn_has_glorot_uniform_initialization_and_zero_biases() -> None:
    torch.manual_seed(0)
    model = KerasCNN(28, 1, num_classes=10)
    limits = {  # sqrt(6 / (fan-in + fan-out))
        "conv1": np.sqrt(6 / (9 + 576)),
        "conv2": np.sqrt(6 / (576 + 1152)),
        "dense1": np.sqrt(6 / (4608 + 128)),
        "classifier": np.sqrt(6 / (128 + 10)),
    }

    for name, limit in limits.items():
        weight = model.get_submodule(name).weight.detach().double().numpy()

        assert np.abs(weight).max() <= limit * (1 + 1e-6)
        assert np.abs(weight).max() > 0.97 * limit
        assert weight.std() == pytest.approx(limit / np.sqrt(3), rel=0.06)  # 576 draws in the smallest
        assert not model.get_submodule(name).bias.detach().any()


def test_deep_convnet_has_the_layers_of_the_chapter() -> None:
    model = DeepConvNet(28, 1, num_classes=10)

    produced = shapes(model, torch.zeros(2, 1, 28, 28))

    block = ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d"]
    assert kinds(model) == [*block * 3, "Flatten", "Linear", "ReLU", "Dropout", "Linear", "Dropout"]
    assert counts(model) == [160, 2_320, 4_640, 9_248, 18_496, 36_928, 51_250, 510]
    pooled = [
        shape for shape, layer in zip(produced, model, strict=True) if isinstance(layer, nn.MaxPool2d | nn.Flatten)
    ]
    assert pooled == [(16, 14, 14), (32, 8, 8), (64, 4, 4), (1024,)]
    assert [layer.p for layer in model if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_deep_convnet_has_he_normal_initialization_and_zero_biases() -> None:
    torch.manual_seed(0)
    model = DeepConvNet(28, 1, num_classes=10)
    layers = [layer for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)]
    fan_in = [9, 16 * 9, 16 * 9, 32 * 9, 32 * 9, 64 * 9, 1024, 50]

    measured = [layer.weight.detach().double().numpy().std() for layer in layers]

    deviations = [np.sqrt(2 / n) for n in fan_in]
    # Six standard errors 1 / sqrt(2 n) of a standard deviation, relative to it.
    for layer, found, expected in zip(layers, measured, deviations, strict=True):
        assert found == pytest.approx(expected, rel=6 / np.sqrt(2 * layer.weight.numel()))
        assert not layer.bias.detach().any()


def test_the_mlp_has_the_layers_of_the_hiragana_notebook() -> None:
    model = MLP(48, 1, num_classes=73)

    assert kinds(model) == ["Flatten", *["Linear", "BatchNorm1d", "ReLU"] * 2, "Linear"]
    assert counts(model) == [2304 * 64 + 64, 2 * 64, 64 * 32 + 32, 2 * 32, 32 * 73 + 73]


def test_an_mlp_accepts_other_widths_and_no_batch_norm() -> None:
    model = MLP(8, 3, num_classes=5, hidden=[10, 20, 30], batch_norm=False)
    linear = MLP(8, 3, num_classes=5, hidden=[])

    assert counts(model) == [192 * 10 + 10, 10 * 20 + 20, 20 * 30 + 30, 30 * 5 + 5]
    assert counts(linear) == [192 * 5 + 5]


def test_the_small_cnn_has_the_layers_of_the_hiragana_notebook() -> None:
    model = SmallCNN(48, 1, num_classes=73)

    assert kinds(model) == [*["Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"] * 2, "Flatten", "Linear"]
    assert counts(model) == [640, 128, 64 * 32 * 9 + 32, 64, 12 * 12 * 32 * 73 + 73]


def test_a_block_of_the_small_cnn_may_have_several_convolutions() -> None:
    model = SmallCNN(28, 1, num_classes=10, widths=[[8, 12], 16])

    inner, last = ["Conv2d", "BatchNorm2d", "ReLU"], ["Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"]
    assert kinds(model) == [*inner, *last, *last, "Flatten", "Linear"]
    assert counts(model) == [80, 16, 8 * 12 * 9 + 12, 24, 12 * 16 * 9 + 16, 32, 7 * 7 * 16 * 10 + 10]
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_block_without_a_convolution_is_refused() -> None:
    with pytest.raises(UserError, match="an empty block"):
        SmallCNN(28, 1, num_classes=10, widths=[[], 16])


def test_the_layers_that_lenet_shares_with_the_paper_have_its_parameter_counts() -> None:
    model = LeNet(28, 1, num_classes=10)

    assert kinds(model) == [*["Conv2d", "Tanh", "AvgPool2d"] * 2, "Flatten", *["Linear", "Tanh"] * 2, "Linear"]
    # C1, C5 and F6 as in the paper; C3 connects all channels (1,516 parameters in the paper); 10 linear outputs.
    assert counts(model) == [156, 16 * 6 * 25 + 16, 48_120, 10_164, 850]
    assert sum(counts(model)) == 61_706


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (33, 3), (48, 4)])
def test_a_training_step_works_for_any_size_and_number_of_channels(network, size, channels) -> None:
    torch.manual_seed(0)
    model = network(size, channels, num_classes=7)

    outputs = model(torch.rand(2, channels, size, size))
    outputs.logsumexp(dim=1).sum().backward()

    assert outputs.shape == (2, 7)
    assert outputs.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(("network", "minimum"), [(SmallCNN, 4), (KerasCNN, 8), (DeepConvNet, 4), (LeNet, 12)])
def test_a_too_small_image_raises_an_error_with_the_minimum_size(network, minimum) -> None:
    with pytest.raises(UserError, match=rf"at least {minimum}x{minimum} pixels, not {minimum - 1}x{minimum - 1}"):
        network(minimum - 1, 1, num_classes=3)

    outputs = network(minimum, 1, num_classes=3)(torch.rand(2, 1, minimum, minimum))

    assert outputs.shape == (2, 3)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_activation_changes_the_layers_but_not_the_weights(network) -> None:
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    outputs = {}

    for activation in ("relu", "sigmoid", "tanh", "gelu", "leaky_relu", "elu", "silu"):
        torch.manual_seed(0)
        outputs[activation] = network(16, 1, num_classes=3, activation=activation).eval()(images)

    distinct = {tuple(values.flatten().tolist()) for values in outputs.values()}
    assert len(distinct) == len(outputs)


@pytest.mark.parametrize("network", NETWORKS)
def test_an_unknown_activation_raises_an_error_with_the_nearest_name_and_all_names(network) -> None:
    with pytest.raises(UserError, match=r"is unknown \(did you mean 'leaky_relu'\?\); known:.*relu.*tanh"):
        network(28, 1, num_classes=3, activation="LeakyRelu")
