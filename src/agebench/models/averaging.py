"""Averages of the weights of a module during training: moving (EMA), or over the ends of epochs (SWA)."""

from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from agebench.errors import UserError


class WeightAverage:
    """Keeps the moving average of the weights of a module, and exchanges both for evaluation.

    Parameters and the running statistics of batch norm are averaged. Integers, such as the counters of batch norm, are
    never averaged: they have the values of the trained weights.

    After update n the average is d * average + (1 - d) * weights with d = min(decay, (1 + n) / (10 + n)). This warm-up
    of the decay forgets the initial weights.

    Args:
        module: The module that is trained.
        decay: The largest share of the average that an update keeps, in (0, 1).

    Raises:
        UserError: If the weights have half precision, which an update of a thousandth would not change.

    Source:
        The warm-up is that of TensorFlow's ExponentialMovingAverage.
    """

    key: ClassVar[str] = "ema.decay"  # of the config, for messages

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.evaluates = False  # whether the module holds the average
        floats = {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
        if any(tensor.dtype not in (torch.float32, torch.float64) for tensor in floats.values()):
            raise UserError(
                f"{self.key} needs weights in float32: set trainer.precision=bf16-mixed, 16-mixed or 32-true, or "
                f"{self.key}=null"
            )
        self._names, self._held = list(floats), list(floats.values())  # these share the memory of the module
        self._other = [tensor.clone() for tensor in self._held]  # the average, or during evaluation the trained weights

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the average after each step of an optimizer."""
        steps: list[bool] = []

        # torch calls both hooks twice if the class of the optimizer calls `step` of a parent.
        def begin(*_: Any) -> None:
            steps[:] = [True]

        def end(*_: Any) -> None:
            if steps:
                steps.clear()
                self.update()

        optimizer.register_step_pre_hook(begin)
        optimizer.register_step_post_hook(end)

    def end_epoch(self, progress: float) -> bool:
        """Update the average at the end of an epoch if it is one over epochs, and return whether it was updated.

        Args:
            progress: The share of the training that is complete.
        """
        return False

    def update(self) -> None:
        """Update the average with the weights that are trained."""
        self.updates += 1
        get_ema_multi_avg_fn(self._kept_share())(self._other, self._held, None)

    def _kept_share(self) -> float:
        """Return the share of the average that the current update keeps."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    def exchange(self, *, evaluate: bool) -> None:
        """Let the module hold the average (for evaluation), or the weights that are trained.

        Before the first update there is no average, and the module keeps the weights that are trained.
        """
        if evaluate != self.evaluates and self.updates:
            self.evaluates = evaluate
            for tensor, other in zip(self._held, self._other, strict=True):
                held = tensor.clone()
                tensor.copy_(other)
                other.copy_(held)

    def to_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the average into the `state_dict` of a checkpoint, and what training needs to resume under `average`."""
        average, trained = (self._held, self._other) if self.evaluates else (self._other, self._held)
        if self.updates:
            checkpoint["state_dict"] = {**checkpoint["state_dict"], **dict(zip(self._names, average, strict=True))}
        checkpoint["average"] = {"updates": self.updates, "trained": dict(zip(self._names, trained, strict=True))}

    @staticmethod
    def from_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Put the trained weights back into `state_dict`, and return what `restore` needs."""
        stored = checkpoint.pop("average")
        average = {name: checkpoint["state_dict"][name] for name in stored["trained"]}
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **stored["trained"]}
        return {"updates": stored["updates"], "average": average}

    def restore(self, stored: dict[str, Any]) -> None:
        """Continue from what `from_checkpoint` returned."""
        self.updates = stored["updates"]
        for name, tensor in zip(self._names, self._other, strict=True):
            tensor.copy_(stored["average"][name])


class EpochAverage(WeightAverage):
    """Keeps the mean of the weights at the ends of epochs: stochastic weight averaging (SWA).

    Each of these epochs has the same share. The statistics of batch norm must be computed again for the average, see
    `agebench.models.statistics`.

    Args:
        module: The module that is trained.
        start: The share of the training at which the average starts, in [0, 1).

    Source:
        Izmailov et al. (2018), Averaging Weights Leads to Wider Optima and Better Generalization, arXiv:1803.05407.
        Departs in one way: the learning rate is that of the schedule.
    """

    key = "swa.start"

    def __init__(self, module: nn.Module, start: float) -> None:
        super().__init__(module, decay=1.0)
        self.start = start

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Do nothing: single steps are not averaged."""

    def end_epoch(self, progress: float) -> bool:
        """Add the weights to the average, and return whether it has started."""
        if progress >= self.start:
            self.update()
        return progress >= self.start

    def _kept_share(self) -> float:
        return 1 - 1 / self.updates
