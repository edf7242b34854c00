"""Learning rate schedules. Each function takes an optimizer and returns Lightning's scheduler config.

`epochs` and `steps_per_epoch` give the length of the training; `agebench.build` passes them. Users set durations in
epochs. Schedules that change the rate within an epoch do so at each optimizer step.
"""

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR

from agebench.errors import UserError
from agebench.schema import Count, InnerShare, Natural, NonNegative, Share


def constant(
    optimizer: Optimizer, *, warmup_epochs: NonNegative = 0.0, steps_per_epoch: int, **_: Any
) -> dict[str, Any] | None:
    """Return a schedule with a linear warm-up over warmup_epochs and then a constant rate; None without warm-up."""
    if warmup_epochs == 0:
        return None
    return _by_step(optimizer, warmup_epochs * steps_per_epoch, lambda step: 1.0)


def cosine(
    optimizer: Optimizer,
    *,
    warmup_epochs: NonNegative = 0.0,
    final_share: Share = 0.0,
    epochs: float,
    steps_per_epoch: int,
    **_: Any,
) -> dict[str, Any]:
    """Return a schedule with a linear warm-up over warmup_epochs and then a cosine decay to final_share of the rate.

    Raises:
        UserError: If the length of the training is unknown.
    """
    _need_length("cosine", epochs)
    warmup = warmup_epochs * steps_per_epoch
    fall = max(1.0, epochs * steps_per_epoch - warmup)

    def factor(step: int) -> float:
        progress = min(1.0, (step - warmup) / fall)
        return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * progress))

    return _by_step(optimizer, warmup, factor)


def step(optimizer: Optimizer, *, every_epochs: Count = 10, factor: InnerShare = 0.1, **_: Any) -> dict[str, Any]:
    """Return a schedule that multiplies the rate by `factor` every `every_epochs` epochs."""
    return {"scheduler": StepLR(optimizer, every_epochs, factor), "interval": "epoch"}


def plateau(
    optimizer: Optimizer,
    *,
    patience: Natural = 3,
    factor: InnerShare = 0.1,
    monitor: str,
    mode: str,
    val_every_epochs: int = 1,
    **_: Any,
) -> dict[str, Any]:
    """Return a schedule that lowers the rate after more than `patience` validations without improvement.

    The rate is multiplied by `factor`. The monitored metric is checked every `val_every_epochs` epochs, when it has a
    new value.
    """
    scheduler = ReduceLROnPlateau(optimizer, "max" if mode == "max" else "min", factor=factor, patience=patience)
    return {"scheduler": scheduler, "interval": "epoch", "frequency": val_every_epochs, "monitor": monitor}


def one_cycle(
    optimizer: Optimizer, *, rise_share: InnerShare = 0.3, epochs: float, steps_per_epoch: int, **_: Any
) -> dict[str, Any]:
    """Return a schedule that rises from 1/25 of the rate to the rate, then falls to 1/250,000 of it.

    The rate rises during the share rise_share of all steps.

    Raises:
        UserError: If the length of the training is unknown.

    Source:
        Smith and Topin (2019), arXiv:1708.07120. Uses torch's OneCycleLR with cosine annealing and constant momentum.
    """
    _need_length("one_cycle", epochs)
    rates = [group["lr"] for group in optimizer.param_groups]
    steps = max(2, math.ceil(epochs * steps_per_epoch))
    scheduler = OneCycleLR(optimizer, rates, total_steps=steps, pct_start=rise_share, cycle_momentum=False)
    return {"scheduler": scheduler, "interval": "step"}


def _need_length(name: str, epochs: float) -> None:
    if not 0 < epochs < math.inf:
        raise UserError(f"scheduler={name} needs the length of the training: set trainer.max_epochs to 1 or more")


def _by_step(optimizer: Optimizer, warmup: float, factor: Callable[[int], float]) -> dict[str, Any]:
    def scale(step: int) -> float:
        return (step + 1) / (warmup + 1) if step < warmup else factor(step)

    return {"scheduler": LambdaLR(optimizer, scale), "interval": "step"}
