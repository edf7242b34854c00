"""What the heads share that ask, of every label but the last, whether an image is above it."""

from abc import abstractmethod

import torch
from torch import Tensor

from agebench.heads.base import Head


class RankHead(Head):
    """Ranks an image by R - 1 yes/no questions, `is its label above k?`, for k in 0..R-2.

    The median of the posterior is the label at the number of questions answered yes: the rule of Li and Lin (2006),
    NIPS, that OR-CNN, CORAL and CORN use. So `decode=auto` is the papers' own prediction.
    """

    needs_order = True

    @abstractmethod
    def above(self, outputs: Tensor) -> Tensor:
        """Return P(y > k), shape (B, R - 1)."""

    def point(self, outputs: Tensor) -> Tensor:
        """Return one number an image in the target's unit, shape (B,)."""
        if self.decode != "median":
            return super().point(outputs)
        # The same label as the posterior's median, without a sum whose rounding could move it.
        return self.values[(self.above(outputs) > 0.5).sum(dim=1)]  # (B, R - 1) -> (B,)


def answers(target: Tensor, outputs: Tensor) -> Tensor:
    """Return the true answers, 1 where y > k, in the type and on the device of the outputs, shape (B, R - 1).

    Args:
        target: Label indices in [0, R), int64, shape (B,).
        outputs: Any tensor of shape (B, R - 1).
    """
    questions = torch.arange(outputs.shape[1], device=target.device)
    return (target[:, None] > questions).to(outputs.dtype)  # (B, 1) > (R - 1,) -> (B, R - 1)


def rearranged_posterior(logits: Tensor) -> Tensor:
    """Return the probability of each label from R - 1 questions that need not agree, shape (B, R).

    P(y > k) must fall with k, and answers learnt apart may cross. They are brought into descending order, and their
    differences taken: the rearrangement of Chernozhukov, Fernández-Val, Galichon (2009), Biometrika, arXiv:0806.4730,
    which never takes a curve further from a monotone truth. It leaves alone how many answers are yes and, for evenly
    spaced labels, the mean. Where nothing crosses it changes nothing.

    Args:
        logits: Of P(y > k), finite, shape (B, R - 1).
    """
    ends = torch.full_like(logits[:, :1], torch.inf)
    cuts = logits.sort(dim=1, descending=True).values
    upper, lower = torch.cat([ends, cuts], dim=1), torch.cat([cuts, -ends], dim=1)  # (B, R - 1) -> (B, R)
    # sigmoid(upper) - sigmoid(lower), without the cancellation that would round a small probability to zero.
    return upper.sigmoid() * (-lower).sigmoid() * -torch.expm1(lower - upper)
