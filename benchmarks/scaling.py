"""Scaling of `agebench.train` (batch size, image size, size of the data set) and of `agebench.audit` (rows of a table).

The MLP shows the cost of a step and an image without the network, the small CNN the cost next to a network. Images/s
should not depend on the size of the data set, nor pixels/s of a convolutional network on the image size. An audit is
measured as a command: wall and CPU seconds, and peak resident memory, including Python's start and all imports.
"""

import argparse
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.throughput import Screen, compose

from agebench.training.fit import fit

RESULTS = Path(__file__).parent / "results" / "scaling.csv"
# Model, image size, batch size, train images.
BATCHES = [("mlp", 28, batch, 20_000) for batch in (16, 32, 64, 128, 256, 512)]
BATCHES += [("small_cnn", 28, batch, 4_000) for batch in (16, 32, 64, 128)]
SIZES = [("mlp", size, 128, 10_000) for size in (14, 28, 56, 112)]
SIZES += [("small_cnn", size, 32, 60_000 // (size // 14) ** 2 // 10) for size in (14, 28, 56, 112)]
COUNTS = [("mlp", 28, 128, count) for count in (1_000, 10_000, 100_000, 1_000_000)]
AUDITS = [(split, 1_000_000) for split in ("identity", "random")]
HEADER = ("over", "model", "image_size", "batch_size", "images", "img_per_s", "data_wait_share")
HEADER += ("split", "wall_s", "cpu_s", "peak_mib")


def speed(model: str, size: int, batch: int, count: int, cache: Path, run_dir: Path) -> tuple[float, float]:
    """Return images/s and the share of the time that steps waited for data, of the second epoch."""
    images = int(count / 0.8)
    cfg: Any = compose(
        f"model={model}",
        "data.source._target_=benchmarks.noise.Noise",
        f"+data.source={{count:{images},size:{size},channels:1}}",
        "data.channels=1",
        f"data.image_size={size}",
        f"data.batch_size={batch}",
        f"data.name=noise{images}",
        "data.normalise=half",
        f"paths.cache={cache}",
        "trainer.max_epochs=2",
        "trainer.accelerator=cpu",
        "trainer.limit_val_batches=1",
        "report=false",
    )
    screen, sys.stderr = sys.stderr, Screen()
    try:
        with redirect_stdout(io.StringIO()):
            fit(cfg, run_dir)
    finally:
        sys.stderr = screen
    timing = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))["timing"]
    return timing["train_images_per_s"], timing["data_wait_share"]


def write_table(path: Path, rows: int) -> None:
    """Write a table of rows / 50 people with about 50 images each, whose ages span at most 40 years."""
    rng = np.random.default_rng(0)
    people = rng.integers(0, rows // 50, rows)
    ages = np.clip(rng.integers(10, 70, rows // 50)[people] + rng.integers(-10, 30, rows), 0, 100)
    lines = (
        f"img/{i // 1000:03d}/{i:06d}.jpg,{age},p{person:05d}\n"
        for i, (age, person) in enumerate(zip(ages, people, strict=True))
    )
    path.write_text("path,label,identity\n" + "".join(lines), encoding="utf-8")


def audit(split: str, table: Path) -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds and peak resident memory in MiB of the audit of a table."""
    command = [sys.executable, "-m", "agebench.audit", "data=table", f"data.root={table}", f"data/split={split}"]
    command += ["data.source.label=age", "data.target=age", "listed=true", f"paths.output={table.parent}"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def measure_training(repeats: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for over, cases in (("batch size", BATCHES), ("image size", SIZES), ("data set", COUNTS)):
            for case in cases:
                runs = [
                    speed(*case, Path(temporary, "cache"), Path(temporary, f"{len(rows)}-{repeat}"))
                    for repeat in range(repeats)
                ]
                images, wait = (statistics.median(column) for column in zip(*runs, strict=True))
                rows.append(dict(zip(HEADER, (over, *case, round(images), f"{wait:.4f}"), strict=False)))
                print(*rows[-1].values(), flush=True)
    return rows


def measure_audits(repeats: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for split, count in AUDITS:
            write_table(Path(temporary, "table.csv"), count)
            runs = [audit(split, Path(temporary, "table.csv")) for _ in range(repeats)]
            wall, cpu, peak = (statistics.median(column) for column in zip(*runs, strict=True))
            figures = {"wall_s": f"{wall:.1f}", "cpu_s": f"{cpu:.1f}", "peak_mib": round(peak)}
            rows.append({"over": "audit", "images": count, "split": split, **figures})
            print(*rows[-1].values(), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("train", "audit"), help="keep the other rows of the results")
    args = parser.parse_args()
    kept: list[dict[str, Any]] = []
    if args.only:
        with RESULTS.open(newline="", encoding="utf-8") as lines:
            kept = [row for row in csv.DictReader(lines) if (row["over"] == "audit") != (args.only == "audit")]
    trained = [] if args.only == "audit" else measure_training(args.repeats)
    audited = [] if args.only == "train" else measure_audits(args.repeats)
    rows = [*trained, *kept, *audited]
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, HEADER, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
