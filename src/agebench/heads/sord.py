"""One output a label, learnt from soft labels that fall off with a distance."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agebench.errors import UserError
from agebench.heads.base import Head

DISTANCES = ("absolute", "squared", "log")


class SORD(Head):
    """Learns softmax(-scale * distance) over the labels in place of a one-hot label.

    The loss is the Kullback-Leibler divergence of softmax(outputs) from it.

    Args:
        num_labels: R, at least 2.
        values: What each label is worth, length R; all positive for the distance `log`.
        ordered: Must be true.
        distance: Between the true value t and another v: `absolute` |t - v|, `squared` (t - v)^2, or `log`
            (log t - log v)^2, which tells the young more finely apart than the old.
        scale: Nats a unit of the distance (1/unit, 1/unit^2, or of squared logarithms). None for one over the mean
            distance between neighbouring labels: exactly 1 for years and for decades with the first two distances.
        decode: How a point is taken from the posterior, see Head.

    Raises:
        UserError: If the labels have no order, there is only one, the distance is unknown, the scale is not positive,
            or a value that is not positive would need a logarithm.

    Source:
        Diaz, Marathe (2019), CVPR, "Soft Labels for Ordinal Regression", doi:10.1109/CVPR.2019.00487. Departs in
        these: the divergence is the paper's cross-entropy less the entropy of the soft label, which no weight
        changes; the scale's default is ours; and `auto` decodes the median, where the paper takes the likeliest.
    """

    needs_order = True
    soft_labels: Tensor

    def __init__(
        self,
        num_labels: int,
        values: Sequence[float],
        *,
        ordered: bool,
        distance: str = "absolute",
        scale: float | None = None,
        decode: str = "auto",
    ) -> None:
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        if distance not in DISTANCES:
            raise UserError(
                f"head.distance={distance} is not a distance of head=sord: choose one of {', '.join(DISTANCES)}"
            )
        if scale is not None and not 0 < scale < math.inf:
            raise UserError(f"head.scale must be a positive number, or null, got {scale}")
        if distance == "log" and values[0] <= 0:
            raise UserError(
                f"head.distance=log needs positive values, and the first label's is {values[0]:g}: use "
                "head.distance=absolute or squared"
            )
        self.num_outputs = num_labels
        worth = torch.tensor(values, dtype=torch.float64)
        worth = worth.log() if distance == "log" else worth
        apart = (worth[:, None] - worth).abs()  # (R,) -> (R, R), row: the true label
        apart = apart if distance == "absolute" else apart.square()
        self.scale = scale if scale is not None else 1 / apart.diagonal(1).mean().item()
        self.register_buffer("soft_labels", (-self.scale * apart).softmax(dim=1).float(), persistent=False)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the divergence in nats, averaged over the batch, shape ()."""
        wanted = self.soft_labels[target].to(outputs.dtype)  # (B,) -> (B, R)
        return F.kl_div(outputs.log_softmax(dim=1), wanted, reduction="batchmean")

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return softmax(outputs), shape (B, R)."""
        return outputs.softmax(dim=1)
