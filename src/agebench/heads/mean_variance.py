"""Mean-variance loss: one output per label, trained with cross-entropy, posterior mean and posterior variance."""

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from agebench.errors import UserError
from agebench.heads.base import Head


class MeanVariance(Head):
    """Classification with penalties on the error of the posterior mean and on the posterior variance.

    The loss is the cross-entropy + lambda_mean * (mean - true value)^2 / 2 + lambda_variance * variance.

    Args:
        num_labels: R, at least 2.
        values: The value of each label, length R.
        ordered: Must be true.
        lambda_mean: Weight of the squared error of the mean, in nats per squared unit; lambda_1 in the paper.
        lambda_variance: Weight of the variance, in nats per squared unit; lambda_2 in the paper. Both defaults were
            tuned for years. An error of one label costs 0.1 nats in years and in decades. An error of ten years costs
            10 nats in years but 0.1 nats in decades, where the cross-entropy therefore dominates.
        decode: `auto` is the mean, which the loss optimizes; for other choices see Head.

    Raises:
        UserError: If the labels have no order, if there is only one, or if a lambda is negative.

    Source:
        Pan, Han, Shan, Chen (2018), CVPR, "Mean-Variance Loss for Deep Age Estimation from a Face",
        doi:10.1109/CVPR.2018.00554. Departs in one way: the mean and the variance are those of the label values in the
        target's unit. For ages that start at zero, this is the paper's definition.
    """

    needs_order = True
    outputs_are_logits = True

    def __init__(
        self,
        num_labels: int,
        values: Sequence[float],
        *,
        ordered: bool,
        lambda_mean: float = 0.2,
        lambda_variance: float = 0.05,
        decode: str = "auto",
    ) -> None:
        decode = "mean" if decode == "auto" and ordered else decode
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        for name, weight in (("lambda_mean", lambda_mean), ("lambda_variance", lambda_variance)):
            if not 0 <= weight < math.inf:
                raise UserError(f"head.{name} must be zero or a positive number, got {weight}")
        self.num_outputs, self.lambda_mean, self.lambda_variance = num_labels, lambda_mean, lambda_variance

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy in nats and the two weighted terms, averaged over the batch, shape ()."""
        posterior = self.posterior(outputs)
        mean = (posterior * self.values).sum(dim=1)  # (B, R) -> (B,)
        variance = (posterior * (self.values - mean[:, None]).square()).sum(dim=1)  # (B, R) -> (B,)
        mean_loss = (mean - self.values[target]).square().mean() / 2
        return F.cross_entropy(outputs, target) + self.lambda_mean * mean_loss + self.lambda_variance * variance.mean()

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return softmax(outputs), shape (B, R)."""
        return outputs.softmax(dim=1)
