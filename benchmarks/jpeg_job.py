"""CACD-like JPEGs: the packed store compared with ImageFolder, two workers and PIL transforms.

Both train the same small CNN with the same batch and optimizer at 64 px, from the same files of 250x250 px and 20 KB.
agebench starts with an empty store, so its first epoch includes the packing.
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
CLASSES, SIDE = 6, 64


def write_files(folder: Path, count: int) -> None:
    """Write `count` JPEGs of about 20 KB in one folder per decade, nine of ten of them in train."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, size=(32, 16, 16, 3), dtype=np.uint8)
    for i in range(count):
        image = Image.fromarray(coarse[i % 32]).resize((250, 250), Image.Resampling.BICUBIC)
        noisy = np.asarray(image).astype(np.int16) + rng.integers(-12, 13, size=(250, 250, 3), dtype=np.int16)
        part = "val" if i % 20 == 0 else "test" if i % 20 == 1 else "train"
        path = folder / part / f"{i % CLASSES + 1}0s" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=85)


def train_imagefolder(folder: Path, epochs: int) -> list[float]:
    """Return the seconds of each epoch."""
    transform = transforms.Compose(
        [transforms.Resize((SIDE, SIDE)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    )
    loader = DataLoader(
        datasets.ImageFolder(str(folder / "train"), transform),
        batch_size=32,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
    )
    network = SmallCNN(SIDE, 3, num_classes=CLASSES)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        for images, target in loader:
            optimizer.zero_grad()
            criterion(network(images), target).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def train_agebench(folder: Path, run_dir: Path, epochs: int) -> tuple[float, float]:
    """Return the seconds from an empty store to the end of the first epoch, and those of a further epoch."""
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
    total = time.perf_counter() - start
    results = json.loads((run_dir / "results.json").read_text())
    epoch = results["data"]["train"] / results["timing"]["train_images_per_s"]
    return total - (epochs - 1) * epoch, epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    epochs = 3
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "images")
        write_files(folder, args.images)
        for repeat in range(args.repeats):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                imagefolder = process.submit(train_imagefolder, folder, epochs).result()  # in its own process
            first, epoch = train_agebench(folder, Path(temporary, str(repeat)), epochs)
            rows.append((imagefolder[0], statistics.mean(imagefolder[1:]), first, epoch))
            print(*(f"{each:.1f}" for each in rows[-1]), flush=True)
    median = [statistics.median(column) for column in zip(*rows, strict=True)]
    names = ("imagefolder_first_s", "imagefolder_epoch_s", "agebench_packing_and_first_s", "agebench_epoch_s")
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "jpeg_job.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow((*names, "epoch_ratio", "two_epochs_ratio", "images", "repeats"))
        both = (median[0] + median[1]) / (median[2] + median[3])
        ratios = (f"{median[1] / median[3]:.2f}", f"{both:.2f}")
        writer.writerow((*(f"{each:.2f}" for each in median), *ratios, args.images, args.repeats))
    print((RESULTS / "jpeg_job.csv").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
