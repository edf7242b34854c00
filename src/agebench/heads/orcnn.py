"""OR-CNN: R - 1 binary tasks with one output each."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from agebench.heads.ranks import RankHead, binary_labels, rearranged_posterior, start_above


class ORCNN(RankHead):
    """Ordinal regression with R - 1 independent binary tasks `y > k`, which have one logit each.

    Args:
        num_labels: R.
        values: The value of each label in the target's unit, ascending, length R.
        ordered: Must be true.
        decode: The statistic of the posterior that is the point estimate, see Head. `auto` and `median` are the rule of
            the paper: the label index is the number of tasks with P(y > k) > 0.5.

    Raises:
        UserError: If the labels have no order, or if there is only one.

    Source:
        Niu, Zhou, Wang, Gao, Hua (2016), Ordinal Regression with Multiple Output CNN for Age Estimation, CVPR. Departs
        in three ways. Each task has one logit and a sigmoid instead of two logits and a softmax, which is an equivalent
        model. All tasks have the weight 1; in the paper the weights are square roots of image counts. The paper
        predicts a rank and no posterior; here P(y > k), which may increase with k, is sorted.
    """

    def __init__(self, num_labels: int, values: Sequence[float], *, ordered: bool, decode: str = "auto") -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        self.num_outputs = num_labels - 1

    def start(self, counts: Tensor) -> Tensor:
        """Return the logits of P(y > k) among the train labels, shape (R - 1,)."""
        return start_above(counts)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the binary cross-entropy in nats, summed over tasks and averaged over the batch, shape ()."""
        labels = binary_labels(target, outputs)
        return F.binary_cross_entropy_with_logits(outputs, labels, reduction="sum") / len(target)

    def above(self, outputs: Tensor) -> Tensor:
        """Return P(y > k) of each task, shape (B, R - 1). It may increase with k."""
        return outputs.sigmoid()

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return the differences of the sorted P(y > k), shape (B, R)."""
        return rearranged_posterior(outputs)
