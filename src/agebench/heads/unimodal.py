"""One output a label: a posterior that rises to the true label, falls after it, and is as wide as its error."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from agebench.errors import UserError
from agebench.heads.base import Head


class Unimodal(Head):
    """Learns the label distribution itself, held to be unimodal around the true label and concentrated there.

    With the posterior p, its mean m and variance v, the true value t of label y, and a floor f under the variance:

        concentrated = ln(v + f) / 2 + (m - t)^2 / (2 (v + f))
        unimodal = sum over k < y of max(0, p[k] - p[k + 1]) + sum over k >= y of max(0, p[k + 1] - p[k])
        loss = concentrated + lambda_unimodal * unimodal

    The first is a Gaussian's negative log-likelihood, whose best variance is the squared error: an image that is hard
    may keep a wide posterior. It may be negative; its infimum is ln(f) / 2.

    Args:
        num_labels: R, at least 2.
        values: What each label is worth, length R.
        ordered: Must be true.
        lambda_unimodal: Weight of the hinge, which is a sum of probabilities and so weighs the same in any unit. A
            heavy one holds a network that starts from nothing at the flat posterior, where the hinge is zero.
        floor: Added to the variance, in squared units. None for a twelfth of the squared mean step between labels,
            the variance of a value spread evenly over a label's own cell: 1/12 for years and for decades.
        decode: `auto` for the mean, which is what the loss brings near the truth; else see Head.

    Raises:
        UserError: If the labels have no order, there is only one, lambda_unimodal is negative or the floor not
            positive.

    Source:
        Li, Wang, Yao, Li, Yang, Yan, Wang, Pu (2022), CVPR, "Unimodal-Concentrated Loss: Fully Adaptive Label
        Distribution Learning for Ordinal Regression", arXiv:2204.00309. The paper was not at hand: its abstract names
        the two terms, and the formulas are from memory, as is its weight of 1000. Departs in these: the weight, the
        nearest power of ten to 1000 that learns the demo faces from nothing (one seed, 8 epochs, val MAE in years: 12.2
        with 1000, 12.3 with 100, 8.9 with 10, 8.0 with 1; the training ages' median has 12.4); the floor, without which
        a posterior on one label alone has the loss minus infinity; constants that no weight changes are left out; and
        `auto` decodes the mean, unsure of the paper's.
    """

    needs_order = True

    def __init__(
        self,
        num_labels: int,
        values: Sequence[float],
        *,
        ordered: bool,
        lambda_unimodal: float = 10.0,
        floor: float | None = None,
        decode: str = "auto",
    ) -> None:
        decode = "mean" if decode == "auto" and ordered else decode
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        if not 0 <= lambda_unimodal < math.inf:
            raise UserError(f"head.lambda_unimodal must be zero or a positive number, got {lambda_unimodal}")
        if floor is not None and not 0 < floor < math.inf:
            raise UserError(f"head.floor must be a positive number in squared units, or null, got {floor}")
        self.num_outputs, self.lambda_unimodal = num_labels, lambda_unimodal
        step = (values[-1] - values[0]) / (num_labels - 1)
        self.floor = floor if floor is not None else step**2 / 12

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the concentrated loss in nats and the weighted hinge, averaged over the batch, shape ()."""
        posterior = self.posterior(outputs)
        mean = (posterior * self.values).sum(dim=1)  # (B, R) -> (B,)
        variance = (posterior * (self.values - mean[:, None]).square()).sum(dim=1) + self.floor  # (B, R) -> (B,)
        concentrated = variance.log() / 2 + (mean - self.values[target]).square() / (2 * variance)
        return (concentrated + self.lambda_unimodal * self._hinge(posterior, target)).mean()

    def _hinge(self, posterior: Tensor, target: Tensor) -> Tensor:
        """Return by how much the posterior falls before the true label and rises after it, shape (B,)."""
        rise = posterior.diff(dim=1)  # (B, R) -> (B, R-1)
        before = torch.arange(self.num_labels - 1, device=target.device) < target[:, None]  # -> (B, R-1)
        return rise.where(~before, -rise).relu().sum(dim=1)

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return softmax(outputs), shape (B, R)."""
        return outputs.softmax(dim=1)
