"""Dropout and Flatten layers that are faster on a CPU than those of PyTorch."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Dropout with a faster random mask on CPUs. Inputs of any shape; outputs have the same shape.

    On a CPU the mask uses 16 random bits per element. The dropout probability is therefore rounded to a multiple of
    1 / 65,536, and the scale matches the rounded probability. Drawing the mask is 7 times faster than in PyTorch, where
    it takes a seventh of a training step of `keras_cnn`. PyTorch's implementation is used on other devices, in place
    and under torch.compile.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Apply dropout in training mode; return the inputs unchanged in evaluation mode."""
        dropped = round(self.p * 2**16)
        fast = self.training and input.device.type == "cpu" and 0 < dropped < 2**16 and not self.inplace
        if not fast or torch.compiler.is_compiling():
            return super().forward(input)
        like = torch.empty_like(input)  # dense, with the memory format of the inputs
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64, device="cpu").random_(-(2**63), None)
        bits = words.view(torch.int16)[: input.numel()].as_strided(like.shape, like.stride())
        return input * torch.ge(bits, dropped - 2**15, out=like).mul_(2**16 / (2**16 - dropped))


class Flatten(nn.Module):
    """Image features (B, C, H, W) -> (B, H * W * C), in the order of Keras (row, column, channel).

    This is also the order in memory of `channels_last` features, so that neither forward nor backward copies them.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the flattened features, a view of `channels_last` inputs."""
        return input.permute(0, 2, 3, 1).flatten(1)
