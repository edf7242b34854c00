"""CORAL: one score, cut by R - 1 learned biases."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agebench.heads.ranks import RankHead, answers, rearranged_posterior


class CORAL(RankHead):
    """Scores an image once and answers R - 1 questions, `is its label above k?`, by adding a learned bias a question.

    P(y > k) = sigmoid(score + bias of k). The biases start in descending order, evenly spaced over (0, 1]. At the
    minimum of the loss they descend, so that the answers agree; on the way they need not, and are then sorted.

    Args:
        num_labels: R.
        values: What each label is worth in the target's unit, ascending, length R.
        ordered: Whether the labels have an order; it needs one.
        decode: How a point is taken from the posterior, see Head. `auto` and `median` are the paper's rule: the label
            at the number of questions answered yes.

    Raises:
        UserError: If the labels have no order, or there is one alone.

    Source:
        Cao, Mirjalili, Raschka (2020), Rank consistent ordinal regression for neural networks with application to age
        estimation, Pattern Recognition Letters, doi:10.1016/j.patrec.2020.11.008. Departs in three ways. Every question
        weighs one, the paper's uniform case. The network's last layer may add a bias of its own to the score, which
        moves all questions together and widens nothing. The paper gives a rank and no posterior. The start of the
        biases is that of the authors' coral-pytorch.
    """

    def __init__(self, num_labels: int, values: Sequence[float], *, ordered: bool, decode: str = "auto") -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        self.num_outputs = 1
        questions = num_labels - 1
        self.biases = nn.Parameter(1 - torch.arange(questions, dtype=torch.float32) / questions)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of the questions in nats, summed over them, averaged over the batch, shape ()."""
        logits = outputs + self.biases  # (B, 1) + (R - 1,) -> (B, R - 1)
        return F.binary_cross_entropy_with_logits(logits, answers(target, logits), reduction="sum") / len(target)

    def above(self, outputs: Tensor) -> Tensor:
        """Return P(y > k), shape (B, R - 1); it falls with k once the biases do."""
        return (outputs + self.biases).sigmoid()

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return the differences of the sorted P(y > k), shape (B, R)."""
        return rearranged_posterior(outputs + self.biases)
