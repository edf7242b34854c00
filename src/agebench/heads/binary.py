"""One output for a question with two answers."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agebench.errors import UserError
from agebench.heads.base import Head


class Binary(Head):
    """Gives the second of two labels the probability sigmoid(output).

    Args:
        num_labels: Must be 2.
        values: What each label is worth, length 2.
        ordered: Whether the labels have an order.
        decode: How a point is taken from the posterior, see Head.

    Raises:
        UserError: If there are more or fewer than two labels.
    """

    def __init__(self, num_labels: int, values: Sequence[float], *, ordered: bool, decode: str = "auto") -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        if num_labels != 2:
            raise UserError(
                f"head=binary answers a question with two labels, and this target has {num_labels}: head=softmax"
            )
        self.num_outputs = 1

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the binary cross-entropy in nats, averaged over the batch, shape ()."""
        return F.binary_cross_entropy_with_logits(outputs[:, 0], target.to(outputs.dtype))

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return the two probabilities, shape (B, 2)."""
        return torch.cat([(-outputs).sigmoid(), outputs.sigmoid()], dim=1)
