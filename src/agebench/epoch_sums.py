"""What is collected over an epoch: losses and correct predictions of training, and the outputs of an evaluation."""

import torch
from torch import Tensor
from torchmetrics import Metric

from agebench.heads.base import Head

# Number of outputs from which correct predictions are counted together. It is 1 if the head has state that may change.
OUTPUTS_PER_COUNT = 1 << 20


class TrainSums:
    """Sums the losses and counts the correct predictions of the steps of an epoch.

    It keeps tensors: reading a number at each step would synchronize with the GPU.

    Args:
        head: Predicts the labels.
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        self.images = 0
        self._losses: list[tuple[int, Tensor]] = []  # number of images and mean loss of each step
        self._correct: list[Tensor] = []
        self._uncounted: list[tuple[Tensor, Tensor]] = []
        self._waiting = 0  # number of outputs that are not counted yet
        self._outputs_per_count = 1 if head.state_dict() else OUTPUTS_PER_COUNT

    def add(self, loss: Tensor, outputs: Tensor, target: Tensor) -> None:
        """Add the mean loss (), outputs (B, K) and label indices (B,) of a step."""
        self._losses.append((len(target), loss))
        self._uncounted.append((outputs, target))
        self._waiting += outputs.numel()
        if self._waiting >= self._outputs_per_count:
            self._count_correct()
        self.images += len(target)

    def _count_correct(self) -> None:
        """Count correct predictions of several steps together, which is as fast as counting those of one step."""
        if self._uncounted:
            outputs, target = map(torch.cat, zip(*self._uncounted, strict=True))
            self._uncounted, self._waiting = [], 0
            with torch.no_grad(), torch.autocast(outputs.device.type, enabled=False):
                self._correct.append((self.head.posterior(outputs).argmax(1) == target).sum())

    def totals(self) -> tuple[Tensor, float]:
        """Return the totals of the epoch on the CPU, and the mean loss of the last step.

        The totals are float64, shape (4,): number of images, number of images with a finite loss, sum of their losses,
        number of correct predictions.
        """
        self._count_correct()
        counts, losses = zip(*self._losses, strict=True)
        images = torch.tensor(counts, dtype=torch.float64, device="cpu")
        # Sum on the CPU, because some devices have no float64.
        mean, correct = torch.stack(losses).cpu().double(), torch.stack(self._correct).cpu().sum()
        finite = mean.isfinite()  # the loss of a step that was left out may not be
        return torch.stack([images.sum(), images[finite].sum(), (mean * images)[finite].sum(), correct]), float(
            mean[-1]
        )


class CollectedOutputs(Metric):
    """Collects the outputs for all images of a part over all processes. Each image occurs once.

    Metrics are computed from all outputs together. Nothing is averaged over batches or devices.
    """

    full_state_update = False
    outputs: list[Tensor]
    target: list[Tensor]
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("outputs", "target", "rows"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, outputs: Tensor, target: Tensor, rows: Tensor) -> None:
        """Add outputs (B, K), label indices (B,) and row numbers (B,)."""
        self.outputs.append(outputs)
        self.target.append(target)
        self.rows.append(rows)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs (N, K), label indices (N,) and rows (N,), in the order of rows."""
        outputs, target, rows = (
            torch.cat(state) if isinstance(state, list) else state for state in (self.outputs, self.target, self.rows)
        )
        order = rows.argsort()
        return outputs[order], target[order], rows[order]
