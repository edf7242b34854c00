"""Find the classifier layers of a network. All other layers are the backbone."""

from typing import Any

from torch import nn


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
