"""Regression with one output, and a posterior whose scale is the size of the training errors."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agebench.errors import UserError
from agebench.heads.base import Head

LOSSES = ("l1", "mse", "huber")
WINDOW = 100  # number of training batches in the moving average of the error size


class Regression(Head):
    """Regression on the standardized target: estimate = mean + std * output, with the mean and std of the R values.

    A network whose initial outputs are near zero therefore starts at the mean of the labels, and the size of the loss
    does not depend on the unit. The loss uses the unclamped estimate; the point estimate is clamped to the range of the
    values.

    The posterior is a Laplace (l1) or Gaussian (mse, huber) density around the clamped estimate. It is integrated over
    the cell of each label, which extends halfway to its neighbours, and renormalised over the R cells. Its scale is the
    mean absolute error or root mean squared error over about the last 100 training batches. The scale is a buffer and
    not a parameter, because its maximum likelihood estimate has a closed form. In DDP all processes use the buffer of
    the first process, as for batch norm. The scale comes from training images, so the posterior of an overfitted
    network is overconfident.

    Args:
        num_labels: R, at least 2.
        values: The value of each label, length R.
        ordered: Must be true.
        loss: `l1`, `mse` or `huber`, of standardized errors.
        delta: Absolute error in the target's unit above which huber is linear. The default 1 is one year or one decade,
            the distance between neighbouring labels.
        decode: `auto` is the estimate itself; `mean`, `median` or `mode` are of the posterior.

    Raises:
        UserError: If the labels have no order, if there is only one, if the loss is unknown, or if delta is not
            positive.

    Source:
        Huber (1964), doi:10.1214/aoms/1177703732, for the huber loss. The scale is the maximum likelihood estimate of a
        Laplace or Gaussian density. Departs in one way: huber uses the Gaussian density.
    """

    needs_order = True
    edges: Tensor
    moment: Tensor
    batches: Tensor

    def __init__(
        self,
        num_labels: int,
        values: Sequence[float],
        *,
        ordered: bool,
        loss: str = "l1",
        delta: float = 1.0,
        decode: str = "auto",
    ) -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        if loss not in LOSSES:
            raise UserError(f"head.loss={loss} is not a loss of head=regression: choose one of {', '.join(LOSSES)}")
        if not 0 < delta < math.inf:
            raise UserError(f"head.delta must be a positive number in the target's unit, got {delta}")
        self.num_outputs, self.kind, self.delta = 1, loss, delta
        self.from_posterior = decode != "auto"
        exact = torch.tensor(values, dtype=torch.float64)
        self.mean, self.std = exact.mean().item(), exact.std(correction=0).item()
        halfway = (exact[1:] + exact[:-1]) / 2  # (R,) -> (R-1,)
        edges = torch.cat([2 * exact[:1] - halfway[:1], halfway, 2 * exact[-1:] - halfway[-1:]])  # -> (R+1,)
        self.register_buffer("edges", edges.float(), persistent=False)
        # Mean absolute value (l1) or mean square of the standardized errors. Saved with the weights.
        self.register_buffer("moment", torch.tensor(1.0))
        self.register_buffer("batches", torch.tensor(0.0))

    def start(self, counts: Tensor) -> Tensor:
        """Return the standardized median of the train labels, shape (1,)."""
        return ((self.train_median(counts) - self.mean) / self.std)[None].float()

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean l1, mse or huber loss of the standardized errors, shape ()."""
        return self._loss(outputs[:, 0] - self._standardized(target))

    def mixed_loss(self, outputs: Tensor, target: Tensor, other: Tensor, *, share: float) -> Tensor:
        """Return the loss of the mixed values share * target + (1 - share) * other, shape ()."""
        mixed = share * self._standardized(target) + (1 - share) * self._standardized(other)
        return self._loss(outputs[:, 0] - mixed)

    def _standardized(self, target: Tensor) -> Tensor:
        return (self.values[target] - self.mean) / self.std

    def _loss(self, error: Tensor) -> Tensor:
        """Return the mean loss of standardized errors, shape (B,) -> ()."""
        if self.training:
            self._update_moment(error.detach())
        if self.kind == "l1":
            return error.abs().mean()
        if self.kind == "mse":
            return error.square().mean()
        return F.huber_loss(error, torch.zeros_like(error), delta=self.delta / self.std)

    def _update_moment(self, error: Tensor) -> None:
        """Update the average over all batches, which is an exponential moving average after the first 100 batches."""
        size = (error.abs() if self.kind == "l1" else error.square()).mean().to(self.moment.dtype)
        usable = size.isfinite()  # half precision may overflow; the optimizer skips such a batch
        weight = (1 / (self.batches + 1)).clamp(min=1 / WINDOW)
        self.moment += torch.where(usable, weight * (size - self.moment), 0)
        self.batches += usable

    def estimate(self, outputs: Tensor) -> Tensor:
        """Return the estimate in the target's unit, clamped to the range of the values, shape (B,)."""
        return (self.mean + self.std * outputs[:, 0]).clamp(self.values[0], self.values[-1])

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return the probability mass of the density in the cell of each label, shape (B, R)."""
        size = self.moment if self.kind == "l1" else self.moment.sqrt()
        # With a much larger scale than the range of the labels, differences of the CDF round to zero.
        scale = (self.std * size).clamp(1e-3 * self.edges.diff().min(), self.edges[-1] - self.edges[0])
        edges = (self.edges - self.estimate(outputs)[:, None]) / scale  # (R+1,) and (B,) -> (B, R+1)
        low, high = edges[:, :-1], edges[:, 1:]
        # Cells above the estimate are mirrored: differences of the CDF are more precise near 0 than near 1.
        above = low > 0
        low, high = torch.where(above, -high, low), torch.where(above, -low, high)
        mass = (self._cdf(high) - self._cdf(low)).clamp(min=0)  # (B, R)
        return mass / mass.sum(dim=1, keepdim=True)

    def _cdf(self, x: Tensor) -> Tensor:
        if self.kind == "l1":
            tail = (-x.abs()).exp() / 2
            return torch.where(x < 0, tail, 1 - tail)
        # torch.special.ndtr in float32 rounds to zero six scales below the mean.
        return torch.erfc(-x * math.sqrt(0.5)) / 2

    def point(self, outputs: Tensor) -> Tensor:
        """Return the clamped estimate, or the statistic of the posterior, in the target's unit, shape (B,)."""
        return super().point(outputs) if self.from_posterior else self.estimate(outputs)
