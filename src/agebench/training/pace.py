"""`trainer.max_time`: training ends in time, with a complete schedule, validation and test."""

import logging
import math
from collections import deque
from collections.abc import Mapping
from datetime import timedelta

import lightning as L
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from agebench.errors import UserError
from agebench.training.callbacks import Speed

log = logging.getLogger(__name__)
STEPS_PER_BROADCAST = 16  # steps between two looks at the clock under DDP
MEASURED = 3  # steps, for the duration of one
LARGEST_RESERVE = 1 / 3  # of the time, for validation and test, before the first validation


def seconds_of(max_time: str | Mapping[str, int]) -> float:
    """Return the seconds of a time as DD:HH:MM:SS or as arguments of timedelta.

    Raises:
        UserError: If an argument of timedelta does not exist.
    """
    if isinstance(max_time, str):
        days, hours, minutes, seconds = map(int, max_time.split(":"))
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
    try:
        return timedelta(**max_time).total_seconds()
    except TypeError as error:
        raise UserError(f"trainer.max_time: {error}: use days, hours, minutes and seconds") from error


class Pace:
    """Sets the position of the schedule, and ends training, from the number of steps and the time.

    The position of a step is the larger of two shares: the step's number among all steps of the config, and the time at
    its expected end among the available time. Without pressure of time the schedule is that of a run without
    `max_time`. Otherwise it is compressed: the last step has the last rate of the schedule, and ends the training,
    usually within an epoch, before a last validation.

    The available time is `max_time` without the time of one validation and the test. It starts with the first step. The
    time of earlier starts of a resumed run counts, up to the checkpoint from which the run continues. Under DDP the
    clock of the first process decides, and the others receive its position every STEPS_PER_BROADCAST steps.

    A run whose schedule is compressed depends on the speed of the machine, so another run of the same config differs.

    Args:
        seconds: The value of `max_time`.
        steps: Number of optimizer steps of the config; not positive if it is unlimited.
        steps_per_epoch: Number of optimizer steps of an epoch.
        speed: Measures the time since the start and the last validation.
        images: Number of images of a step, of val and of test.
    """

    def __init__(
        self, seconds: float, *, steps: float, steps_per_epoch: int, speed: Speed, images: tuple[int, int, int]
    ) -> None:
        self.seconds, self.steps, self.steps_per_epoch = seconds, math.ceil(steps), steps_per_epoch
        self.speed, self.images = speed, images
        self.position = 0.0  # of the next step at its end, by the clock, in [0, 1]
        self.ended = False
        self._is_last = False  # whether the next step is the last one
        self._counted = 0  # steps
        self._looked: tuple[int, float] | None = None  # steps and seconds at the last look at the clock
        self._durations: deque[float] = deque(maxlen=MEASURED)  # of steps; a validation lengthens one of them

    def after_step(self, trainer: L.Trainer) -> bool:
        """Move the schedule to the next step. Return whether training ends now. Call it after each batch."""
        done = trainer.global_step
        if done == self._counted or self.ended:  # gradients are accumulated
            return self.ended
        self._counted = done
        if self._is_last:
            self.ended = trainer.should_stop = True
            if trainer.is_global_zero:
                log.info(
                    "time      trainer.max_time ends training after %d steps (%.1f epochs), at the end of its schedule",
                    done,
                    done / self.steps_per_epoch,
                )
            return True
        every = 1 if trainer.world_size == 1 else STEPS_PER_BROADCAST
        if done % every == 0 or self._looked is None:
            self._look(done, every)
            if every > 1:
                self.position, self._is_last = trainer.strategy.broadcast((self.position, self._is_last))
        self._move(trainer, done)
        return False

    def _look(self, done: int, every: int) -> None:
        now = self.speed.fit_s - self.speed.startup_s
        if self._looked is not None:
            self._durations.append((now - self._looked[1]) / (done - self._looked[0]))
        self._looked = done, now
        # One slow step must not end the training: a step is as long as the shortest of three.
        duration = min(self._durations) if len(self._durations) == MEASURED else 0.0
        available = self.seconds - self._reserve(duration)
        share = (now + every * duration) / available if available > 0 else 1.0
        self._is_last = share >= 1 - 1e-9
        self.position = min(1.0, share)

    def _reserve(self, duration: float) -> float:
        """Return the seconds that a validation and the test are expected to take."""
        step, val, test = self.images
        if self.speed.validation_s is None:
            expected = (val + test) * duration / step  # at the speed of training, which is lower
            return min(expected, self.seconds * LARGEST_RESERVE)
        return self.speed.validation_s * (1 + test / max(1, val))

    def _move(self, trainer: L.Trainer, done: int) -> None:
        if self.steps <= 0:
            return
        index = min(self.steps - 1, max(done, math.ceil(self.position * self.steps - 1e-9) - 1))
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                continue  # it has no length
            schedule, target = config.scheduler, index if config.interval == "step" else index // self.steps_per_epoch
            if isinstance(schedule, LambdaLR | OneCycleLR):  # their rate depends only on the number of the step
                schedule.last_epoch = max(schedule.last_epoch, target - 1)
            while isinstance(schedule, LRScheduler) and schedule.last_epoch < target:
                schedule.step()
