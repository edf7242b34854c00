"""A multi-layer perceptron: pixels in a row, linear layers, batch norm before the activation."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from agebench.models.activation import activation_layer


class MLP(nn.Sequential):
    """Images (B, C, S, S) -> outputs (B, num_classes), through one linear layer for every hidden width.

    Args:
        image_size: S, in px.
        in_chans: C.
        num_classes: Number of outputs.
        hidden: Units of each hidden layer; none makes it a linear classifier.
        batch_norm: Whether a batch norm stands between a hidden layer and its activation.
        activation: Name of the activation, as in `agebench.models.activation`.

    Raises:
        UserError: If the activation is unknown.

    Source:
        The hiragana73 notebook, with its 64 and 32 units.
    """

    def __init__(
        self,
        image_size: int,
        in_chans: int,
        *,
        num_classes: int,
        hidden: Sequence[int] = (64, 32),
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
