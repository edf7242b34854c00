"""CORN: R - 1 conditional binary tasks, each trained on the images above the previous label."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agebench.heads.base import label_shares
from agebench.heads.ranks import RankHead, binary_labels


class CORN(RankHead):
    """Ordinal regression with R - 1 conditional binary tasks `y > k, given y > k - 1`.

    P(y > k) is the product of the conditional probabilities up to k. It never increases with k.

    Args:
        num_labels: R.
        values: The value of each label in the target's unit, ascending, length R.
        ordered: Must be true.
        decode: The statistic of the posterior that is the point estimate, see Head. `auto` and `median` are the rule of
            the paper: the label index is the number of k with P(y > k) > 0.5.

    Raises:
        UserError: If the labels have no order, or if there is only one.

    Source:
        Shi, Cao, Raschka (2021), Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional
        Probabilities, arXiv:2111.08851. The paper predicts a rank and no posterior.
    """

    def __init__(self, num_labels: int, values: Sequence[float], *, ordered: bool, decode: str = "auto") -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        self.num_outputs = num_labels - 1

    def start(self, counts: Tensor) -> Tensor:
        """Return the logits of P(y > k, given y > k - 1) among the train labels, shape (R - 1,)."""
        shares = label_shares(counts)
        above = shares.flip(0).cumsum(0).flip(0)[1:]  # (R,) -> (R - 1,)
        return (above / shares[:-1]).log().float()

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the binary cross-entropy of the conditional tasks in nats, shape ().

        Task k includes the images with y >= k. The mean is over all pairs of a task and an image that it includes, as
        in equation 5 of the paper, and not over images. Every image belongs to the first task.
        """
        tasks = torch.arange(outputs.shape[1], device=target.device)
        included = (target[:, None] >= tasks).to(outputs.dtype)  # (B, 1) >= (R - 1,) -> (B, R - 1)
        labels = binary_labels(target, outputs)
        return F.binary_cross_entropy_with_logits(outputs, labels, weight=included, reduction="sum") / included.sum()

    def sample_weights(self, target: Tensor) -> Tensor:
        """Return the number of tasks that include each image, shape (B,)."""
        return (target + 1).clamp(max=self.num_outputs).to(torch.float32)

    def above(self, outputs: Tensor) -> Tensor:
        """Return P(y > k), shape (B, R - 1). It never increases with k."""
        return F.logsigmoid(outputs).cumsum(dim=1).exp()  # ONNX has no cumulative product

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return P(y > k - 1) * P(y <= k, given y > k - 1), shape (B, R)."""
        one = torch.ones_like(outputs[:, :1])
        reached = torch.cat([one, self.above(outputs)], dim=1)  # (B, R - 1) -> (B, R)
        return reached * torch.cat([(-outputs).sigmoid(), one], dim=1)
