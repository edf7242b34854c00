"""Training the classifier alone, on a backbone that stays as it is."""

from torch import nn

from agebench.models.classifier import classifier_layers


def freeze_backbone(model: nn.Module) -> None:
    """Switch off the gradients of every parameter outside the classifier.

    Batch norm would still follow the new images through its running statistics: `keep_frozen_in_eval` stops it.
    """
    model.requires_grad_(False)
    for layer in classifier_layers(model):
        layer.requires_grad_(True)


def keep_frozen_in_eval(model: nn.Module) -> None:
    """Put every part whose parameters are all frozen into evaluation mode, with all that is inside it.

    Call it after each `train()`, which would undo it: a LightningModule overrides `train(mode)`, calls the parent's,
    and then this. Batch norm keeps its statistics and a frozen stage drops no paths; a dropout that stands beside the
    classifier, outside any frozen part, goes on regularising it. Without a frozen parameter nothing changes.
    """
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
