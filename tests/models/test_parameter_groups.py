"""Parameter groups, against timm's own functions and by hand."""

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from agebench.heads import CORAL, Softmax
from agebench.models import MLP, SmallCNN
from agebench.models.parameter_groups import describe_groups, group_parameters, layer_scales, tabulate_parameters

HEAD = Softmax(3, [0.0, 1.0, 2.0], ordered=False)
TIMM = ["vit_tiny_patch16_224", "convnext_atto", "resnet18", "swin_tiny_patch4_window7_224"]


def settings_of(groups) -> dict[int, tuple[float, float]]:
    """Return the rate and weight decay of each parameter, by its identity."""
    return {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


@pytest.fixture(scope="module", params=TIMM)
def network(request) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(request.param, num_classes=3)


def test_weight_decay_is_that_of_timm(network) -> None:
    timms = param_groups_weight_decay(network, 0.05, no_weight_decay_list=getattr(network, "no_weight_decay", set)())
    expected = {id(p): (0.1, group["weight_decay"]) for group in timms for p in group["params"]}

    groups = group_parameters(network, HEAD, lr=0.1, weight_decay=0.05)

    assert settings_of(groups) == expected


def test_layer_decay_is_that_of_timm(network) -> None:
    exempt = getattr(network, "no_weight_decay", set)()
    timms = param_groups_layer_decay(network, 0.05, no_weight_decay_list=exempt, layer_decay=0.75)
    expected = {
        id(p): (pytest.approx(0.1 * group["lr_scale"]), group["weight_decay"])
        for group in timms
        for p in group["params"]
    }

    groups = group_parameters(network, HEAD, lr=0.1, weight_decay=0.05, scales=layer_scales(network, 0.75))

    assert settings_of(groups) == expected
    assert groups[0]["lr"] == 0.1 == max(group["lr"] for group in groups)


def test_the_layers_of_our_own_networks_are_their_layers_with_weights() -> None:
    model = MLP(8, 1, num_classes=3, hidden=[5, 4])

    groups = group_parameters(model, HEAD, lr=1.0, weight_decay=0.1, scales=layer_scales(model, 0.5))

    found = {name: settings_of(groups)[id(p)] for name, p in model.named_parameters()}
    assert found == {
        "linear1.weight": (0.25, 0.1),
        "linear1.bias": (0.25, 0.0),
        "norm1.weight": (0.25, 0.0),
        "norm1.bias": (0.25, 0.0),
        "linear2.weight": (0.5, 0.1),
        "linear2.bias": (0.5, 0.0),
        "norm2.weight": (0.5, 0.0),
        "norm2.bias": (0.5, 0.0),
        "classifier.weight": (1.0, 0.1),
        "classifier.bias": (1.0, 0.0),
    }


@pytest.mark.parametrize(("decay_norms", "decayed"), [(False, 0.0), (True, 0.1)])
def test_decay_norms_decays_everything(decay_norms, decayed) -> None:
    model, head = MLP(8, 1, num_classes=1, hidden=[4]), CORAL(3, [0.0, 1.0, 2.0], ordered=True)

    groups = group_parameters(model, head, lr=1.0, weight_decay=0.1, decay_norms=decay_norms)

    found = settings_of(groups)
    assert found[id(model.norm1.weight)] == (1.0, decayed)
    assert found[id(head.biases)] == (1.0, decayed)
    assert found[id(model.linear1.weight)] == (1.0, 0.1)
    assert len(groups) == (1 if decay_norms else 2)


def test_no_parameter_of_the_head_is_decayed_whatever_its_shape() -> None:
    model, head = MLP(8, 1, num_classes=1, hidden=[4]), CORAL(3, [0.0, 1.0, 2.0], ordered=True)
    head.prototypes = nn.Parameter(torch.zeros(3, 4))

    found = settings_of(group_parameters(model, head, lr=1.0, weight_decay=0.1))

    assert found[id(head.prototypes)] == found[id(head.biases)] == (1.0, 0.0)
    assert found[id(model.classifier.weight)] == (1.0, 0.1)


def test_frozen_parameters_are_in_no_group_and_the_table_lists_them() -> None:
    model = SmallCNN(16, 1, num_classes=3)
    frozen = next(iter(model.parameters()))
    frozen.requires_grad = False

    groups = group_parameters(model, HEAD, lr=1.0, weight_decay=0.1, scales=layer_scales(model, 0.5))
    rows = tabulate_parameters(model.named_parameters(), groups, lr=9.0, weight_decay=9.0, first_epochs={})

    assert id(frozen) not in settings_of(groups)
    assert sum(p.numel() for group in groups for p in group["params"]) == sum(row[2] for row in rows if row[3])
    assert rows[0][3:] == (False, "", "", "")
    assert rows[-1][3:] == (True, 1.0, 0.0, 0)


def test_the_line_about_groups_says_rates_and_what_has_no_weight_decay() -> None:
    rows = [
        ("a", "2x2", 4, True, 0.1, 0.05, 0),
        ("b", "2", 2, True, 0.1, 0.0, 0),
        ("c", "3x3", 9, True, 0.001, 0.05, 0),
        ("d", "7", 7, False, "", "", ""),
    ]

    assert describe_groups(rows) == (
        "2 rates from 0.001 (first layer) to 0.1 (classifier); weight decay 0.05, none on 2 parameters (biases, norms, "
        "positions)"
    )
    assert describe_groups(rows[:1]) == ""


def test_parallel_branches_are_one_layer() -> None:
    block = nn.Module()
    block.a, block.b = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(block, nn.BatchNorm2d(2)), nn.Linear(2, 3))

    groups = group_parameters(model, HEAD, lr=1.0, weight_decay=0.1, scales=layer_scales(model, 0.5))

    rates = {name: settings_of(groups)[id(p)][0] for name, p in model.named_parameters()}
    assert rates == {
        **dict.fromkeys(["0.weight", "0.bias"], 0.25),
        **dict.fromkeys(["1.0.a.weight", "1.0.a.bias", "1.0.b.weight", "1.0.b.bias", "1.1.weight", "1.1.bias"], 0.5),
        **dict.fromkeys(["2.weight", "2.bias"], 1.0),
    }
