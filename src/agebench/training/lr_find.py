"""`lr_find=true`: the loss of a short training while its learning rate rises, and two rates to train with."""

import logging
import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from agebench.build.keys import NETWORK, TRAINING, check_nodes
from agebench.build.module import build_data
from agebench.errors import FailedError
from agebench.files import atomic_write, write_csv
from agebench.progress import Bar
from agebench.report.rate_curve import RateCurve, draw_rate_curve, short_rate
from agebench.report.style import plot_style
from agebench.runs.folder import check_folder
from agebench.text import page_link
from agebench.training.memory import keep_freed_memory
from agebench.training.probe import run_probe

log = logging.getLogger(__name__)
Array = npt.NDArray[np.float64]

LOWEST, HIGHEST = 1e-7, 10.0  # rates
STEPS = 400  # 50 per decade
MAX_SECONDS = 60.0
BETA = 0.9  # of the moving average that decides when training has diverged
DIVERGED = 4.0  # times the lowest loss so far, as in fastai
WIDTH = 0.15  # decades: standard deviation of the smoothing, and at least SMOOTHED steps
SMOOTHED = 4
ONSET = 0.1  # share of the fall at which it begins
HUMP = 0.25  # share of the fall: a rise of more than this ends an earlier fall
SMALLEST_FALL = 0.02  # share of the initial loss


class RateSweep(Callback):
    """Raises the learning rate from LOWEST to HIGHEST, evenly on a log axis, and records the loss of each batch.

    The position in the sweep is the share of STEPS or of MAX_SECONDS that has passed, whichever is larger: a slow
    network takes fewer steps, and its sweep is complete too. Training stops when the loss has diverged.

    Args:
        base: `optim.lr`. The rates of parameter groups keep their ratios to it (`optim.layer_decay`).
        clock: Returns seconds.
    """

    def __init__(self, base: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.base, self.clock = base, clock
        self.rates: list[float] = []  # of each batch
        self.losses: list[float] = []
        self.diverged = False
        self._average = 0.0
        self._lowest = math.inf

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the rates of the parameter groups."""
        self._shares = [group["lr"] / self.base for group in trainer.optimizers[0].param_groups]
        self._bar = Bar("lr_find", total=STEPS, unit="steps")

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Set the rate of the next step."""
        if not self.losses:
            self._begin = self.clock()
        position = max(trainer.global_step / (STEPS - 1), (self.clock() - self._begin) / MAX_SECONDS)
        if position >= 1:
            position, trainer.should_stop = 1.0, True
        self._rate = LOWEST * (HIGHEST / LOWEST) ** position
        for group, share in zip(trainer.optimizers[0].param_groups, self._shares, strict=True):
            group["lr"] = self._rate * share
        self._bar.advance_to(round(position * STEPS))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *args: Any) -> None:
        """Record the loss before the step, and stop if training has diverged."""
        loss = float(outputs["loss"])
        if math.isfinite(loss):
            self.rates.append(self._rate)
            self.losses.append(loss)
            self._average = BETA * self._average + (1 - BETA) * loss
            smoothed = self._average / (1 - BETA ** len(self.losses))
            self._lowest = min(self._lowest, smoothed)
        if not math.isfinite(loss) or smoothed > DIVERGED * self._lowest:
            self.diverged = trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the bar."""
        self._bar.close()


@dataclass(frozen=True)
class Suggestions:
    """What a sweep suggests.

    Args:
        smoothed: The smoothed loss of each batch, shape (N,).
        steepest: The rate at which the smoothed loss falls fastest per decade; None if it does not fall.
        valley: The rate in the middle, on the log axis, between the start of the fall and the lowest loss.
    """

    smoothed: Array
    steepest: float | None
    valley: float | None


def suggest(rates: Array, losses: Array) -> Suggestions:
    """Return the smoothed loss, and the rates that it suggests.

    The smoothing is a Gaussian average over rates, which has no lag: a moving average over past steps, as in fastai and
    Lightning, moves the steepest point to higher rates. A loss above twice the initial loss counts as twice that loss,
    because the smoothing would spread the first losses of a divergence to lower rates.

    Args:
        rates: Ascending, shape (N,).
        losses: Finite, shape (N,).
    """
    decades = np.log10(rates)
    initial = float(np.median(losses[: max(1, len(losses) // 10)]))
    kept = np.minimum(losses, initial + abs(initial))
    width = max(WIDTH, SMOOTHED * (decades[-1] - decades[0]) / len(decades))
    weights = np.exp(-0.5 * ((decades[:, None] - decades) / width) ** 2)  # (N, N)
    smoothed = weights @ kept / weights.sum(axis=1)
    lowest = int(smoothed.argmin())
    before = smoothed[: lowest + 1]
    fall = before.max() - before[-1]
    if lowest < 2 or fall < SMALLEST_FALL * abs(initial):
        return Suggestions(smoothed, None, None)
    first = _start_of_last_fall(before, HUMP * fall)
    steepest = first + int(np.gradient(before[first:], decades[first : lowest + 1]).argmin())
    top = before[first:].max()
    start = first + int(np.flatnonzero(before[first:] > top - ONSET * (top - before[-1]))[-1])
    return Suggestions(smoothed, float(rates[steepest]), float(10 ** ((decades[start] + decades[lowest]) / 2)))


def _start_of_last_fall(losses: Array, tolerance: float) -> int:
    """Return the index from which a curve falls to its end, apart from rises of up to `tolerance`."""
    backwards = losses[::-1]
    rises = np.flatnonzero(np.maximum.accumulate(backwards) - backwards > tolerance)
    return 0 if not len(rises) else len(losses) - int(rises[0])


def find_rate(cfg: DictConfig, folder: Path) -> Suggestions:
    """Sweep the learning rate, write the curve to a folder as PNG and CSV, and log two rates and the line to type.

    The sweep trains a new module with the optimizer, head, augmentation, batch size, precision and gradient clipping of
    the config, without its schedule. It writes no checkpoint and no results.json, so no command takes it for a run. The
    only other files that it writes are the packed pixels, which training writes too.

    Lightning's LearningRateFinder is not used: it sets all parameter groups to one rate, takes the gradient with
    respect to the rate instead of its logarithm, which prefers low rates, and smooths with a lag.

    Raises:
        UserError: If the config or the data is wrong, or the folder contains other files.
        FailedError: If the loss is not finite from the start.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    check_nodes(plain, (*NETWORK, *TRAINING))
    check_folder(folder, "lr_find")
    keep_freed_memory()
    sweep = RateSweep(float(cfg.optim.lr))
    data = build_data(cfg)
    begin = time.perf_counter()
    run_probe(cfg, data, sweep, steps=STEPS)
    if len(sweep.losses) < 3:
        raise FailedError(
            f"lr_find=true: the loss is not finite at the rate {LOWEST:g}: check the data and data.normalise, or set "
            "trainer.precision=32-true"
        )
    found = suggest(np.array(sweep.rates), np.array(sweep.losses))
    stopped = "the loss had diverged" if sweep.diverged else "the end of the sweep"
    log.info(
        "lr_find   %d steps of %d images in %.0f s, rates %s to %s (%s)",
        len(sweep.losses),
        data.batch_size,
        time.perf_counter() - begin,
        *map(short_rate, (sweep.rates[0], sweep.rates[-1])),
        stopped,
    )
    _write(cfg, folder, sweep, found)
    _log(found, folder)
    return found


def _write(cfg: DictConfig, folder: Path, sweep: RateSweep, found: Suggestions) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(sweep.rates, sweep.losses, found.smoothed.tolist(), strict=True)
    write_csv(folder / "lr_find.csv", ["rate", "loss", "smoothed_loss"], rows)
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    names = {key: hydra.runtime.choices.get(key) for key in ("model", "head", "optim")} if hydra else {}
    title = f"{cfg.data.name}, {', '.join(filter(None, names.values()))}, {cfg.data.batch_size} images per step"
    curve = RateCurve(np.array(sweep.rates), np.array(sweep.losses), found.smoothed, found.steepest, found.valley)
    with plot_style(), atomic_write(folder / "lr_find.png") as part:
        draw_rate_curve(curve, title=title).savefig(part, format="png")


def _log(found: Suggestions, folder: Path) -> None:
    if found.steepest is None or found.valley is None:
        log.warning(
            "lr_find   the loss falls at no rate, so there is no suggestion: look at the picture; more images per step "
            "(data.batch_size) make the curve less noisy"
        )
    else:
        log.info("lr_find   valley %s, steepest point %s", short_rate(found.valley), short_rate(found.steepest))
        log.info("lr_find   to train with the valley:\n%s", line_to_type(found.valley))
    log.info("written to %s", folder)
    log.info("curve     %s", page_link(folder / "lr_find.png"))


def line_to_type(rate: float) -> str:
    """Return the command of this process without lr_find, with a rate."""
    hydra = HydraConfig.get()
    given = [text for text in hydra.overrides.task if text.partition("=")[0] not in ("lr_find", "optim.lr")]
    dirs = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    options = [f"--config-dir={path}" for path in dirs]
    return shlex.join(["python", "-m", "agebench.train", *options, *given, f"optim.lr={short_rate(rate)}"])
