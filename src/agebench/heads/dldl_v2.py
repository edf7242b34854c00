"""DLDL-v2: DLDL plus the absolute error of the posterior mean."""

import math
from collections.abc import Sequence

from torch import Tensor

from agebench.errors import UserError
from agebench.heads.dldl import DLDL


class DLDLv2(DLDL):
    """Label distribution learning with a loss on the mean: DLDL's divergence + lambda_l1 * |mean - true value|.

    Args:
        num_labels: R, at least 2.
        values: The value of each label, length R.
        ordered: Must be true.
        sigma: Standard deviation of the Gaussian in the target's unit; None as in DLDL.
        lambda_l1: Weight of the absolute error of the mean, in nats per unit. Neighbouring labels differ by one unit in
            years and in decades. With the default 1, an error of one label costs about as much in both loss terms.
        decode: `auto` is the mean, which the loss optimizes; for other choices see Head.

    Raises:
        UserError: If the labels have no order, if there is only one, or if sigma or lambda_l1 is out of range.

    Source:
        Gao, Zhou, Wu, Geng (2018), IJCAI, "Age Estimation Using Expectation of Label Distribution Learning",
        doi:10.24963/ijcai.2018/99. Departs as DLDL in the labels and sigma. The paper's networks, its hybrid pooling
        and its test-time averaging with the mirror image are not part of a head.
    """

    def __init__(
        self,
        num_labels: int,
        values: Sequence[float],
        *,
        ordered: bool,
        sigma: float | None = None,
        lambda_l1: float = 1.0,
        decode: str = "auto",
    ) -> None:
        decode = "mean" if decode == "auto" and ordered else decode
        super().__init__(num_labels, values, ordered=ordered, sigma=sigma, decode=decode)
        if not 0 <= lambda_l1 < math.inf:
            raise UserError(f"head.lambda_l1 must be zero or a positive number, got {lambda_l1}")
        self.lambda_l1 = lambda_l1

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the divergence in nats and the weighted error of the mean, averaged over the batch, shape ()."""
        mean = (self.posterior(outputs) * self.values).sum(dim=1)  # (B, R) -> (B,)
        return super().loss(outputs, target) + self.lambda_l1 * (mean - self.values[target]).abs().mean()
