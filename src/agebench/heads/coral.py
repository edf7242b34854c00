"""CORAL: one score per image and R - 1 learned biases."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agebench.heads.ranks import RankHead, binary_labels, rearranged_posterior, start_above


class CORAL(RankHead):
    """Ordinal regression with R - 1 binary tasks `y > k`, which share one score and have one learned bias each.

    P(y > k) = sigmoid(score + bias of k). Initial biases are the logits of P(y > k) among the train labels, and descend
    evenly over (0, 1] before these are known. They also descend at the minimum of the loss, so that P(y > k) decreases
    with k. During training they may cross; the posterior sorts them.

    Args:
        num_labels: R.
        values: The value of each label in the target's unit, ascending, length R.
        ordered: Must be true.
        decode: The statistic of the posterior that is the point estimate, see Head. `auto` and `median` are the rule of
            the paper: the label index is the number of tasks with P(y > k) > 0.5.

    Raises:
        UserError: If the labels have no order, or if there is only one.

    Source:
        Cao, Mirjalili, Raschka (2020), Rank consistent ordinal regression for neural networks with application to age
        estimation, Pattern Recognition Letters, doi:10.1016/j.patrec.2020.11.008. Departs in three ways. All tasks have
        the weight 1, the uniform case of the paper. The last layer of the network may add a shared bias to the score.
        The paper predicts a rank and no posterior. The authors' code, coral-pytorch, starts with evenly spaced biases,
        which hardly move in short trainings on many labels.
    """

    def __init__(self, num_labels: int, values: Sequence[float], *, ordered: bool, decode: str = "auto") -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        self.num_outputs = 1
        tasks = num_labels - 1
        self.biases = nn.Parameter(1 - torch.arange(tasks, dtype=torch.float32) / tasks)

    def set_label_counts(self, counts: Tensor) -> None:
        """Set the initial biases from the number of train images of each label, int64, shape (R,)."""
        with torch.no_grad():
            self.biases.copy_(start_above(counts))

    def start(self, counts: Tensor) -> Tensor:
        """Return the score zero, shape (1,): the biases are the distribution of the train labels."""
        return torch.zeros(1)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the binary cross-entropy in nats, summed over tasks and averaged over the batch, shape ()."""
        logits = outputs + self.biases  # (B, 1) + (R - 1,) -> (B, R - 1)
        return F.binary_cross_entropy_with_logits(logits, binary_labels(target, logits), reduction="sum") / len(target)

    def above(self, outputs: Tensor) -> Tensor:
        """Return P(y > k), shape (B, R - 1). It decreases with k if the biases do."""
        return (outputs + self.biases).sigmoid()

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return the differences of the sorted P(y > k), shape (B, R)."""
        return rearranged_posterior(outputs + self.biases)
