"""OR-CNN: R - 1 yes/no questions, each with an output of its own."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from agebench.heads.ranks import RankHead, answers, rearranged_posterior


class ORCNN(RankHead):
    """Asks of every label but the last whether the image is above it, each question with a logit of its own.

    Args:
        num_labels: R.
        values: What each label is worth in the target's unit, ascending, length R.
        ordered: Whether the labels have an order; it needs one.
        decode: How a point is taken from the posterior, see Head. `auto` and `median` are the paper's rule: the label
            at the number of questions answered yes.

    Raises:
        UserError: If the labels have no order, or there is one alone.

    Source:
        Niu, Zhou, Wang, Gao, Hua (2016), Ordinal Regression with Multiple Output CNN for Age Estimation, CVPR. Departs
        in three ways. A question has one logit and a sigmoid for the paper's two and a softmax, the same model with
        half of the outputs. Every question weighs one, where the paper weighs them by the square roots of image
        counts. The paper gives a rank and no posterior: here the probabilities, which may cross, are sorted.
    """

    def __init__(self, num_labels: int, values: Sequence[float], *, ordered: bool, decode: str = "auto") -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        self.num_outputs = num_labels - 1

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of the questions in nats, summed over them, averaged over the batch, shape ()."""
        wanted = answers(target, outputs)
        return F.binary_cross_entropy_with_logits(outputs, wanted, reduction="sum") / len(target)

    def above(self, outputs: Tensor) -> Tensor:
        """Return P(y > k) as each question has it, shape (B, R - 1); it may rise with k."""
        return outputs.sigmoid()

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return the differences of the sorted P(y > k), shape (B, R)."""
        return rearranged_posterior(outputs)
