"""A small convolutional network: 3x3 convolutions with batch norm and max pooling, then one linear layer."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from agebench.errors import UserError
from agebench.models.activation import activation_layer
from agebench.models.layers import Flatten
from agebench.models.minimum_size import require_size
from agebench.schema import Count


class SmallCNN(nn.Sequential):
    """Images (B, C, S, S) -> outputs (B, num_classes). The pooling of each block halves the side.

    Every block pools before its activation; the second block of the notebook pools after it. For monotonic
    activations such as ReLU (not gelu, silu and mish) both orders give the same outputs, and this order is faster.

    Args:
        image_size: S, in px.
        in_chans: C.
        num_classes: Number of outputs.
        widths: Output channels of the convolution of each block; at least one block. A list, as in `[[32, 32], 64]`, is
            a block with several convolutions, of which each but the last is followed by batch norm and activation only.
        activation: Name of the activation, as in `agebench.models.activation`.

    Raises:
        UserError: If the images are too small for the poolings, a block is empty, or the activation is unknown.

    Source:
        The hiragana73 notebook, which has 64 and 32 channels.
    """

    def __init__(
        self,
        image_size: int,
        in_chans: int,
        *,
        num_classes: int,
        widths: Sequence[Count | Sequence[Count]] = (64, 32),
        activation: str = "relu",
    ) -> None:
        require_size("small_cnn", image_size, minimum=2 ** len(widths))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels, side = in_chans, image_size
        for number, block in enumerate(widths, start=1):
            if block == []:
                raise UserError("model.widths has an empty block: give each block one or more numbers of channels")
            *inner, last = [block] if isinstance(block, int) else block
            for i, width in enumerate(inner, start=1):
                layers[f"conv{number}_{i}"] = nn.Conv2d(channels, width, 3, padding=1)
                layers[f"norm{number}_{i}"] = nn.BatchNorm2d(width)
                layers[f"activation{number}_{i}"] = activation_layer(activation)
                channels = width
            layers[f"conv{number}"] = nn.Conv2d(channels, last, 3, padding=1)
            layers[f"norm{number}"] = nn.BatchNorm2d(last)
            layers[f"pool{number}"] = nn.MaxPool2d(2)
            layers[f"activation{number}"] = activation_layer(activation)
            channels, side = last, side // 2
        layers["flatten"] = Flatten()  # (B, side * side * channels)
        layers["classifier"] = nn.Linear(channels * side**2, num_classes)
        super().__init__(layers)
