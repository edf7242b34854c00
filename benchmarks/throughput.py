"""`agebench.train` compared with a bare loop over images in memory as floats: `make bench`.

Both train the same network with the same optimizer, batch, precision and memory format on the same images. They train
alternate epochs in one process: a callback runs an epoch of the bare loop before each epoch of the training. The result
is the median of the ratios of the epochs after the first, so that a busy machine affects both equally. The speed of
agebench is train_images_per_s of results.json; it includes loading, logging, checkpoints and a progress bar.

The rows of features (clipping, accumulation, EMA, mixup, plateau, on_nan=skip, and on a GPU 16-mixed) compare with a
bare loop that does the same. `--only ema,skip` measures some of the rows: `networks` names those without a feature.
"""

import argparse
import csv
import io
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from agebench.build import build_data, build_module
from agebench.training.callbacks import Speed
from agebench.training.fit import fit

RESULTS = Path(__file__).parent / "results"


class Job(NamedTuple):
    """A network and its data: a few seconds per epoch on two CPU threads."""

    overrides: list[str]
    size: int  # px
    channels: int
    batch: int
    images: int  # train images
    precisions: tuple[str, ...] = ("32-true", "bf16-mixed")


JOBS = {
    "mlp": Job(["model=mlp"], 28, 1, 128, 60_000, ("32-true",)),
    "small_cnn": Job(["model=small_cnn"], 28, 1, 32, 6_000),
    "keras_cnn": Job(["model=keras_cnn"], 28, 1, 128, 6_000),
    "resnet18": Job(["model=resnet18"], 64, 3, 32, 960),
    "convnext_atto": Job(["model=timm", "model.model_name=convnext_atto"], 96, 3, 32, 960),
}
CLIP, ACCUMULATE, DECAY, ALPHA = 1.0, 4, 0.999, 0.2
FEATURES = {
    "clip": [f"trainer.gradient_clip_val={CLIP}"],
    "accumulate": [f"trainer.accumulate_grad_batches={ACCUMULATE}"],
    "ema": [f"ema.decay={DECAY}"],
    "mixup": [f"augment.mixup={ALPHA}"],
    "plateau": ["scheduler=plateau"],
    "skip": ["on_nan=skip"],
    "16-mixed": ["trainer.precision=16-mixed"],
}
FEATURE_MODELS = ("small_cnn", "keras_cnn")  # steps of 11 and 64 ms


class Screen(io.StringIO):
    """A terminal without a screen, so that the progress bar is drawn."""

    def isatty(self) -> bool:
        return True


def compose(*overrides: str) -> Any:
    """Return the config that train composes from these overrides."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from agebench.config import config_folder

    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = hydra_compose("config", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


class Bare(Callback):
    """Trains a network on float images in memory in a bare loop, one epoch before each epoch of the run.

    Args:
        model: Network.
        images: float32, shape (N, C, S, S), on the device that trains.
        target: Label indices, shape (N,), on the same device.
        batch: Images per step.
        dtype: Type of autocast, or None.
        feature: A key of FEATURES that the loop has too, or empty.
    """

    def __init__(
        self,
        model: nn.Module,
        images: torch.Tensor,
        target: torch.Tensor,
        *,
        batch: int,
        dtype: torch.dtype | None,
        feature: str = "",
    ) -> None:
        self.model = model.to(images.device, memory_format=torch.channels_last).train()
        self.images, self.target, self.batch, self.dtype, self.feature = images, target, batch, dtype, feature
        self.accumulate = ACCUMULATE if feature == "accumulate" else 1
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.scaler = torch.amp.GradScaler(images.device.type) if feature == "16-mixed" else None
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer) if feature == "plateau" else None
        self.average = None
        if feature == "ema":
            self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
        self.speeds: list[float] = []  # images/s of each epoch
        self.speed = Speed()
        self.epochs: list[tuple[float, float, int]] = []  # of the run: seconds, seconds of data wait, images

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self.speed = next(each for each in trainer.callbacks if isinstance(each, Speed))  # starts after this
        start = time.perf_counter()
        self._run_epoch()
        _wait(self.images.device)
        self.speeds.append(len(self.images) / (time.perf_counter() - start))

    def _run_epoch(self) -> None:
        batches = torch.randperm(len(self.images), device=self.images.device).split(self.batch)
        loss = torch.zeros(())
        for i, rows in enumerate(batches):
            loss = self._loss(rows) / self.accumulate
            if i % self.accumulate == 0:
                self.optimizer.zero_grad()
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            if (i + 1) % self.accumulate == 0 or i + 1 == len(batches):
                self._update(loss)
        if self.schedule is not None:
            self.schedule.step(loss.item())

    def _loss(self, rows: torch.Tensor) -> torch.Tensor:
        device, images, target = self.images.device, self.images[rows], self.target[rows]
        share, other = 1.0, target
        if self.feature == "mixup":
            share, order = torch.distributions.Beta(ALPHA, ALPHA).sample().item(), torch.randperm(len(rows)).to(device)
            images, other = torch.lerp(images[order], images, share), target[order]
        with torch.autocast(device.type, self.dtype) if self.dtype else nullcontext():
            outputs = self.model(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(outputs.float(), target)
        if self.feature == "mixup":
            loss = share * loss + (1 - share) * F.cross_entropy(outputs.float(), other)
        return loss

    def _update(self, loss: torch.Tensor) -> None:
        if self.feature == "clip":
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        if self.feature == "skip":
            norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
            if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
                return
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def on_train_end(self, *args: Any) -> None:
        self.epochs = list(self.speed._epochs)  # the test restores the callbacks of the best epoch


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_config(job: Job, precision: str, folder: Path, *, epochs: int, device: str) -> Any:
    """Return the config of a training on noise images."""
    images = int(job.images / 0.8)  # train is 80%
    return compose(
        *job.overrides,
        "data.source._target_=benchmarks.noise.Noise",
        f"+data.source={{count:{images},size:{job.size},channels:{job.channels}}}",
        f"data.channels={job.channels}",
        f"data.image_size={job.size}",
        f"data.batch_size={job.batch}",
        f"data.name=noise{images}",
        "data.normalise=half",
        "model.pretrained=false",
        f"paths.cache={folder}",
        f"trainer.max_epochs={epochs}",
        f"trainer.precision={precision}",
        f"trainer.accelerator={device}",
        "report=false",
        "+callbacks.bare._target_=benchmarks.throughput.get_bare",
    )


current_bare: Bare | None = None


def get_bare() -> Bare:
    """Return the callback of the present measurement; the config names this function."""
    if current_bare is None:
        raise RuntimeError("`measure` has not created the bare loop")
    return current_bare


def measure(
    name: str, job: Job, precision: str, folder: Path, *, epochs: int, device: str = "cpu", feature: str = ""
) -> dict[str, Any]:
    """Return a row of the table: medians of both over the epochs after the first."""
    job = job._replace(overrides=[*job.overrides, *FEATURES.get(feature, [])])
    cfg = make_config(job, precision, folder, epochs=epochs, device=device)
    data = build_data(cfg)
    part, place = data.part("train"), torch.device(device if device == "cpu" else "cuda")
    floats = part.store.index_select(0, part.rows).to(place).float() / 127.5 - 1
    bare = Bare(
        build_module(cfg, data).model,
        floats,
        part.target.to(place),
        batch=job.batch,
        dtype={"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision),
        feature=feature,
    )
    import_module("benchmarks.throughput").current_bare = bare  # this module may be __main__
    screen, sys.stderr = sys.stderr, Screen()
    try:
        with redirect_stdout(io.StringIO()):
            fit(cfg, folder / f"{name}-{precision}-{feature}")
    finally:
        sys.stderr = screen
    ours = [images / seconds for seconds, _, images in bare.epochs[1:]]
    waits = [wait / seconds for seconds, wait, _ in bare.epochs[1:]]
    speeds = bare.speeds[1:]
    ratio = statistics.median(a / b for a, b in zip(ours, speeds, strict=True))
    return {
        "model": name,
        "image_size": job.size,
        "batch_size": job.batch,
        "precision": precision,
        "agebench_img_per_s": round(statistics.median(ours)),
        "bare_img_per_s": round(statistics.median(speeds)),
        "share": f"{ratio:.3f}",
        "data_wait_share": f"{statistics.median(waits):.4f}",
    }


def keras(python: str, repeats: int) -> float:
    """Return the images/s of Keras's `fit` of the same CNN, in another interpreter."""
    script = Path(__file__).with_name("keras_fit.py")
    runs = [subprocess.run([python, str(script)], capture_output=True, text=True, check=True) for _ in range(repeats)]
    return statistics.median(float(each.stdout.split()[-1]) for each in runs)


def main() -> None:
    """Measure the chosen rows, and write results/throughput.csv and results/throughput_features.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--models", nargs="*", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--only", help=f"rows, separated by commas: networks, {', '.join(FEATURES)}")
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--keras", help="a Python interpreter with tensorflow and keras, to measure its fit too")
    arguments = parser.parse_args()
    on_gpu = arguments.device == "gpu"
    kinds = (
        arguments.only.split(",")
        if arguments.only
        else ["networks", *(f for f in FEATURES if f != "16-mixed" or on_gpu)]
    )
    if unknown := set(kinds) - {"networks", *FEATURES}:
        parser.error(f"--only: there are no rows {', '.join(sorted(unknown))}")
    if "16-mixed" in kinds and not on_gpu:
        parser.error("16-mixed needs --device gpu")
    with tempfile.TemporaryDirectory() as temporary:
        for kind in kinds:
            rows = []
            for name in arguments.models:
                for precision in _precisions(name, kind):
                    rows.append(
                        measure(
                            name,
                            JOBS[name],
                            precision,
                            Path(temporary),
                            epochs=arguments.epochs,
                            device=arguments.device,
                            feature="" if kind == "networks" else kind,
                        )
                    )
                    print(kind, *rows[-1].values(), flush=True)
            _write(kind, rows)
    if arguments.keras:
        print(f"keras fit: {keras(arguments.keras, 5):,.0f} img/s")
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")


def _precisions(name: str, kind: str) -> tuple[str, ...]:
    """Return the precisions in which rows of a kind measure a model."""
    if kind == "networks":
        return JOBS[name].precisions
    if name not in FEATURE_MODELS:
        return ()
    return ("16-mixed",) if kind == "16-mixed" else ("32-true",)


def _write(kind: str, rows: list[dict[str, Any]]) -> None:
    """Write the rows of a kind. Only those of the same model, precision and feature are replaced."""
    if not rows:
        return
    path = RESULTS / ("throughput.csv" if kind == "networks" else "throughput_features.csv")
    if kind != "networks":
        rows = [{"feature": kind, **row} for row in rows]
    found = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as lines:
            found = list(csv.DictReader(lines))
    new = {_which(row): row for row in rows}
    rows = [new.pop(_which(row), row) for row in found] + list(new.values())
    RESULTS.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _which(row: dict[str, Any]) -> tuple[Any, ...]:
    return row.get("feature"), row["model"], row["precision"]


if __name__ == "__main__":
    main()
