"""Frozen backbones: only the classifier is trained, for all epochs or for the first ones."""

from typing import Literal

from torch import nn

from agebench.models.classifier import classifier_layers
from agebench.models.parameter_groups import layer_numbers


def freeze_backbone(model: nn.Module) -> None:
    """Disable the gradients of all parameters outside the classifier.

    This does not stop batch norm from updating its running statistics; use `keep_frozen_in_eval` for that.
    """
    model.requires_grad_(False)
    for layer in classifier_layers(model):
        layer.requires_grad_(True)


def first_epochs(model: nn.Module, mode: Literal["head_then_all", "gradual"], epochs: int) -> dict[str, int]:
    """Return the epoch, from 0, from which each parameter outside the classifier is trained.

    Args:
        model: The network.
        mode: `head_then_all` starts all of them at once, `gradual` one block after another, from the last to the first.
        epochs: The number of epochs after which all parameters are trained.

    Source:
        Howard and Ruder (2018), ULMFiT, arXiv:1801.06146, for `gradual`. Departs in one way: the blocks start at equal
        distances, rounded up to epochs, not one an epoch.
    """
    backbone = backbone_names(model)
    if mode == "head_then_all":
        return dict.fromkeys(backbone, epochs)
    layers = layer_numbers(model, coarse=True)
    blocks = sorted({layers[name] for name in backbone}, reverse=True)
    starts = {block: -(-epochs * (i + 1) // len(blocks)) for i, block in enumerate(blocks)}
    return {name: starts[layers[name]] for name in backbone}


def backbone_names(model: nn.Module) -> list[str]:
    """Return the names of the parameters outside the classifier."""
    classifier = {id(parameter) for layer in classifier_layers(model) for parameter in layer.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in classifier]


def keep_frozen_in_eval(model: nn.Module) -> None:
    """Put every module whose parameters are all frozen into evaluation mode, including its submodules.

    Call this after each `train()`, because `train()` undoes it. Frozen batch norm layers then keep their running
    statistics, and frozen stages apply no stochastic depth. Dropout outside the frozen modules, such as in front of the
    classifier, stays active. A model without frozen parameters does not change.
    """
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
