"""Images per second of `agebench.train` against batch size, image size and the size of the data set.

The MLP shows what a step and an image cost beside the network; the small CNN what is left of that beside one. Flat is
what should be flat: images/s over the size of the data set, and pixels/s over the image size where the network is
convolutional.
"""

import argparse
import csv
import io
import json
import statistics
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks.throughput import Screen, compose

from agebench.training.fit import fit

RESULTS = Path(__file__).parent / "results" / "scaling.csv"
# Model, image size, batch size, train images.
BATCHES = [("mlp", 28, batch, 20_000) for batch in (16, 32, 64, 128, 256, 512)]
BATCHES += [("small_cnn", 28, batch, 4_000) for batch in (16, 32, 64, 128)]
SIZES = [("mlp", size, 128, 10_000) for size in (14, 28, 56, 112)]
SIZES += [("small_cnn", size, 32, 60_000 // (size // 14) ** 2 // 10) for size in (14, 28, 56, 112)]
COUNTS = [("mlp", 28, 128, count) for count in (1_000, 10_000, 100_000, 1_000_000)]


def speed(model: str, size: int, batch: int, count: int, cache: Path, run_dir: Path) -> tuple[float, float]:
    """Return images/s and the share of the time in which steps waited for data, of the second epoch."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    rows: list[tuple[Any, ...]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for over, cases in (("batch size", BATCHES), ("image size", SIZES), ("data set", COUNTS)):
            for case in cases:
                runs = [
                    speed(*case, Path(temporary, "cache"), Path(temporary, f"{len(rows)}-{repeat}"))
                    for repeat in range(given.repeats)
                ]
                images, wait = (statistics.median(column) for column in zip(*runs, strict=True))
                rows.append((over, *case, round(images), f"{wait:.4f}"))
                print(*rows[-1], flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("over", "model", "image_size", "batch_size", "images", "img_per_s", "data_wait_share"))
        writer.writerows(rows)


if __name__ == "__main__":
    main()
