"""Find the classifier layers of a network, and set where they start. All other layers are the backbone."""

from typing import Any

import torch
from torch import Tensor, nn


def classifier_layers(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the layers that map features to outputs: timm's classifier, or the last linear layer of other networks.

    A distilled transformer has two classifier layers. The input of the first layer is the feature vector of an image.

    Raises:
        ValueError: If the network has no classifier and no linear layer.
    """
    getter: Any = getattr(model, "get_classifier", None)
    named = getter() if getter is not None else None
    layers = tuple(named) if isinstance(named, tuple | list) else (named,)
    layers = tuple(layer for layer in layers if isinstance(layer, nn.Module) and any(True for _ in layer.parameters()))
    if layers:
        return layers
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError(f"{type(model).__name__} has no get_classifier() and no linear layer")
    return (linear[-1],)


def start_classifier(model: nn.Module, outputs: Tensor) -> None:
    """Set the weights of the classifier to zero and its biases to these outputs, which every image then has.

    A network whose classifier has no bias, or is not the last layer, stays as it is.

    Args:
        model: A new network.
        outputs: float32, shape (num_outputs,).
    """
    for layer in classifier_layers(model):
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None and layer.bias.shape == outputs.shape:
            with torch.no_grad():
                layer.weight.zero_()
                layer.bias.copy_(outputs)
