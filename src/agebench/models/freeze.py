"""Frozen backbones: only the classifier is trained."""

from torch import nn

from agebench.models.classifier import classifier_layers


def freeze_backbone(model: nn.Module) -> None:
    """Disable the gradients of all parameters outside the classifier.

    This does not stop batch norm from updating its running statistics; use `keep_frozen_in_eval` for that.
    """
    model.requires_grad_(False)
    for layer in classifier_layers(model):
        layer.requires_grad_(True)


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
