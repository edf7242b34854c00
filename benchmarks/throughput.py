"""How near `agebench.train` comes to a bare loop over data that already lies in memory: `make bench`.

Both train the same network with the same optimizer, batch and precision on the same digits, in turns, in one process;
the figure is the median of the ratios, so that a busy machine disturbs both alike.
"""

import argparse
import csv
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from agebench.build import build_data, build_module
from agebench.fit import fit

RESULTS = Path(__file__).parent / "results"


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


def bare_loop(model: nn.Module, images: torch.Tensor, target: torch.Tensor, *, batch: int, epochs: int) -> float:
    """Train on images that are floats in memory already; return images/s of the epochs after the first."""
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    start = 0.0
    for epoch in range(epochs):
        if epoch == 1:
            start = time.perf_counter()
        for rows in torch.randperm(len(images)).split(batch):
            loss = F.cross_entropy(model(images[rows].contiguous(memory_format=torch.channels_last)), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (epochs - 1) * len(images) / (time.perf_counter() - start)


def main() -> None:
    """Measure each model a number of times and write results/throughput.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model, size, batch in (("mlp", 8, 128), ("small_cnn", 28, 32), ("keras_cnn", 28, 128)):
            line = [f"model={model}", f"data.image_size={size}", f"data.batch_size={batch}", f"paths.cache={folder}"]
            cfg = compose(*line, f"trainer.max_epochs={arguments.epochs}", "report=false", "data.normalise=half")
            data = build_data(cfg)
            data.setup()
            part = data.part("train")
            images, target = data.pixels[part.rows].float() / 127.5 - 1, part.target
            ours, bare = [], []
            for repeat in range(arguments.repeats):
                network = build_module(cfg, data).model
                bare.append(bare_loop(network, images, target, batch=batch, epochs=arguments.epochs))
                run_dir = Path(folder, f"{model}-{repeat}")
                fit(cfg, run_dir)
                ours.append(json.loads((run_dir / "results.json").read_text())["timing"]["train_images_per_s"])
            ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
            rows.append((model, size, batch, round(statistics.median(ours)), round(statistics.median(bare)), ratio))
            print(f"{model}: {rows[-1][3]:,} img/s, bare loop {rows[-1][4]:,} img/s, ratio {ratio:.2f}")
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "throughput.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(("model", "image_size", "batch_size", "agebench_img_per_s", "bare_img_per_s", "ratio"))
        writer.writerows((*row[:5], f"{row[5]:.3f}") for row in rows)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
