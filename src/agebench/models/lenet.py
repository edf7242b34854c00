"""LeNet-5, the first convolutional network in the lectures' history of deep learning."""

from collections import OrderedDict

from torch import nn

from agebench.models.activation import activation_layer
from agebench.models.minimum_size import require_size


class LeNet(nn.Sequential):
    """Images (B, C, S, S) -> outputs (B, num_classes); 61,706 parameters for 28x28 grey pixels and 10 classes.

    Args:
        image_size: S, in px.
        in_chans: C.
        num_classes: Number of outputs.
        activation: Name of the activation, as in `agebench.models.activation`.

    Raises:
        UserError: If the images are below 12x12 px, or the activation is unknown.

    Source:
        LeCun, Bottou, Bengio, Haffner (1998), doi:10.1109/5.726791. Departs as common implementations do: the first
        convolution pads 28 px to the paper's 32 px, the second convolution connects all channels, pooling has no
        weights, tanh is unscaled, the initialization is PyTorch's, and a linear layer replaces the radial basis units.
    """

    def __init__(self, image_size: int, in_chans: int, *, num_classes: int, activation: str = "tanh") -> None:
        require_size("lenet", image_size, minimum=12)
        side = (image_size // 2 - 4) // 2  # pooling, a 5x5 convolution without padding, pooling
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(in_chans, 6, 5, padding=2),
                activation1=activation_layer(activation),
                pool1=nn.AvgPool2d(2),
                conv2=nn.Conv2d(6, 16, 5),
                activation2=activation_layer(activation),
                pool2=nn.AvgPool2d(2),
                flatten=nn.Flatten(),  # (B, 16 * side * side)
                linear1=nn.Linear(16 * side**2, 120),
                activation3=activation_layer(activation),
                linear2=nn.Linear(120, 84),
                activation4=activation_layer(activation),
                classifier=nn.Linear(84, num_classes),
            )
        )
