"""Classification with one output per label and a softmax."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agebench.errors import UserError
from agebench.heads.base import Head

LOSSES = ("cross_entropy", "squared_error")


class Softmax(Head):
    """Classification: label k has the probability softmax(outputs)[k].

    Args:
        num_labels: R.
        values: The value of each label, length R.
        ordered: Whether the labels have an order.
        loss: `cross_entropy`, or `squared_error`: half the squared distance between the posterior and the one-hot
            label, summed over labels.
        label_smoothing: Share of the probability mass that is spread evenly over all labels, in [0, 1).
        class_weight: Weight of each label in the loss: null (no weights), R positive numbers, or `balanced`. As in
            scikit-learn, `balanced` is N / (R' n), where n of the N train images have the label, and R' labels have
            train images. The weight of a label without train images is 1.
        decode: The statistic of the posterior that is the point estimate, see Head.

    Raises:
        UserError: If the loss is unknown, label_smoothing is out of range, or the weights are not R positive numbers.
    """

    outputs_are_logits = True
    weights: Tensor | None  # class weights, shape (R,); saved with the weights of the network

    def __init__(
        self,
        num_labels: int,
        values: Sequence[float],
        *,
        ordered: bool,
        loss: str = "cross_entropy",
        label_smoothing: float = 0.0,
        class_weight: str | Sequence[float] | None = None,
        decode: str = "auto",
    ) -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        if loss not in LOSSES:
            raise UserError(f"head.loss={loss} is not a loss of head=softmax: choose one of {', '.join(LOSSES)}")
        if not 0 <= label_smoothing < 1:
            raise UserError(f"head.label_smoothing must be in [0, 1), got {label_smoothing}")
        self.num_outputs, self.kind, self.label_smoothing = num_labels, loss, label_smoothing
        self.balanced = class_weight == "balanced"
        given = None if self.balanced or class_weight is None else _check_weights(class_weight, num_labels)
        self.register_buffer("weights", given)

    def set_label_counts(self, counts: Tensor) -> None:
        """Set balanced class weights from the number of train images of each label, int64, shape (R,)."""
        if self.balanced:
            present = counts > 0
            balanced = counts.sum() / (present.sum() * counts.clamp(min=1))
            self.weights = torch.where(present, balanced, 1.0).to(self.values)

    def start(self, counts: Tensor) -> Tensor | None:
        """Return the logits of the distribution of the train labels, shape (R,); None with class weights."""
        return None if self.balanced or self.weights is not None else super().start(counts)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy in nats, or half the squared error, shape ().

        With class weights it is the weighted mean over the batch. With label smoothing the cross-entropy multiplies the
        mass on each label by the weight of that label, as in PyTorch.
        """
        if self.balanced and self.weights is None:
            raise RuntimeError("call set_label_counts() with the counts of train images before the loss")
        # The buffer has the precision of the network, but outputs are float32.
        weights = None if self.weights is None else self.weights.to(outputs.dtype)
        if self.kind == "cross_entropy":
            return F.cross_entropy(outputs, target, weight=weights, label_smoothing=self.label_smoothing)
        one_hot = F.one_hot(target, self.num_labels).to(outputs.dtype)  # (B,) -> (B, R)
        one_hot = one_hot * (1 - self.label_smoothing) + self.label_smoothing / self.num_labels
        errors = 0.5 * (outputs.softmax(dim=1) - one_hot).square().sum(dim=1)  # (B, R) -> (B,)
        if weights is None:
            return errors.mean()
        return (weights[target] * errors).sum() / weights[target].sum()

    def sample_weights(self, target: Tensor) -> Tensor:
        """Return the class weight of each image's label, shape (B,)."""
        return super().sample_weights(target) if self.weights is None else self.weights[target].float()

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return softmax(outputs), shape (B, R)."""
        return outputs.softmax(dim=1)


def _check_weights(weights: str | Sequence[float], num_labels: int) -> Tensor:
    """Return the weights as float32, shape (R,)."""
    numbers = () if isinstance(weights, str) else tuple(weights)
    if len(numbers) != num_labels or not all(
        isinstance(w, int | float) and w > 0 and math.isfinite(w) for w in numbers
    ):
        raise UserError(
            f"head.class_weight must be null, balanced or {num_labels} positive numbers, one per label, got {weights}"
        )
    return torch.tensor(numbers, dtype=torch.float32)
