"""One output a label, learnt from a Gaussian around the true one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agebench.errors import UserError
from agebench.heads.base import Head


class DLDL(Head):
    """Learns a label distribution: a Gaussian around the true value, taken at the R values and normalised over them.

    The loss is the Kullback-Leibler divergence of softmax(outputs) from it.

    Args:
        num_labels: R, at least 2.
        values: What each label is worth, length R, evenly spaced or not.
        ordered: Must be true.
        sigma: Standard deviation of the Gaussian in the target's unit. None for the paper's 2 years, or a tenth of the
            values' range if that is less: 0.5 for the decades 1 to 6, which leaves a neighbour 0.1 of the mass.
        decode: How a point is taken from the posterior, see Head.

    Raises:
        UserError: If the labels have no order, there is only one, or sigma is not positive.

    Source:
        Gao, Xing, Xie, Wu, Geng (2017), IEEE TIP, "Deep Label Distribution Learning with Label Ambiguity",
        doi:10.1109/TIP.2017.2689998. Departs in these: the labels are those of the data and not a wider range, so
        the Gaussian of a label near an end is cut there and renormalised; one sigma for all images, where the paper
        takes each image's own if annotators gave one; and `auto` decodes the median, where the paper takes the
        expectation or the likeliest.
    """

    needs_order = True
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
        worth = torch.tensor(values, dtype=torch.float64)
        squared = ((worth[:, None] - worth) / self.sigma).square()  # (R,) -> (R, R), row: the true label
        self.register_buffer("soft_labels", (-squared / 2).softmax(dim=1).float(), persistent=False)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the divergence in nats, averaged over the batch, shape ()."""
        wanted = self.soft_labels[target].to(outputs.dtype)  # (B,) -> (B, R)
        return F.kl_div(outputs.log_softmax(dim=1), wanted, reduction="batchmean")

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return softmax(outputs), shape (B, R)."""
        return outputs.softmax(dim=1)
