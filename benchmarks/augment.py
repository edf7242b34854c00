"""The cost of augmenting a batch compared with its training step, by recipe, network and precision.

A step is forward, loss, backward and fused Adam on a batch in memory. The share is the median over turns; each turn
times both, one after the other.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import timm
import torch
from benchmarks.throughput import compose
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn import functional as F

from agebench.models.small_cnn import SmallCNN
from agebench.training.memory import keep_freed_memory

RESULTS = Path(__file__).parent / "results"
LABELS = 10
BATCH = 32
# Network, image side in px, channels, and the recipes for such images.
JOBS = [
    ("small_cnn", 28, 1, ["digits"]),
    ("small_cnn", 48, 1, ["hiragana"]),
    ("small_cnn", 64, 3, ["cacd", "standard", "randaugment"]),
    ("convnext_atto", 96, 3, ["cacd", "standard", "randaugment"]),
]


def make_network(name: str, size: int, channels: int) -> nn.Module:
    if name == "small_cnn":
        return SmallCNN(size, channels, num_classes=LABELS)
    return timm.create_model(name, in_chans=channels, num_classes=LABELS)


def make_step(network: nn.Module, images: Tensor, *, bf16: bool) -> Callable[[], None]:
    """Return a function that runs one training step."""
    network = network.to(memory_format=torch.channels_last).train()
    images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    target = torch.arange(len(images)) % LABELS

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            outputs = network(images)
        loss = F.cross_entropy(outputs.float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def apply_augment(augment: nn.Module, pixels: Tensor) -> Tensor:
    return augment(pixels.float().div_(255))


def seconds(work: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def main() -> None:
    """Measure all jobs and write results/augment.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    args = parser.parse_args()
    keep_freed_memory()  # as train does
    torch.manual_seed(0)
    rows = []
    for model, size, channels, recipes in JOBS:
        pixels = torch.randint(0, 256, (BATCH, channels, size, size), dtype=torch.uint8)
        images = pixels.float().div_(255)
        for bf16 in (False, True):
            step = make_step(make_network(model, size, channels), images, bf16=bf16)
            seconds(step, 3)
            times = max(1, round(0.2 / seconds(step, 3)))
            for recipe in recipes:
                augment = instantiate(compose(f"augment={recipe}").augment)
                work = partial(apply_augment, augment, pixels)
                seconds(work, 3)
                turns = [(seconds(work, times), seconds(step, times)) for _ in range(args.turns)]
                share = statistics.median(a / b for a, b in turns)
                milliseconds = [f"{1e3 * statistics.median(each):.2f}" for each in zip(*turns, strict=True)]
                rows.append((model, size, channels, recipe, "bf16" if bf16 else "fp32", *milliseconds, f"{share:.3f}"))
                print(*rows[-1], flush=True)
    with (RESULTS / "augment.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("model", "px", "channels", "recipe", "precision", "augment_ms", "step_ms", "share"))
        writer.writerows(rows)


if __name__ == "__main__":
    main()
