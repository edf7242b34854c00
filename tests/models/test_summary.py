"""The layer table: it equals the table of the slides for the Keras CNN, and is short for large networks."""

import re

import pytest
import timm
import torch
from torch import nn

from agebench.models.keras_cnn import KerasCNN
from agebench.models.summary import MAX_ROWS, count_parameters, summarise_model


def rows(table: str) -> list[tuple[str, str, str]]:
    """Return (layer, output shape, parameters) of each row."""
    body = table.splitlines()[2:-2]
    return [tuple(re.split(r"\s{2,}", line.strip())) for line in body]  # type: ignore[misc]


def test_the_keras_cnn_has_the_table_of_the_slides() -> None:
    table = summarise_model(KerasCNN(28, 1, num_classes=10), (1, 28, 28)).text

    found = [(shape, count) for name, shape, count in rows(table) if "activation" not in name]
    # Keras has channels last, and lists no activations.
    assert found == [
        ("(B, 64, 28, 28)", "640"),
        ("(B, 64, 14, 14)", "0"),
        ("(B, 128, 12, 12)", "73,856"),
        ("(B, 128, 6, 6)", "0"),
        ("(B, 128, 6, 6)", "0"),
        ("(B, 4608)", "0"),
        ("(B, 128)", "589,952"),
        ("(B, 128)", "0"),
        ("(B, 10)", "1,290"),
    ]
    assert table.splitlines()[-1] == "parameters: 665,738 total, 665,738 trainable, 0 frozen"


def test_each_row_names_the_layer_and_its_type() -> None:
    assert rows(summarise_model(KerasCNN(28, 1, num_classes=10), (1, 28, 28)).text)[0][0] == "conv1 (Conv2d)"


@pytest.mark.parametrize("name", ["resnet152", "densenet121", "vit_base_patch16_224", "convnext_tiny", "vgg19"])
def test_a_large_network_is_listed_by_block(name) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)

    listed = rows(summarise_model(model, (3, 224, 224)).text)

    assert 3 <= len(listed) <= MAX_ROWS == 40
    assert all(shape.startswith("(B, ") for layer, shape, _ in listed if not layer.endswith("(Parameter)"))
    assert sum(int(count.replace(",", "")) for _, _, count in listed) == sum(p.numel() for p in model.parameters())


def test_the_blocks_of_a_large_network_contain_each_parameter_once() -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet152", pretrained=False)

    listed = rows(summarise_model(model, (3, 224, 224)).text)

    assert sum(int(count.replace(",", "")) for _, _, count in listed) == 60_192_808  # torchvision documentation


class TokenNet(nn.Module):
    """An attention, whose inner layer is never called, with a parameter beside the layers and a weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight

    def forward(self, x):
        x = x.flatten(2) + self.token
        return self.second(self.first(self.attention(x, x, x)[0])).mean(dim=1)


def test_the_rows_sum_to_the_total_with_attention_free_parameters_and_a_shared_weight() -> None:
    listed = rows(summarise_model(TokenNet(), (4, 2, 4)).text)

    # Attention: 3 * 8 * 8 weights and 3 * 8 biases in, 8 * 8 and 8 out.
    assert listed == [
        ("token (Parameter)", "-", "8"),
        ("attention (MultiheadAttention)", "(B, 4, 8)", "288"),
        ("first (Linear)", "(B, 4, 8)", "72"),
        ("second (Linear)", "(B, 4, 8)", "8"),
    ]


def test_a_long_sequence_of_layers_is_listed_by_block() -> None:
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(60)])

    listed = rows(summarise_model(nn.Sequential(nn.Flatten(), model), (1, 2, 2)).text)

    assert len(listed) <= MAX_ROWS
    assert sum(int(count.replace(",", "")) for _, _, count in listed) == 60 * 20


def test_frozen_parameters_are_counted_separately() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
    model[1].requires_grad_(False)

    assert count_parameters(model) == (23, 8)
    assert summarise_model(model, (1, 2, 2)).text.endswith("23 total, 8 trainable, 15 frozen")


def test_the_network_is_unchanged() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.Flatten(), nn.Linear(8, 2)))
    model.train()
    model[1].eval()  # as a frozen backbone has it
    before = {name: value.clone() for name, value in model.state_dict().items()}

    summarise_model(model, (1, 2, 2))

    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
