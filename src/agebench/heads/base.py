"""The contract of a head: from labels to outputs, and from outputs to a loss, a posterior and a point estimate."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Head(nn.Module, ABC):
    """Turns R labels into `num_outputs` network outputs and back.

    Outputs reach a head as float32, whatever the precision of training.

    Args:
        num_labels: R, the number of labels.
        values: What each label is worth in the target's unit (years, decades), length R.
        ordered: Whether the labels have an order; without one the point estimate is the likeliest label.
    """

    num_outputs: int
    values: Tensor

    def __init__(self, num_labels: int, values: Sequence[float], *, ordered: bool) -> None:
        super().__init__()
        self.num_labels, self.ordered = num_labels, ordered
        # Known from the data, so not part of the weights.
        self.register_buffer("values", torch.tensor(values, dtype=torch.float32), persistent=False)

    @abstractmethod
    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of a batch, shape (), from outputs (B, num_outputs) and label indices (B,), int64."""

    @abstractmethod
    def posterior(self, outputs: Tensor) -> Tensor:
        """Return the probability of each label, shape (B, R); every row sums to one."""

    def point(self, outputs: Tensor) -> Tensor:
        """Return one number an image in the target's unit, shape (B,).

        For ordered labels it is the median of the posterior, which no other choice beats in expected absolute error;
        otherwise it is the likeliest label.
        """
        posterior = self.posterior(outputs)
        if not self.ordered:
            return self.values[posterior.argmax(dim=1)]
        # The first label at which half of the mass is reached; rounding may leave the last sum a hair below one half.
        below = (posterior.cumsum(dim=1) < 0.5).sum(dim=1)  # (B, R) -> (B,)
        return self.values[below.clamp(max=self.num_labels - 1)]
