"""CACD-like JPEGs, epoch by epoch: our packed store beside ImageFolder, two workers and PIL transforms.

The same small CNN, batch, optimizer and 64 px from the same files of 250x250 px and 20 KB. Ours starts with an empty
store, so its first epoch has the packing before it.
"""

import argparse
import csv
import json
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from benchmarks.throughput import compose
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from agebench.models.small_cnn import SmallCNN
from agebench.training.fit import fit

RESULTS = Path(__file__).parent / "results"
KINDS, SIDE = 6, 64


def lay_out(folder: Path, count: int) -> None:
    """Write so many JPEGs of about 20 KB, in one folder a decade, nine of ten of them to train."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, size=(32, 16, 16, 3), dtype=np.uint8)
    for i in range(count):
        image = Image.fromarray(coarse[i % 32]).resize((250, 250), Image.Resampling.BICUBIC)
        noisy = np.asarray(image).astype(np.int16) + rng.integers(-12, 13, size=(250, 250, 3), dtype=np.int16)
        part = "val" if i % 20 == 0 else "test" if i % 20 == 1 else "train"
        path = folder / part / f"{i % KINDS + 1}0s" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=85)


def their_way(folder: Path, epochs: int) -> list[float]:
    """Return the seconds of each epoch."""
    change = transforms.Compose(
        [transforms.Resize((SIDE, SIDE)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    )
    loader = DataLoader(
        datasets.ImageFolder(str(folder / "train"), change),
        batch_size=32,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
    )
    network = SmallCNN(SIDE, 3, num_classes=KINDS)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    took = []
    for _ in range(epochs):
        start = time.perf_counter()
        for images, target in loader:
            optimizer.zero_grad()
            criterion(network(images), target).backward()
            optimizer.step()
        took.append(time.perf_counter() - start)
    return took


def our_way(folder: Path, run_dir: Path, epochs: int) -> tuple[float, float]:
    """Return the seconds from an empty store to the end of the first epoch, all included, and those of an epoch."""
    cfg = compose(
        "data=folder",
        f"data.root={folder}",
        "data/split=official",
        "data.channels=3",
        f"data.image_size={SIDE}",
        "data.batch_size=32",
        "model=small_cnn",
        "data.normalise=half",
        f"trainer.max_epochs={epochs}",
        "trainer.accelerator=cpu",
        "report=false",
        f"paths.cache={run_dir / 'cache'}",
    )
    start = time.perf_counter()
    fit(cfg, run_dir)
    whole = time.perf_counter() - start
    results = json.loads((run_dir / "results.json").read_text())
    epoch = results["data"]["train"] / results["timing"]["train_images_per_s"]
    return whole - (epochs - 1) * epoch, epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    epochs = 3
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "images")
        lay_out(folder, given.images)
        for repeat in range(given.repeats):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as notebook:
                theirs = notebook.submit(their_way, folder, epochs).result()  # in a process of its own
            first, epoch = our_way(folder, Path(temporary, str(repeat)), epochs)
            rows.append((theirs[0], statistics.mean(theirs[1:]), first, epoch))
            print(*(f"{each:.1f}" for each in rows[-1]), flush=True)
    median = [statistics.median(column) for column in zip(*rows, strict=True)]
    names = ("imagefolder_first_s", "imagefolder_epoch_s", "agebench_packing_and_first_s", "agebench_epoch_s")
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "jpeg_job.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow((*names, "epoch_ratio", "two_epochs_ratio", "images", "repeats"))
        both = (median[0] + median[1]) / (median[2] + median[3])
        ratios = (f"{median[1] / median[3]:.2f}", f"{both:.2f}")
        writer.writerow((*(f"{each:.2f}" for each in median), *ratios, given.images, given.repeats))
    print((RESULTS / "jpeg_job.csv").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
