"""The deep convolutional network of the "deep learning" chapter: six 3x3 convolutions with He initialization."""

from collections import OrderedDict

from torch import nn

from agebench.models.activation import activation_layer
from agebench.models.minimum_size import require_size
from agebench.schema import Share


class DeepConvNet(nn.Sequential):
    """Images (B, C, S, S) -> outputs (B, num_classes), through 16-16, 32-32 and 64-64 channels and 50 hidden units.

    Initial weights are drawn from a normal distribution of variance 2 / fan-in. Initial biases are zero. Dropout is
    scaled in training, as in PyTorch; the book scales it at evaluation, which is equivalent up to a constant factor.

    Args:
        image_size: S, in px.
        in_chans: C.
        num_classes: Number of outputs.
        activation: Name of the activation, as in `agebench.models.activation`.
        dropout: Dropout probability of the hidden units.
        output_dropout: Dropout probability of the outputs, as in the book. Use 0 with heads other than softmax.

    Raises:
        UserError: If the images are below 4x4 px, or the activation is unknown.

    Source:
        Saitoh, Deep Learning from Scratch (2016), chapter 8, which the lectures follow.
    """

    def __init__(
        self,
        image_size: int,
        in_chans: int,
        *,
        num_classes: int,
        activation: str = "relu",
        dropout: Share = 0.5,
        output_dropout: Share = 0.5,
    ) -> None:
        require_size("deep_convnet", image_size, minimum=4)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels, side = in_chans, image_size
        # The fourth convolution has a padding of 2, so that the 14 px of MNIST become 16, which can be halved evenly.
        for number, (width, padding) in enumerate([(16, 1), (16, 1), (32, 1), (32, 2), (64, 1), (64, 1)], start=1):
            layers[f"conv{number}"] = nn.Conv2d(channels, width, 3, padding=padding)
            layers[f"activation{number}"] = activation_layer(activation)
            channels, side = width, side + 2 * padding - 2
            if number % 2 == 0:
                layers[f"pool{number // 2}"] = nn.MaxPool2d(2)
                side //= 2
        layers["flatten"] = nn.Flatten()  # (B, 64 * side * side)
        layers["linear1"] = nn.Linear(channels * side**2, 50)
        layers["activation7"] = activation_layer(activation)
        layers["dropout1"] = nn.Dropout(dropout)
        layers["classifier"] = nn.Linear(50, num_classes)
        layers["dropout2"] = nn.Dropout(output_dropout)
        super().__init__(layers)
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # both types have a bias here
