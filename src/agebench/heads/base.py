"""The contract of a head: from labels to outputs, and from outputs to a loss, a posterior and a point estimate."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from agebench.errors import UserError

DECODES = ("auto", "mean", "median", "mode")


class Head(nn.Module, ABC):
    """Turns R labels into `num_outputs` network outputs and back.

    Outputs reach a head as float32 and outside of autocast, whatever the precision of training. Its parameters train,
    freeze and save with the network's.

    Args:
        num_labels: R, the number of labels; some of them may be in no training image.
        values: What each label is worth in the target's unit (years, decades), ascending if ordered, length R.
        ordered: Whether the labels have an order; without one the point estimate is the likeliest label.
        decode: How a point is taken from the posterior: `mean`, `median`, `mode`, or `auto` for the median of ordered
            labels, which no other label beats in expected absolute error, and the mode of nominal ones.

    Raises:
        UserError: If the labels have no order and the head or the decoding needs one, or it ranks a single label.
    """

    needs_order: ClassVar[bool] = False  # whether the head is for ordered labels alone
    num_outputs: int
    values: Tensor

    def __init__(self, num_labels: int, values: Sequence[float], *, ordered: bool, decode: str = "auto") -> None:
        super().__init__()
        if decode not in DECODES:
            raise UserError(f"head.decode must be one of {', '.join(DECODES)}, got {decode}")
        if not ordered and (self.needs_order or decode in ("mean", "median")):
            what = type(self).__name__ if self.needs_order else f"head.decode={decode}"
            raise UserError(
                f"{what} needs labels with an order, and classes have none: use head=softmax with head.decode=mode, or "
                "data.target=age, decade or bins where the data have ages"
            )
        if self.needs_order and num_labels < 2:
            raise UserError(f"{type(self).__name__} ranks labels, and this target has only one: give data with more")
        self.num_labels, self.ordered = num_labels, ordered
        self.decode = decode if decode != "auto" else "median" if ordered else "mode"
        # Known from the data, so not part of the weights.
        self.register_buffer("values", torch.tensor(values, dtype=torch.float32), persistent=False)

    def set_label_counts(self, counts: Tensor) -> None:  # not abstract: most heads have no use for it
        """Take in how many train images each label has, int64, shape (R,); called once, before weights are loaded."""

    @abstractmethod
    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of a batch, shape (), from outputs (B, num_outputs) and label indices (B,), int64."""

    def sample_weights(self, target: Tensor) -> Tensor:
        """Return what each image weighs in the loss of a batch, shape (B,), from label indices (B,), int64.

        The loss of a batch is the mean of its images' own losses under these weights: so it can be resampled. A head
        whose loss is no such mean gets no interval for it.
        """
        return torch.ones_like(target, dtype=torch.float32)

    @abstractmethod
    def posterior(self, outputs: Tensor) -> Tensor:
        """Return the probability of each label, shape (B, R); every row sums to one."""

    def point(self, outputs: Tensor) -> Tensor:
        """Return one number an image in the target's unit, shape (B,), decoded from the posterior."""
        posterior = self.posterior(outputs)
        if self.decode == "mean":
            return (posterior * self.values).sum(dim=1)  # (B, R) -> (B,)
        if self.decode == "mode":
            return self.values[posterior.argmax(dim=1)]
        # The first label at which half of the mass is reached; rounding may leave the last sum a hair below one half.
        below = (posterior.cumsum(dim=1) < 0.5).sum(dim=1)  # (B, R) -> (B,)
        return self.values[below.clamp(max=self.num_labels - 1)]
