"""Which layers of a network are its classifier: all before them are the backbone."""

from typing import Any

from torch import nn


def classifier_layers(model: nn.Module) -> tuple[nn.Module, ...]:
    """Return the layers that turn features into outputs: what timm calls the classifier, else the last linear layer.

    A distilled transformer has two. Hooking the input of the first gives the features of an image.

    Raises:
        ValueError: If the network has neither.
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
