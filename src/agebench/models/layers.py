"""Two layers that compute what PyTorch's of the same name do, in less of a CPU's time."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Set a share `p` of the inputs to 0 and scale up the rest; inputs and outputs of any shape.

    On a CPU the mask comes from 16 random bits an element: a share of round(65,536 p) / 65,536, exact for 0.5 and 0.25,
    whose own scale keeps the expectation. PyTorch's draws take seven times as long, a seventh of a step of `keras_cnn`.
    On other devices, in place and under torch.compile it is PyTorch's.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the inputs as they are in evaluation; see the class for training."""
        dropped = round(self.p * 2**16)
        ours = self.training and input.device.type == "cpu" and 0 < dropped < 2**16 and not self.inplace
        if not ours or torch.compiler.is_compiling():
            return super().forward(input)
        like = torch.empty_like(input)  # dense, and in the inputs' memory format
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64, device="cpu").random_(-(2**63), None)
        bits = words.view(torch.int16)[: input.numel()].as_strided(like.shape, like.stride())
        return input * torch.ge(bits, dropped - 2**15, out=like).mul_(2**16 / (2**16 - dropped))


class Flatten(nn.Module):
    """Images' features (B, C, H, W) -> (B, H * W * C), in Keras's order (row, column, channel).

    It is the order in memory of features in `channels_last`, so that nothing is copied, neither forward nor backward.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the features, which share the inputs' memory where they are in `channels_last`."""
        return input.permute(0, 2, 3, 1).flatten(1)
