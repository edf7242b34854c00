"""Binary classification with one output."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agebench.errors import UserError
from agebench.heads.base import Head, label_shares


class Binary(Head):
    """Binary classification: the second label has the probability sigmoid(output).

    Args:
        num_labels: Must be 2.
        values: The value of each label, length 2.
        ordered: Whether the labels have an order.
        decode: The statistic of the posterior that is the point estimate, see Head.

    Raises:
        UserError: If num_labels is not 2.
    """

    def __init__(self, num_labels: int, values: Sequence[float], *, ordered: bool, decode: str = "auto") -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        if num_labels != 2:
            raise UserError(
                f"head=binary needs a target with two labels, but this target has {num_labels}: use head=softmax"
            )
        self.num_outputs = 1

    def start(self, counts: Tensor) -> Tensor | None:
        """Return the logit of the second label among the train labels, shape (1,); None for classes."""
        return label_shares(counts)[1:].logit().float() if self.ordered else None

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the binary cross-entropy in nats, averaged over the batch, shape ()."""
        return F.binary_cross_entropy_with_logits(outputs[:, 0], target.to(outputs.dtype))

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return the two probabilities, shape (B, 2)."""
        return torch.cat([(-outputs).sigmoid(), outputs.sigmoid()], dim=1)
