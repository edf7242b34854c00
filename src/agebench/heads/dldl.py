"""DLDL: one output per label, trained on a Gaussian around the true value."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agebench.errors import UserError
from agebench.heads.base import Head


class DLDL(Head):
    """Label distribution learning: the soft label is a Gaussian around the true value, normalised over the R values.

    The loss is the Kullback-Leibler divergence of softmax(outputs) from the soft label.

    Args:
        num_labels: R, at least 2.
        values: The value of each label, length R. The spacing may be uneven.
        ordered: Must be true.
        sigma: Standard deviation of the Gaussian in the target's unit. None is the smaller of the paper's 2 years and a
            tenth of the range of the values. For the decades 1 to 6 this is 0.5, so a neighbour has a mass of 0.1.
        decode: The statistic of the posterior that is the point estimate, see Head.

    Raises:
        UserError: If the labels have no order, if there is only one, or if sigma is not positive.

    Source:
        Gao, Xing, Xie, Wu, Geng (2017), IEEE TIP, "Deep Label Distribution Learning with Label Ambiguity",
        doi:10.1109/TIP.2017.2689998. Departs in three ways. The labels are those of the data and not a wider range, so
        the Gaussian of a label near an end is truncated and renormalised. All images share one sigma; the paper uses a
        sigma per image if annotators provide it. `auto` decodes the median; the paper uses the mean or the mode.
    """

    needs_order = True
    outputs_are_logits = True
    soft_labels: Tensor

    def __init__(
        self,
        num_labels: int,
        values: Sequence[float],
        *,
        ordered: bool,
        sigma: float | None = None,
        decode: str = "auto",
    ) -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        if sigma is not None and not 0 < sigma < math.inf:
            raise UserError(f"head.sigma must be a positive number in the target's unit, or null, got {sigma}")
        self.num_outputs = num_labels
        self.sigma = sigma if sigma is not None else min(2.0, (values[-1] - values[0]) / 10)
        exact = torch.tensor(values, dtype=torch.float64)
        squared = ((exact[:, None] - exact) / self.sigma).square()  # (R,) -> (R, R), row: the true label
        self.register_buffer("soft_labels", (-squared / 2).softmax(dim=1).float(), persistent=False)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the divergence in nats, averaged over the batch, shape ()."""
        soft = self.soft_labels[target].to(outputs.dtype)  # (B,) -> (B, R)
        return F.kl_div(outputs.log_softmax(dim=1), soft, reduction="batchmean")

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return softmax(outputs), shape (B, R)."""
        return outputs.softmax(dim=1)
