"""One output: the estimate itself, with a posterior from the size of its errors."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agebench.errors import UserError
from agebench.heads.base import Head

LOSSES = ("l1", "mse", "huber")
WINDOW = 100  # training batches that the size of the errors is averaged over


class Regression(Head):
    """Estimates the target directly: estimate = mean + spread * output, mean and spread those of the R values.

    So a network that answers about zero starts in the middle of the labels, and the loss is of the same size whatever
    the unit. The loss sees the estimate as it is; the point is clamped to the values' range, which can only bring it
    nearer to any label.

    The posterior is a Laplace density (l1) or a Gaussian one (mse, huber) around the clamped estimate, integrated over
    each label's cell, which reaches halfway to its neighbours, and renormalised over the R cells. Its scale is the
    mean absolute error or the root mean square error of about the last 100 training batches: a buffer, because what a
    density's scale is likeliest to be is known in closed form, and so needs no learning rate, no weight decay and no
    term in the loss. Under DDP every process gets the first one's, as batch norm does. It is measured on training
    images, so a network that overfits is too sure of itself.

    Args:
        num_labels: R, at least 2.
        values: What each label is worth, length R.
        ordered: Must be true.
        loss: `l1`, `mse` or `huber`, of errors in spreads.
        delta: Error in the target's unit from which huber grows linearly; the default 1 is a year or a decade, which
            is one label in either unit.
        decode: `auto` for the estimate itself; `mean`, `median` or `mode` of the posterior.

    Raises:
        UserError: If the labels have no order, there is only one, the loss is unknown or delta is not positive.

    Source:
        Huber (1964), doi:10.1214/aoms/1177703732, for its loss. The scale is the maximum likelihood estimate of a
        Laplace or Gaussian density; huber departs from its own density, which has no simple one, and takes Gauss's.
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
        worth = torch.tensor(values, dtype=torch.float64)
        self.middle, self.spread = worth.mean().item(), worth.std(correction=0).item()
        halfway = (worth[1:] + worth[:-1]) / 2  # (R,) -> (R-1,)
        edges = torch.cat([2 * worth[:1] - halfway[:1], halfway, 2 * worth[-1:] - halfway[-1:]])  # -> (R+1,)
        self.register_buffer("edges", edges.float(), persistent=False)
        # Of errors in spreads: their mean absolute value, or their mean square. Saved with the weights.
        self.register_buffer("moment", torch.tensor(1.0))
        self.register_buffer("batches", torch.tensor(0.0))

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean error in spreads (l1), or in spreads squared (mse, and half of it for huber), shape ()."""
        error = outputs[:, 0] - (self.values[target] - self.middle) / self.spread  # (B, 1) -> (B,)
        if self.training:
            self._observe(error.detach())
        if self.kind == "l1":
            return error.abs().mean()
        if self.kind == "mse":
            return error.square().mean()
        return F.huber_loss(error, torch.zeros_like(error), delta=self.delta / self.spread)

    def _observe(self, error: Tensor) -> None:
        """Average over all batches so far, then over a window that forgets, so that the first errors do not stay."""
        size = (error.abs() if self.kind == "l1" else error.square()).mean().to(self.moment.dtype)
        usable = size.isfinite()  # half precision may overflow in a batch that the optimizer then skips
        weight = (1 / (self.batches + 1)).clamp(min=1 / WINDOW)
        self.moment += torch.where(usable, weight * (size - self.moment), 0)
        self.batches += usable

    def estimate(self, outputs: Tensor) -> Tensor:
        """Return the estimate in the target's unit, clamped to the values' range, shape (B,)."""
        return (self.middle + self.spread * outputs[:, 0]).clamp(self.values[0], self.values[-1])

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return the density's mass in each label's cell, shape (B, R)."""
        size = self.moment if self.kind == "l1" else self.moment.sqrt()
        # A scale beyond the labels' range tells them no further apart, and differences of its CDF would round to zero.
        scale = (self.spread * size).clamp(1e-3 * self.edges.diff().min(), self.edges[-1] - self.edges[0])
        edges = (self.edges - self.estimate(outputs)[:, None]) / scale  # (R+1,) and (B,) -> (B, R+1)
        low, high = edges[:, :-1], edges[:, 1:]
        # A cell above the estimate is mirrored to below it: near zero a CDF keeps the digits that near one it has lost.
        above = low > 0
        low, high = torch.where(above, -high, low), torch.where(above, -low, high)
        mass = (self._cdf(high) - self._cdf(low)).clamp(min=0)  # (B, R)
        return mass / mass.sum(dim=1, keepdim=True)

    def _cdf(self, x: Tensor) -> Tensor:
        if self.kind == "l1":
            tail = (-x.abs()).exp() / 2
            return torch.where(x < 0, tail, 1 - tail)
        # Not torch.special.ndtr, which in float32 rounds to zero from six scales on.
        return torch.erfc(-x * math.sqrt(0.5)) / 2

    def point(self, outputs: Tensor) -> Tensor:
        """Return the clamped estimate, or what `decode` takes from the posterior, in the target's unit, shape (B,)."""
        return super().point(outputs) if self.from_posterior else self.estimate(outputs)
