"""The check of each training step: a loss or gradients that are not finite stop training, or the step is left out."""

import logging
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn.utils import get_total_norm

from agebench.errors import FailedError

log = logging.getLogger(__name__)

Action = Literal["stop", "skip"]
MOST_IN_A_ROW = 20  # steps that may be left out one after another
SHOWN_LOSSES = 5
SHOWN_NAMES = 8
DEFERRED_STEPS = 50  # steps between two checks on a GPU if trainer.log_every_n_steps=0
ADVICE = "try a lower optim.lr, scheduler.warmup_epochs or trainer.gradient_clip_val"


class SkippedStepError(Exception):
    """Leaves out an update. Raised between the backward pass and the update, caught around the optimizer's `step`."""


@dataclass
class Step:
    """What is known about a step before its update."""

    index: int  # from 0, as in TensorBoard
    epoch: int  # from 0
    rate: Any
    losses: list[Tensor]  # of each batch of the step; several with accumulation
    rows: list[Tensor]  # rows in the train part, of each batch
    rng: dict[str, Tensor]  # states of the random number generators before the step; empty if the check is deferred


class NonFiniteError(FailedError):
    """Training stops because a loss, gradients or weights are not finite.

    Args:
        what: What is not finite, such as `the loss is nan`.
        step: The step.
        last_losses: The finite losses before it, the latest last.
        is_current: Whether the module has the weights from before the step.
        skipped: The number of steps that were left out just before this one.
    """

    def __init__(
        self, what: str, step: Step, *, last_losses: Sequence[float], is_current: bool, skipped: int = 0
    ) -> None:
        self.what, self.step, self.last_losses = what, step, list(last_losses)
        self.is_current, self.skipped = is_current, skipped
        super().__init__(self.describe([]))

    def describe(self, names: Sequence[str], file: str = "") -> str:
        """Return one sentence.

        Args:
            names: Names of the images of the step.
            file: The file with what reproduces the step; empty if there is none.
        """
        step, count = self.step, len(names)
        losses = ", ".join(f"{loss:.4g}" for loss in self.last_losses) or "none"
        parts = [f"{self.what} at step {step.index + 1:,} (epoch {step.epoch + 1}, rate {float(step.rate):.3g})"]
        if self.skipped:
            parts.append(f"this is the {self.skipped}th step in a row that is left out")
        parts.append(f"the last finite losses are {losses}")
        if names:
            more = f" and {count - SHOWN_NAMES:,} more" if count > SHOWN_NAMES else ""
            parts.append(f"the images are {', '.join(names[:SHOWN_NAMES])}{more}")
        if file:
            parts.append(f"{file} has what reproduces the step")
        kept = "finished epochs are kept; " if step.epoch else ""
        parts.append(f"{kept}{ADVICE}" + ("" if self.skipped else ", or on_nan=skip"))
        return "; ".join(parts)


class StepCheck:
    """Checks losses and gradients before each update.

    On a CPU each step is checked. On another device the check would wait for the device. With `stop` it is therefore
    deferred: the losses of several steps are checked together. With `skip` it is not, because the decision is needed
    before the update.

    Args:
        action: `stop` raises NonFiniteError, `skip` raises SkippedStepError.
    """

    def __init__(self, action: Action = "stop") -> None:
        self.action = action
        self.skipped = self.in_a_row = 0  # number of steps that were left out: all, and the latest ones in a row
        self._skipped_in_epoch: list[int] = []
        self._losses: list[Tensor] = []
        self._rows: list[Tensor] = []
        self._rng: dict[str, Tensor] = {}
        self._buffers: list[tuple[Tensor, Tensor]] = []  # those of the module, and copies from before the step
        self._device = torch.device("cpu")
        self._is_deferred = self._is_distributed = self._is_scaled = False
        self._every = DEFERRED_STEPS
        self._pending: list[Step] = []
        self._last: deque[float] = deque(maxlen=SHOWN_LOSSES)

    def start_epoch(self, module: L.LightningModule) -> None:
        """Find out what the device and the strategy need."""
        trainer: Any = module.trainer
        self._device = module.device
        self._is_deferred = self.action == "stop" and self._device.type != "cpu"
        self._is_distributed = trainer.world_size > 1
        self._every = trainer.log_every_n_steps or DEFERRED_STEPS
        # GradScaler leaves out steps with infinite gradients itself, and lowers its scale.
        self._is_scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        self._buffers = [(each, each.clone()) for each in module.buffers()] if self.action == "skip" else []

    def begin(self, rows: Tensor) -> None:
        """Record the state before a batch of a step."""
        if not self._rows:
            if not self._is_deferred:
                self._rng = _random_states(self._device)
            for buffer, kept in self._buffers:  # batch norm updates its statistics before a loss turns out to be NaN
                kept.copy_(buffer)
        self._rows.append(rows)

    def add_loss(self, loss: Tensor) -> None:
        """Record the loss of a batch."""
        self._losses.append(loss)

    def before_update(self, module: L.LightningModule, optimizer: torch.optim.Optimizer) -> None:
        """Check a step between its backward pass and its update, now or together with later ones.

        Raises:
            NonFiniteError: If training must stop.
            SkippedStepError: If the update must be left out.
        """
        losses, rows, rng = self._losses, self._rows, self._rng
        self._losses, self._rows, self._rng = [], [], {}
        if not (self._is_deferred or self._is_distributed):  # every microsecond counts: this runs at each step
            values = [loss.item() for loss in losses]
            if all(map(math.isfinite, values)) and (self._is_scaled or _are_finite(gradients_of(optimizer))):
                self._last.extend(values)
                self.in_a_row = 0
                return
        rate = optimizer.param_groups[0]["lr"]
        self._pending.append(Step(module.global_step, module.current_epoch, rate, losses, rows, rng))
        if not self._is_deferred or len(self._pending) >= self._every:
            self._examine(module, gradients_of(optimizer))

    def end_epoch(self, module: L.LightningModule) -> None:
        """Check what is not checked yet, and log how many steps of the epoch were left out.

        Raises:
            NonFiniteError: If a loss or a weight is not finite.
        """
        if self._pending:
            self._examine(module, [])
        if self._skipped_in_epoch:
            shown = ", ".join(f"{index + 1:,}" for index in self._skipped_in_epoch[:SHOWN_NAMES])
            more = ", ..." if len(self._skipped_in_epoch) > SHOWN_NAMES else ""
            _warn(
                f"epoch {module.current_epoch + 1}: {len(self._skipped_in_epoch)} steps with a loss or gradients that "
                f"are not finite were left out (steps {shown}{more})"
            )
            self._skipped_in_epoch = []

    def check_weights(self, module: L.LightningModule) -> None:
        """Raise NonFiniteError if the last update made a weight infinite or NaN: such weights must not be stored."""
        if not _are_finite(tensor for tensor in module.state_dict().values() if tensor.is_floating_point()):
            rate = module.trainer.optimizers[0].param_groups[0]["lr"]
            step = Step(module.global_step - 1, module.current_epoch, rate, [], [], {})
            raise NonFiniteError("weights are not finite", step, last_losses=list(self._last), is_current=False)

    def state_dict(self) -> dict[str, int]:
        """Return the counts, so that a resumed run continues them."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore the counts."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]

    def _examine(self, module: L.LightningModule, gradients: list[Tensor]) -> None:
        steps, self._pending = self._pending, []
        values = iter(torch.stack([loss for step in steps for loss in step.losses]).tolist())
        bad, what = None, ""
        for step in steps:
            losses = [next(values) for _ in step.losses]
            broken = [loss for loss in losses if not math.isfinite(loss)]
            if broken:
                bad, what = step, f"the loss is {broken[0]}"
                break
            self._last.extend(losses)
        if bad is None and not self._is_scaled and not _are_finite(gradients):
            bad, what = steps[-1], f"the norm of the gradients is {get_total_norm(gradients).item()}"
        if self._is_distributed:
            is_bad = torch.tensor(float(bad is not None), device=module.device)
            if module.trainer.strategy.reduce(is_bad, reduce_op="max") and bad is None:  # all processes must agree
                bad, what = steps[-1], ""
            if bad is not None:
                what, bad.rows = _gather(what, bad.rows)
        if bad is None:
            self.in_a_row = 0
            return
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.action == "stop" or self.in_a_row >= MOST_IN_A_ROW:
            is_current = not self._is_deferred
            skipped = self.in_a_row if self.action == "skip" else 0
            raise NonFiniteError(what, bad, last_losses=self._last, is_current=is_current, skipped=skipped)
        self._skipped_in_epoch.append(bad.index)
        for buffer, kept in self._buffers:
            buffer.copy_(kept)
        if not self._is_scaled:
            raise SkippedStepError


def _gather(what: str, rows: list[Tensor]) -> tuple[str, list[Tensor]]:
    """Return the most exact reason of all processes, and the rows of all of them."""
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, (what, [each.cpu() for each in rows]))
    reasons = [reason for reason, _ in found if reason]
    exact = [reason for reason in reasons if reason.startswith("the loss")]
    return (exact or reasons)[0], [each for _, batches in found for each in batches]


def gradients_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the gradients of the parameters of an optimizer that have one."""
    found = [p.grad for group in optimizer.param_groups for p in group["params"]]
    return [gradient for gradient in found if gradient is not None]


def _are_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all elements are finite. On a CPU a sum is twice as fast as a norm."""
    tensors = list(tensors)
    if not tensors:
        return True
    if tensors[0].is_cpu:
        return all(math.isfinite(each.sum().item()) or bool(each.isfinite().all()) for each in tensors)
    # One number for all tensors, so that the device is waited for once.
    return math.isfinite(get_total_norm(tensors).item()) or all(bool(each.isfinite().all()) for each in tensors)


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


@rank_zero_only
def _warn(message: str) -> None:
    log.warning(message)
