"""Shared code of the heads that reduce ordinal regression to R - 1 binary tasks `y > k`."""

from abc import abstractmethod

import torch
from torch import Tensor

from agebench.heads.base import Head, label_shares


class RankHead(Head):
    """Ordinal regression with R - 1 binary tasks `y > k`, for k in 0..R-2.

    The median of the posterior is the label whose index is the number of tasks with P(y > k) > 0.5. This is the rule of
    Li and Lin (2006), NIPS, which OR-CNN, CORAL and CORN use, so `decode=auto` predicts as in these papers.
    """

    needs_order = True

    @abstractmethod
    def above(self, outputs: Tensor) -> Tensor:
        """Return P(y > k), shape (B, R - 1)."""

    def point(self, outputs: Tensor) -> Tensor:
        """Return the point estimate of each image in the target's unit, shape (B,)."""
        if self.decode != "median":
            return super().point(outputs)
        # Equal to the median of the posterior, but without the rounding of its cumulative sum.
        return self.values[(self.above(outputs) > 0.5).sum(dim=1)]  # (B, R - 1) -> (B,)


def start_above(counts: Tensor) -> Tensor:
    """Return the logits of P(y > k) among the train labels, float32, shape (R - 1,).

    Args:
        counts: The number of train images of each label, int64, shape (R,).
    """
    below = label_shares(counts).cumsum(0)[:-1]  # (R,) -> (R - 1,)
    return (1 - below).logit().float()


def binary_labels(target: Tensor, outputs: Tensor) -> Tensor:
    """Return the label of each binary task, 1 if y > k, else 0, with the type of the outputs, shape (B, R - 1).

    Args:
        target: Label indices in [0, R), int64, shape (B,).
        outputs: Any tensor of shape (B, R - 1).
    """
    tasks = torch.arange(outputs.shape[1], device=target.device)
    return (target[:, None] > tasks).to(outputs.dtype)  # (B, 1) > (R - 1,) -> (B, R - 1)


def rearranged_posterior(logits: Tensor) -> Tensor:
    """Return the probability of each label from P(y > k), which may increase with k, shape (B, R).

    P(y > k) is sorted in descending order, and the posterior is the differences. This is the rearrangement of
    Chernozhukov, Fernández-Val, Galichon (2009), Biometrika, arXiv:0806.4730. Sorting a curve never increases its
    distance to a monotone curve. It keeps the number of tasks with P(y > k) > 0.5 and, for evenly spaced labels, the
    mean.

    Args:
        logits: Logits of P(y > k), finite, shape (B, R - 1).
    """
    ends = torch.full_like(logits[:, :1], torch.inf)
    cuts = logits.sort(dim=1, descending=True).values
    upper, lower = torch.cat([ends, cuts], dim=1), torch.cat([cuts, -ends], dim=1)  # (B, R - 1) -> (B, R)
    # Equal to sigmoid(upper) - sigmoid(lower), but without cancellation, which rounds small probabilities to zero.
    return upper.sigmoid() * (-lower).sigmoid() * -torch.expm1(lower - upper)
