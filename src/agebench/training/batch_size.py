"""`data.batch_size=auto`: the largest batch that fits on a GPU, or the fastest on a CPU."""

import gc
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from agebench.build.data import LOADED, build_training_images
from agebench.data.datamodule import ImageDataModule
from agebench.errors import UserError, is_out_of_memory
from agebench.runs.identity import config_hash
from agebench.training.probe import run_probe

log = logging.getLogger(__name__)

SMALLEST, LARGEST_CPU = 16, 512
STEPS_PER_EPOCH = 8  # at least; a larger batch would hardly train
PROBE_STEPS = 3  # on a GPU: the optimizer has its state after the first
MEASURED_S, MAX_SECONDS = 1.0, 45.0  # on a CPU: of one size, and of all
SLOWER = 0.95  # a smaller size of this share of the highest speed is preferred: it takes more steps


def largest_fitting(attempt: Callable[[int], None], *, smallest: int, most: int) -> int:
    """Return the largest size, a power of two times `smallest` or 1.5 times one, for which an attempt has memory.

    Args:
        attempt: Trains with a size. Raises torch.OutOfMemoryError, or an error that says the same, if it is too large.
        smallest: The first size.
        most: The largest size to try.

    Raises:
        UserError: If the smallest size does not fit.
    """

    def fits(size: int) -> bool:
        try:
            attempt(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    if not fits(smallest):
        raise UserError(
            f"data.batch_size=auto: not even {smallest} images fit into the memory of the GPU: use a smaller "
            "data.image_size or model, or trainer.precision=16-mixed"
        )
    size = smallest
    while 2 * size <= most and fits(2 * size):
        size *= 2
    between = 3 * size // 2
    return between if between <= most and fits(between) else size


def fastest(measure: Callable[[int], float], sizes: list[int], *, clock: Callable[[], float]) -> dict[int, float]:
    """Return the images per second of each size, in order, until a size is much slower or the time is over.

    Args:
        measure: Returns the images per second of a size.
        sizes: Ascending.
        clock: Returns seconds.
    """
    begin, speeds = clock(), dict[int, float]()
    for size in sizes:
        speeds[size] = measure(size)
        if speeds[size] < 0.8 * max(speeds.values()) or clock() - begin > MAX_SECONDS:
            break
    return speeds


def choose_batch_size(cfg: DictConfig, previous: Mapping[str, Any]) -> tuple[DictConfig, dict[str, Any]]:
    """Return a config with a number as `data.batch_size`, and `batch_size` of results.json.

    An unfinished or finished run keeps its size. Otherwise sizes are tried in short trainings.

    Args:
        cfg: The composed config with `data.batch_size=auto`.
        previous: The content of results.json of an earlier run in the same folder, or empty.
    """
    before = previous.get("batch_size")
    if isinstance(before, dict) and isinstance(before.get("chosen"), int):
        kept = _with_size(cfg, before["chosen"])
        if config_hash(_plain(kept)) == previous.get("config"):
            return kept, before
    images = build_training_images(cfg)
    loading = {key: cfg.data[key] for key in LOADED}

    def data_of(size: int) -> ImageDataModule:
        return ImageDataModule(images, seed=cfg.seed, **(loading | {"batch_size": size}))

    count = len(images.plan.split.train)
    most = max(SMALLEST, count // STEPS_PER_EPOCH)
    facts = (_largest_on_gpu if _is_on_gpu(cfg) else _fastest_on_cpu)(cfg, data_of, most)
    log.info(
        "batch     data.batch_size=auto chose %d, %s; optim.lr=%g may need to change with it: see lr_find=true",
        facts["chosen"],
        facts["reason"],
        cfg.optim.lr,
    )
    return _with_size(cfg, facts["chosen"]), facts


def _is_on_gpu(cfg: DictConfig) -> bool:
    return torch.cuda.is_available() and str(cfg.trainer.accelerator) in ("auto", "gpu", "cuda")


def _largest_on_gpu(cfg: DictConfig, data_of: Callable[[int], ImageDataModule], most: int) -> dict[str, Any]:
    def attempt(size: int) -> None:
        try:
            run_probe(_with_size(cfg, size), data_of(size), Callback(), steps=PROBE_STEPS)
        finally:
            gc.collect()
            torch.cuda.empty_cache()

    size = largest_fitting(attempt, smallest=SMALLEST, most=most)
    reason = "the most that fit on the GPU" if 2 * size <= most else f"which leaves {STEPS_PER_EPOCH} steps an epoch"
    return {"chosen": size, "reason": reason}


def _fastest_on_cpu(cfg: DictConfig, data_of: Callable[[int], ImageDataModule], most: int) -> dict[str, Any]:
    def measure(size: int) -> float:
        speed = Throughput()
        run_probe(_with_size(cfg, size), data_of(size), speed, steps=10**6, fast=True)
        return speed.images_per_s

    sizes = [2**i for i in range(4, 10) if SMALLEST <= 2**i <= min(most, LARGEST_CPU)]
    speeds = fastest(measure, sizes, clock=time.perf_counter)
    size = next(size for size, speed in speeds.items() if speed >= SLOWER * max(speeds.values()))
    shown = ", ".join(f"{each}: {speed:,.0f}" for each, speed in speeds.items())
    return {
        "chosen": size,
        "reason": f"the smallest within {1 - SLOWER:.0%} of the highest speed (images per second of {shown})",
        "images_per_s": {str(each): round(speed, 1) for each, speed in speeds.items()},
    }


class Throughput(Callback):
    """Measures images per second for MEASURED_S, from the end of the first step or call on, and ends the training."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []  # seconds, images
        self._earlier = 0  # images of earlier epochs

    @property
    def images_per_s(self) -> float:
        """Images per second of wall time."""
        (begin, first), (end, last) = self._marks[0], self._marks[-1]
        return (last - first) / max(end - begin, 1e-9)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """Count images, and stop at the end of the time."""
        now, seen = time.perf_counter(), self._earlier + int(getattr(pl_module, "images_seen", 0))
        self._marks.append((now, seen))
        trainer.should_stop = len(self._marks) > 1 and now - self._marks[0][0] >= MEASURED_S

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the images of the epoch."""
        self._earlier += int(getattr(pl_module, "images_seen", 0))


def _with_size(cfg: DictConfig, size: int) -> DictConfig:
    changed = cfg.copy()
    changed.data.batch_size = size
    return changed


def _plain(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg, resolve=True)
