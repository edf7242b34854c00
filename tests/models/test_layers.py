"""The fast Dropout and Flatten layers, and the networks that use them against their sources."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from agebench.models.keras_cnn import KerasCNN
from agebench.models.layers import Dropout, Flatten
from agebench.models.small_cnn import SmallCNN

CHANNELS_LAST = torch.channels_last


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
def test_dropout_zeroes_the_given_share_and_scales_the_rest(share: float, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    inputs = torch.ones(40, 25, 10, 10).contiguous(memory_format=memory_format).requires_grad_()

    outputs = Dropout(share)(inputs)
    outputs.sum().backward()

    # Five standard errors sqrt(p (1 - p) / n) of a share.
    tolerance = 5 * np.sqrt(share * (1 - share) / inputs.numel())
    kept = outputs != 0
    assert (~kept).double().mean().item() == pytest.approx(share, abs=tolerance)
    # p is rounded to 1 / 65,536.
    np.testing.assert_allclose(outputs[kept].detach(), 1 / (1 - share), rtol=1e-4)
    assert torch.equal(inputs.grad, outputs.detach())  # the inputs are 1, so both are the mask
    assert outputs.is_contiguous(memory_format=memory_format)


def test_the_four_masks_of_a_random_word_have_the_given_share_and_are_independent() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.3)(torch.ones(400_000)) != 0).double().view(-1, 4)

    correlations = np.corrcoef(kept.T.numpy())

    assert kept.mean(dim=0).tolist() == pytest.approx([0.7] * 4, abs=5 * np.sqrt(0.21 / 100_000))
    assert np.abs(correlations - np.eye(4)).max() < 5 / np.sqrt(100_000)


def test_dropout_follows_the_seed() -> None:
    inputs = torch.randn(33, 3)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(Dropout(0.5)(inputs))

    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_dropout_does_nothing_in_evaluation_mode_and_accepts_probabilities_0_and_1() -> None:
    inputs = torch.randn(5, 7)

    assert torch.equal(Dropout(0.5).eval()(inputs), inputs)
    assert torch.equal(Dropout(0.0)(inputs), inputs)
    assert not Dropout(1.0)(inputs).any()


def test_dropout_works_for_inputs_with_any_strides() -> None:
    torch.manual_seed(0)
    inputs = torch.arange(1.0, 241.0).view(4, 5, 12).transpose(0, 2)[::3, :, 1:]

    outputs = Dropout(0.25)(inputs)

    kept = outputs != 0
    assert 0 < kept.sum() < inputs.numel()
    torch.testing.assert_close(outputs[kept], inputs[kept] / 0.75)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST])
def test_flatten_uses_the_order_of_keras(memory_format: torch.memory_format) -> None:
    images = torch.randn(2, 3, 4, 5).contiguous(memory_format=memory_format)

    flat = Flatten()(images)

    assert np.array_equal(flat.numpy(), np.ascontiguousarray(images.numpy().transpose(0, 2, 3, 1)).reshape(2, 60))
    assert (flat.data_ptr() == images.data_ptr()) == (memory_format is CHANNELS_LAST)


def channels_first(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Reorder the columns of a linear layer's weight from (row, column, channel) to (channel, row, column)."""
    return weight.view(len(weight), -1, channels).transpose(1, 2).flatten(1)


def keras_slides(model: KerasCNN, images: torch.Tensor) -> torch.Tensor:
    """Apply the activation before pooling, as in the slides."""
    features = functional.max_pool2d(functional.relu(model.conv1(images)), 2)
    features = functional.max_pool2d(functional.relu(model.conv2(features)), 2).flatten(1)
    hidden = functional.linear(features, channels_first(model.dense1.weight, 128), model.dense1.bias)
    return model.classifier(functional.relu(hidden))


def hiragana_notebook(model: SmallCNN, images: torch.Tensor) -> torch.Tensor:
    """Pool before the activation in the first block and after it in the second, as in the notebook."""
    features = functional.relu(functional.max_pool2d(model.norm1(model.conv1(images)), 2))
    features = functional.max_pool2d(functional.relu(model.norm2(model.conv2(features))), 2).flatten(1)
    return functional.linear(features, channels_first(model.classifier.weight, 32), model.classifier.bias)


@pytest.mark.parametrize(("network", "source"), [(KerasCNN, keras_slides), (SmallCNN, hiragana_notebook)])
def test_a_network_has_the_outputs_and_gradients_of_its_source(network, source) -> None:
    torch.manual_seed(0)
    model = network(16, 2, num_classes=5).double()
    for layer in model:
        if isinstance(layer, nn.Dropout):
            layer.eval()
    images, labels = torch.randn(6, 2, 16, 16).double(), torch.tensor([0, 1, 2, 3, 4, 0])
    expected = source(model, images)
    functional.cross_entropy(expected, labels).backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()

    outputs = model(images)
    functional.cross_entropy(outputs, labels).backward()

    torch.testing.assert_close(outputs, expected)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
