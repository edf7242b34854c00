"""`agebench.train` compared with a bare loop over images in memory as floats: `make bench`.

Both train the same network with the same optimizer, batch, precision and memory format on the same images. They train
alternate epochs in one process: a callback runs an epoch of the bare loop before each epoch of the training. The result
is the median of the ratios of the epochs after the first, so that a busy machine affects both equally. The speed of
agebench is train_images_per_s of results.json; it includes loading, logging, checkpoints and a progress bar.
"""

import argparse
import csv
import io
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
        bf16: Whether the network runs under bf16 autocast.
    """

    def __init__(self, model: nn.Module, images: torch.Tensor, target: torch.Tensor, *, batch: int, bf16: bool) -> None:
        self.model = model.to(images.device, memory_format=torch.channels_last).train()
        self.images, self.target, self.batch, self.bf16 = images, target, batch, bf16
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.speeds: list[float] = []  # images/s of each epoch
        self.speed = Speed()
        self.epochs: list[tuple[float, float, int]] = []  # of the run: seconds, seconds of data wait, images

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self.speed = next(each for each in trainer.callbacks if isinstance(each, Speed))  # starts after this
        device = self.images.device
        start = time.perf_counter()
        for rows in torch.randperm(len(self.images), device=device).split(self.batch):
            with torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext():
                outputs = self.model(self.images[rows].contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(outputs.float(), self.target[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        _wait(device)
        self.speeds.append(len(self.images) / (time.perf_counter() - start))

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


def measure(name: str, job: Job, precision: str, folder: Path, *, epochs: int, device: str = "cpu") -> dict[str, Any]:
    """Return a row of the table: medians of both over the epochs after the first."""
    cfg = make_config(job, precision, folder, epochs=epochs, device=device)
    data = build_data(cfg)
    part, place = data.part("train"), torch.device(device if device == "cpu" else "cuda")
    floats = part.store.index_select(0, part.rows).to(place).float() / 127.5 - 1
    bf16 = precision.startswith("bf16")
    bare = Bare(build_module(cfg, data).model, floats, part.target.to(place), batch=job.batch, bf16=bf16)
    import_module("benchmarks.throughput").current_bare = bare  # this module may be __main__
    screen, sys.stderr = sys.stderr, Screen()
    try:
        with redirect_stdout(io.StringIO()):
            fit(cfg, folder / f"{name}-{precision}")
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
    """Measure each model and write results/throughput.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--models", nargs="*", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--keras", help="a Python interpreter with tensorflow and keras, to measure its fit too")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.models:
            for precision in JOBS[name].precisions:
                row = measure(name, JOBS[name], precision, Path(temporary), epochs=arguments.epochs)
                rows.append(row)
                print(*row.values(), flush=True)
    if arguments.keras:
        print(f"keras fit: {keras(arguments.keras, 5):,.0f} img/s")
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "throughput.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
