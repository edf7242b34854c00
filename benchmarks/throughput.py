"""How near `agebench.train` comes to a bare loop over images that already lie in memory as floats: `make bench`.

Both train the same network with the same optimizer, batch, precision and memory format on the same images, in turns, in
one process. The figure is the median of the ratios, so that a busy machine disturbs both alike. Ours is what
results.json calls train_images_per_s: loading, logging, checkpoints' share and a progress bar included.
"""

import argparse
import csv
import io
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from agebench.build import build_data, build_module
from agebench.fit import fit

RESULTS = Path(__file__).parent / "results"
# Name, overrides, side, channels, batch, train images an epoch at 2 CPU threads (some seconds), precisions.
JOBS: dict[str, tuple[list[str], int, int, int, int, tuple[str, ...]]] = {
    "mlp": (["model=mlp"], 28, 1, 128, 60_000, ("32-true",)),
    "small_cnn": (["model=small_cnn"], 28, 1, 32, 6_000, ("32-true", "bf16-mixed")),
    "keras_cnn": (["model=keras_cnn"], 28, 1, 128, 6_000, ("32-true", "bf16-mixed")),
    "resnet18": (["model=resnet18"], 64, 3, 32, 640, ("32-true", "bf16-mixed")),
    "convnext_atto": (
        ["model=timm", "model.model_name=convnext_atto"],
        96,
        3,
        32,
        640,
        ("32-true", "bf16-mixed"),
    ),
}


class Screen(io.StringIO):
    """A terminal that nobody looks at: the progress bar is drawn."""

    def isatty(self) -> bool:
        return True


def compose(*overrides: str) -> Any:
    """Return the config of a command line, as train would compose it."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    from agebench.cli import config_folder

    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        cfg = hydra_compose("config", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def bare_loop(
    model: nn.Module, images: torch.Tensor, target: torch.Tensor, *, batch: int, epochs: int, bf16: bool
) -> float:
    """Train on images that are floats in memory already; return images/s of the epochs after the first."""
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    start = 0.0
    for epoch in range(epochs):
        if epoch == 1:
            start = time.perf_counter()
        for rows in torch.randperm(len(images)).split(batch):
            with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
                outputs = model(images[rows].contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(outputs.float(), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (epochs - 1) * len(images) / (time.perf_counter() - start)


def measure(name: str, precision: str, folder: Path, *, repeats: int, epochs: int) -> dict[str, Any]:
    overrides, size, channels, batch, count, _ = JOBS[name]
    images = int(count / 0.8)  # train is 80%
    cfg = compose(
        *overrides,
        "data.source._target_=benchmarks.noise.Noise",
        f"+data.source={{count:{images},size:{size},channels:{channels}}}",
        f"data.channels={channels}",
        f"data.image_size={size}",
        f"data.batch_size={batch}",
        f"data.name=noise{images}",
        "data.normalise=half",
        "model.pretrained=false",
        f"paths.cache={folder}",
        f"trainer.max_epochs={epochs}",
        f"trainer.precision={precision}",
        "trainer.accelerator=cpu",
        "report=false",
    )
    data = build_data(cfg)
    data.setup()
    part = data.part("train")
    floats, target = part.store[part.rows].float() / 127.5 - 1, part.target
    ours, bare, waits = [], [], []
    for repeat in range(repeats):
        network = build_module(cfg, data).model
        bare.append(bare_loop(network, floats, target, batch=batch, epochs=epochs, bf16=precision.startswith("bf16")))
        run_dir = folder / f"{name}-{precision}-{repeat}"
        screen, sys.stderr = sys.stderr, Screen()
        try:
            with redirect_stdout(io.StringIO()):
                fit(cfg, run_dir)
        finally:
            sys.stderr = screen
        timing = json.loads((run_dir / "results.json").read_text())["timing"]
        ours.append(timing["train_images_per_s"])
        waits.append(timing["data_wait_share"])
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    return {
        "model": name,
        "image_size": size,
        "batch_size": batch,
        "precision": precision,
        "agebench_img_per_s": round(statistics.median(ours)),
        "bare_img_per_s": round(statistics.median(bare)),
        "share": f"{ratio:.3f}",
        "data_wait_share": f"{statistics.median(waits):.4f}",
    }


def keras(python: str, repeats: int) -> float:
    """Return the images/s of Keras' own fit of the same CNN, in an interpreter that has it."""
    script = Path(__file__).with_name("keras_fit.py")
    told = [subprocess.run([python, str(script)], capture_output=True, text=True, check=True) for _ in range(repeats)]
    return statistics.median(float(each.stdout.split()[-1]) for each in told)


def main() -> None:
    """Measure each model a number of times and write results/throughput.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--models", nargs="*", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--keras", help="a Python with tensorflow and keras, to measure its fit beside ours")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.models:
            for precision in JOBS[name][-1]:
                row = measure(name, precision, Path(temporary), repeats=arguments.repeats, epochs=arguments.epochs)
                rows.append(row)
                print(*row.values(), flush=True)
    if arguments.keras:
        print(f"keras fit: {keras(arguments.keras, arguments.repeats):,.0f} img/s")
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "throughput.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
