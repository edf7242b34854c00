"""A network that takes part in agebench as model=my_backbone."""

from torch import nn


class MyBackbone(nn.Sequential):
    """Images (B, C, S, S), normalised float32 -> outputs (B, num_classes).

    Args:
        in_chans: C, given by agebench.
        num_classes: Number of outputs, given by agebench: it depends on the head.
        width: Channels of the convolutions; a key of conf/model/my_backbone.yaml.
    """

    def __init__(self, *, in_chans: int, num_classes: int, width: int = 16) -> None:
        super().__init__(
            nn.Conv2d(in_chans, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),  # (B, width, 2, 2) -> (B, 4 * width)
            nn.Linear(4 * width, num_classes),
        )
