"""The base class of heads."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from agebench.errors import UserError

SMALLEST = 1e-12  # probability before a logarithm
DECODES = ("auto", "mean", "median", "mode")


def label_shares(counts: Tensor) -> Tensor:
    """Return the share of each label among the train images, plus one image spread evenly, float64, shape (R,).

    The additional image gives labels without train images a positive share.
    """
    return (counts.double() + 1 / len(counts)) / (counts.sum() + 1)


class Head(nn.Module, ABC):
    """Computes a loss, a posterior and a point estimate from `num_outputs` network outputs.

    A head always gets float32 outputs, outside of autocast, for any training precision. Its parameters are trained,
    frozen and saved together with those of the network.

    Args:
        num_labels: R, the number of labels. Labels without training images are allowed.
        values: The value of each label in the target's unit (years, decades), length R, ascending if ordered.
        ordered: Whether the labels have an order. Without an order the point estimate is the most likely label.
        decode: The statistic of the posterior that is the point estimate: `mean`, `median`, `mode`, or `auto`. `auto`
            is the median for ordered labels, which minimizes the expected absolute error, and the mode otherwise.

    Raises:
        UserError: If the labels have no order but the head or `decode` needs one, or if the head needs an order and
            there is only one label.
    """

    needs_order: ClassVar[bool] = False  # whether the head supports only ordered labels
    from_posterior: bool = True  # whether the point estimate depends only on the posterior; an ensemble reads it
    outputs_are_logits: ClassVar[bool] = False  # whether the posterior is the softmax of the outputs
    num_outputs: int
    values: Tensor

    def __init__(self, num_labels: int, values: Sequence[float], *, ordered: bool, decode: str = "auto") -> None:
        super().__init__()
        if decode not in DECODES:
            raise UserError(f"head.decode must be one of {', '.join(DECODES)}, got {decode}")
        if not ordered and (self.needs_order or decode in ("mean", "median")):
            what = type(self).__name__ if self.needs_order else f"head.decode={decode}"
            raise UserError(
                f"{what} needs labels with an order, but classes have none: use head=softmax with head.decode=mode, or "
                "data.target=age, decade or bins if the data set has ages"
            )
        if self.needs_order and num_labels < 2:
            raise UserError(
                f"{type(self).__name__} needs at least two labels, but this target has only one: use data with more "
                "labels"
            )
        self.num_labels, self.ordered = num_labels, ordered
        self.decode = decode if decode != "auto" else "median" if ordered else "mode"
        # The data determine the values, so they are not saved with the weights.
        self.register_buffer("values", torch.tensor(values, dtype=torch.float32), persistent=False)

    def set_label_counts(self, counts: Tensor) -> None:  # not abstract: most heads ignore the counts
        """Set the number of train images of each label, int64, shape (R,). Called once, before weights are loaded."""

    def start(self, counts: Tensor) -> Tensor | None:
        """Return outputs whose posterior is the distribution of the train labels, float32, shape (num_outputs,).

        A network that starts there predicts the median of the train labels before its first step. None leaves the
        initial outputs of the network: the default for classes, where they cost no more than a few steps.

        Args:
            counts: The number of train images of each label, int64, shape (R,).
        """
        return self.start_logits(label_shares(counts).log(), counts) if self.ordered else None

    def train_median(self, counts: Tensor) -> Tensor:
        """Return the median of the train labels in the target's unit, float64, shape ()."""
        return self.values.double().cpu()[(label_shares(counts).cumsum(0) < 0.5).sum()]

    def start_logits(self, logits: Tensor, counts: Tensor) -> Tensor:
        """Return logits of a softmax, float32, shape (R,), so that a mean that is decoded is the median of train.

        Exponential tilting, which adds a line over the values, moves the mean of a skewed distribution to its median.

        Args:
            logits: float64, shape (R,).
            counts: The number of train images of each label, int64, shape (R,).
        """
        if self.decode != "mean":
            return logits.float()
        values, median = self.values.double().cpu(), self.train_median(counts)
        low, high = -1.0 / values.diff().min(), 1.0 / values.diff().min()
        for _ in range(60):  # the mean increases with the slope
            slope = (low + high) / 2
            if ((logits + slope * values).softmax(0) * values).sum() < median:
                low = slope
            else:
                high = slope
        return (logits + slope * values).float()

    @abstractmethod
    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of a batch, shape (), from outputs (B, num_outputs) and label indices (B,), int64."""

    def mixed_loss(self, outputs: Tensor, target: Tensor, other: Tensor, *, share: float) -> Tensor:
        """Return the mean loss of mixed images, shape (): the mixture of the losses of both labels.

        For losses that are linear in the label distribution (cross-entropy, divergences, binary tasks) its gradient is
        that of the mixed distribution.

        Args:
            outputs: Outputs of the mixed images, shape (B, num_outputs).
            target: Label indices with the share `share`, shape (B,).
            other: Label indices with the rest, shape (B,).
            share: In [0, 1].
        """
        return share * self.loss(outputs, target) + (1 - share) * self.loss(outputs, other)

    def sample_weights(self, target: Tensor) -> Tensor:
        """Return the weight of each image in the loss of a batch, shape (B,), from label indices (B,), int64.

        The loss of a batch is the mean of the losses of single images with these weights, so that it can be
        bootstrapped. The loss of a head that violates this gets no interval.
        """
        return torch.ones_like(target, dtype=torch.float32)

    @abstractmethod
    def posterior(self, outputs: Tensor) -> Tensor:
        """Return the probability of each label, shape (B, R). Each row sums to one."""

    def log_posterior(self, outputs: Tensor) -> Tensor:
        """Return the logarithm of the posterior, shape (B, R), with a gradient; at least log(1e-12) without logits."""
        if self.outputs_are_logits:
            return outputs.log_softmax(dim=1)
        return self.posterior(outputs).clamp(min=SMALLEST).log()

    def point(self, outputs: Tensor) -> Tensor:
        """Return the point estimate of each image in the target's unit, shape (B,)."""
        posterior = self.posterior(outputs)
        if self.decode == "mean":
            return (posterior * self.values).sum(dim=1)  # (B, R) -> (B,)
        if self.decode == "mode":
            return self.values[posterior.argmax(dim=1)]
        # The first label whose cumulative probability is at least 0.5. Rounding can leave all of them below 0.5.
        below = (posterior.cumsum(dim=1) < 0.5).sum(dim=1)  # (B, R) -> (B,)
        return self.values[below.clamp(max=self.num_labels - 1)]
