"""DLDL with the error of the posterior's mean in the loss."""

import math
from collections.abc import Sequence

from torch import Tensor

from agebench.errors import UserError
from agebench.heads.dldl import DLDL


class DLDLv2(DLDL):
    """Learns a label distribution and its mean together: DLDL's divergence + lambda_l1 * |mean - true value|.

    Args:
        num_labels: R, at least 2.
        values: What each label is worth, length R.
        ordered: Must be true.
        sigma: Standard deviation of the Gaussian in the target's unit; None as in DLDL.
        lambda_l1: Nats a unit of the mean's absolute error. The default 1 is one label's step both for years and for
            decades, so in either unit a miss by one label costs about what the divergence charges for it.
        decode: `auto` for the mean, which is what the loss brings near the truth; else see Head.

    Raises:
        UserError: If the labels have no order, there is only one, or sigma or lambda_l1 is out of range.

    Source:
        Gao, Zhou, Wu, Geng (2018), IJCAI, "Age Estimation Using Expectation of Label Distribution Learning",
        doi:10.24963/ijcai.2018/99. Departs as DLDL does in labels and sigma; the paper's thin networks, its
        hybrid pooling and its averaging of an image with its mirror image are no part of a head.
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
