"""CORN: R - 1 questions, each asked only of the images that are above the label before."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agebench.heads.ranks import RankHead, answers


class CORN(RankHead):
    """Answers R - 1 questions, `above label k, given above k - 1?`, and multiplies the answers up.

    P(y > k) is the product of the answers up to k: it never rises with k, whatever the outputs.

    Args:
        num_labels: R.
        values: What each label is worth in the target's unit, ascending, length R.
        ordered: Whether the labels have an order; it needs one.
        decode: How a point is taken from the posterior, see Head. `auto` and `median` are the paper's rule: the label
            at the number of k whose P(y > k) is over one half.

    Raises:
        UserError: If the labels have no order, or there is one alone.

    Source:
        Shi, Cao, Raschka (2021), Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional
        Probabilities, arXiv:2111.08851. Departs in nothing; the paper gives a rank and no posterior.
    """

    def __init__(self, num_labels: int, values: Sequence[float], *, ordered: bool, decode: str = "auto") -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        self.num_outputs = num_labels - 1

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of the questions that were asked, in nats, shape ().

        Question k is asked of the images whose label is k or more. The mean is over all pairs of an image and a
        question asked of it (the paper's equation 5), not over images: a batch of high labels has more of them. A
        question that no image is asked adds nothing; the first is asked of all, so there is always one.
        """
        questions = torch.arange(outputs.shape[1], device=target.device)
        asked = (target[:, None] >= questions).to(outputs.dtype)  # (B, 1) >= (R - 1,) -> (B, R - 1)
        wanted = answers(target, outputs)
        return F.binary_cross_entropy_with_logits(outputs, wanted, weight=asked, reduction="sum") / asked.sum()

    def sample_weights(self, target: Tensor) -> Tensor:
        """Return how many questions are asked of each image, shape (B,)."""
        return (target + 1).clamp(max=self.num_outputs).to(torch.float32)

    def above(self, outputs: Tensor) -> Tensor:
        """Return P(y > k), shape (B, R - 1); it never rises with k."""
        return F.logsigmoid(outputs).cumsum(dim=1).exp()  # ONNX has no cumulative product

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return P(y > k - 1) times the answer `no` to question k, shape (B, R); nothing is subtracted."""
        one = torch.ones_like(outputs[:, :1])
        reached = torch.cat([one, self.above(outputs)], dim=1)  # (B, R - 1) -> (B, R)
        return reached * torch.cat([(-outputs).sigmoid(), one], dim=1)
