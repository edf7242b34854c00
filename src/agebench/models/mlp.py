"""A multi-layer perceptron on flattened images, with optional batch norm before each activation."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from agebench.models.activation import activation_layer
from agebench.schema import Count


class MLP(nn.Sequential):
    """Images (B, C, S, S) -> outputs (B, num_classes), through hidden linear layers.

    Args:
        image_size: S, in px.
        in_chans: C.
        num_classes: Number of outputs.
        hidden: Number of units of each hidden layer. An empty sequence gives a linear classifier.
        batch_norm: Whether there is batch norm between each hidden layer and its activation.
        activation: Name of the activation, as in `agebench.models.activation`.

    Raises:
        UserError: If the activation is unknown.

    Source:
        The hiragana73 notebook, which has 64 and 32 hidden units.
    """

    def __init__(
        self,
        image_size: int,
        in_chans: int,
        *,
        num_classes: int,
        hidden: Sequence[Count] = (64, 32),
        batch_norm: bool = True,
        activation: str = "relu",
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())  # (B, C * S * S)
        width = in_chans * image_size**2
        for number, units in enumerate(hidden, start=1):
            layers[f"linear{number}"] = nn.Linear(width, units)
            if batch_norm:
                layers[f"norm{number}"] = nn.BatchNorm1d(units)
            layers[f"activation{number}"] = activation_layer(activation)
            width = units
        layers["classifier"] = nn.Linear(width, num_classes)
        super().__init__(layers)
