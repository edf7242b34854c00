"""One output a label and a softmax over them."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from agebench.errors import UserError
from agebench.heads.base import Head

LOSSES = ("cross_entropy", "squared_error")


class SoftmaxHead(Head):
    """Classifies: label k has the probability softmax(outputs)[k].

    Args:
        num_labels: R.
        values: What each label is worth, length R.
        ordered: Whether the labels have an order.
        loss: `cross_entropy`, or `squared_error`: half the squared distance between the posterior and the one-hot
            label, summed over labels, which introductions compare it with.
        label_smoothing: Share of the label's mass that is spread evenly over all labels, in [0, 1).
        decode: How a point is taken from the posterior, see Head.

    Raises:
        UserError: If the loss is unknown or the smoothing outside its range.
    """

    def __init__(
        self,
        num_labels: int,
        values: Sequence[float],
        *,
        ordered: bool,
        loss: str = "cross_entropy",
        label_smoothing: float = 0.0,
        decode: str = "auto",
    ) -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        if loss not in LOSSES:
            raise UserError(f"head.loss={loss} is not a loss of head=softmax: choose one of {', '.join(LOSSES)}")
        if not 0 <= label_smoothing < 1:
            raise UserError(f"head.label_smoothing must be in [0, 1), got {label_smoothing}")
        self.num_outputs, self.kind, self.label_smoothing = num_labels, loss, label_smoothing

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy in nats, or half the squared error, averaged over the batch, shape ()."""
        if self.kind == "cross_entropy":
            return F.cross_entropy(outputs, target, label_smoothing=self.label_smoothing)
        hot = F.one_hot(target, self.num_labels).to(outputs.dtype)  # (B,) -> (B, R)
        hot = hot * (1 - self.label_smoothing) + self.label_smoothing / self.num_labels
        return 0.5 * (outputs.softmax(dim=1) - hot).square().sum(dim=1).mean()

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return softmax(outputs), shape (B, R)."""
        return outputs.softmax(dim=1)
