"""The hiragana notebook's job: one epoch of 10,000 PNG files with a random affine map.

The notebook's loop is written from its description: a Dataset that opens one file per image, RandomAffine of
torchvision, a DataLoader with batches of 32, Adam, fp32. The other side is `agebench.train` on the same files, packed
by an earlier run, with the CNN in bf16 and fp32. The files are copies of real images (365 for training, 365 for the
test), so the accuracies are meaningful.
"""

import argparse
import csv
import json
import multiprocessing
import random
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from benchmarks.throughput import compose
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from agebench.models.mlp import MLP
from agebench.models.small_cnn import SmallCNN
from agebench.training.fit import fit

RESULTS = Path(__file__).parent / "results"
TRAIN = 10_000


def write_files(source: Path, folder: Path) -> Path:
    """Copy half of the images of each class to 10,000 train files, the other half to test files; return the table."""
    rows = []
    classes = sorted(path for path in source.iterdir() if path.is_dir())
    files = {each.name: sorted(each.glob("*.png")) for each in classes}
    train = [(label, file) for label, each in files.items() for file in each[::2]]
    test = [(label, file) for label, each in files.items() for file in each[1::2]]
    for part, chosen in (("train", [train[i % len(train)] for i in range(TRAIN)]), ("test", test)):
        for i, (label, file) in enumerate(chosen):
            path = folder / part / f"{i:05d}.png"
            path.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, path)
            rows.append((path.relative_to(folder), label, part))
    # The notebook has no val part, and the split needs one: ten of the test images.
    rows += [(path, label, "val") for path, label, _ in _copies(rows[-10:], folder)]
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(("path", "label", "split"))
        writer.writerows(rows)
    return folder / "images.csv"


def _copies(rows: list, folder: Path) -> list:
    copied = []
    for path, label, part in rows:
        other = folder / "val" / path.name
        other.parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / path, other)
        copied.append((other.relative_to(folder), label, part))
    return copied


class Files(Dataset):
    """One file per image, opened and transformed on each access."""

    def __init__(self, table: Path, part: str) -> None:
        with table.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        labels = sorted({row["label"] for row in rows})
        self.files = [(table.parent / r["path"], labels.index(r["label"])) for r in rows if r["split"] == part]
        self.transform = transforms.Compose(
            [transforms.RandomAffine(degrees=(-90, 90), scale=(0.8, 1.1)), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int):
        path, target = self.files[i]
        with Image.open(path) as image:
            return self.transform(image.convert("L")), target


def train_notebook(make: type[nn.Module], table: Path, seed: int) -> tuple[float, float]:
    """Return images/s of one epoch, and the accuracy on the transformed test files."""
    torch.manual_seed(seed)
    random.seed(seed)
    train, test = Files(table, "train"), Files(table, "test")
    network = make(48, 1, num_classes=73)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    start = time.perf_counter()
    for images, target in DataLoader(train, batch_size=32, shuffle=True):
        optimizer.zero_grad()
        criterion(network(images), target).backward()
        optimizer.step()
    speed = len(train) / (time.perf_counter() - start)
    network.eval()
    with torch.no_grad():
        correct = sum(int((network(x).argmax(1) == y).sum()) for x, y in DataLoader(test, batch_size=32))
    return speed, correct / len(test)


def train_agebench(model: str, precision: str, table: Path, folder: Path, seed: int) -> tuple[float, float]:
    cfg = compose(
        "data=table",
        "data/split=column",
        f"data.root={table}",
        "data.channels=1",
        "data.image_size=48",
        "data.batch_size=32",
        f"model={model}",
        "augment=hiragana",
        "augment.at_test=true",
        f"trainer.precision={precision}",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=1",
        "report=false",
        f"seed={seed}",
        f"paths.cache={folder / 'cache'}",
    )
    run_dir = folder / f"{model}-{precision}-{seed}"
    fit(cfg, run_dir)
    results = json.loads((run_dir / "results.json").read_text())
    return results["timing"]["train_images_per_s"], results["metrics"]["test/accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="a folder of hiragana73 with one folder per class")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    jobs = (("mlp", MLP, "32-true"), ("small_cnn", SmallCNN, "32-true"), ("small_cnn", SmallCNN, "bf16-mixed"))
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        table = write_files(args.source, folder)
        train_agebench("mlp", "32-true", table, folder, 99)  # packs the pixels
        for model, make, precision in jobs:
            notebook_runs, agebench_runs = [], []
            for seed in range(args.repeats):
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                    # In its own process, because train changes the allocator of this one.
                    notebook_runs.append(process.submit(train_notebook, make, table, seed).result())
                agebench_runs.append(train_agebench(model, precision, table, folder, seed))
            speeds = [[speed for speed, _ in each] for each in (agebench_runs, notebook_runs)]
            ratio = statistics.median(a / b for a, b in zip(*speeds, strict=True))
            accuracy = [statistics.mean(score for _, score in each) for each in (agebench_runs, notebook_runs)]
            rows.append(
                {
                    "model": model,
                    "precision": precision,
                    "agebench_img_per_s": round(statistics.median(speeds[0])),
                    "notebook_img_per_s": round(statistics.median(speeds[1])),
                    "ratio": f"{ratio:.2f}",
                    "agebench_accuracy": f"{accuracy[0]:.3f}",
                    "notebook_accuracy": f"{accuracy[1]:.3f}",
                    "repeats": args.repeats,
                }
            )
            print(*rows[-1].values(), flush=True)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "hiragana_job.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
