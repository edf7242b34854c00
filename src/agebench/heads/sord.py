"""SORD: one output per label, trained on soft labels that decrease with the distance from the true label."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agebench.errors import UserError
from agebench.heads.base import Head

DISTANCES = ("absolute", "squared", "log")


class SORD(Head):
    """Soft-label ordinal regression: the soft label is softmax(-scale * distance) over the labels.

    The loss is the Kullback-Leibler divergence of softmax(outputs) from the soft label.

    Args:
        num_labels: R, at least 2.
        values: The value of each label, length R. All must be positive for the distance `log`.
        ordered: Must be true.
        distance: Distance between the true value t and another value v: `absolute` |t - v|, `squared` (t - v)^2, or
            `log` (log t - log v)^2, whose soft labels are narrower at young ages than at old ages.
        scale: Nats per unit of the distance. None is the inverse of the mean distance between neighbouring labels,
            which is 1 for years and for decades with the distances `absolute` and `squared`.
        decode: The statistic of the posterior that is the point estimate, see Head.

    Raises:
        UserError: If the labels have no order, if there is only one, if the distance is unknown, if the scale is not
            positive, or if the distance is `log` and a value is not positive.

    Source:
        Diaz, Marathe (2019), CVPR, "Soft Labels for Ordinal Regression", doi:10.1109/CVPR.2019.00487. Departs in three
        ways. The divergence is the paper's cross-entropy minus the entropy of the soft label, a constant. The default
        scale is not from the paper. `auto` decodes the median; the paper uses the mode.
    """

    needs_order = True
    outputs_are_logits = True
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
                f"head.distance=log needs positive values, but the value of the first label is {values[0]:g}: use "
                "head.distance=absolute or squared"
            )
        self.num_outputs = num_labels
        exact = torch.tensor(values, dtype=torch.float64)
        exact = exact.log() if distance == "log" else exact
        distances = (exact[:, None] - exact).abs()  # (R,) -> (R, R), row: the true label
        distances = distances if distance == "absolute" else distances.square()
        self.scale = scale if scale is not None else 1 / distances.diagonal(1).mean().item()
        self.register_buffer("soft_labels", (-self.scale * distances).softmax(dim=1).float(), persistent=False)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the divergence in nats, averaged over the batch, shape ()."""
        soft = self.soft_labels[target].to(outputs.dtype)  # (B,) -> (B, R)
        return F.kl_div(outputs.log_softmax(dim=1), soft, reduction="batchmean")

    def posterior(self, outputs: Tensor) -> Tensor:
        """Return softmax(outputs), shape (B, R)."""
        return outputs.softmax(dim=1)
