"""The slides' CNN on MNIST's 60,000 images in batches of 128: Keras's `fit`, and `experiment=keras_cnn_mnist`.

Both train the same number of epochs, alternately for each seed, each in its own process. Measured are images/s of the
epochs after the first, and the accuracy on the 10,000 test images after the last.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PRECISIONS = ("32-true", "bf16-mixed")


def train_keras(python: str, data: Path, epochs: int, seed: int) -> tuple[float, float]:
    """Return images/s and the test accuracy of Keras."""
    script = Path(__file__).with_name("keras_fit.py")
    command = [python, str(script), "--mnist", str(data / "mnist"), "--epochs", str(epochs), "--seed", str(seed)]
    accuracy, speed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
    return float(speed), float(accuracy)


def train_agebench(precision: str, data: Path, epochs: int, seed: int) -> tuple[float, float]:
    """Return images/s and the test accuracy of agebench."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            "experiment=keras_cnn_mnist",
            f"paths.data={data.resolve()}",
            f"trainer.max_epochs={epochs}",
            f"trainer.precision={precision}",
            "trainer.accelerator=cpu",
            f"seed={seed}",
            "report=false",
            f"paths.cache={folder}/cache",
            f"hydra.run.dir={folder}/run",
        ]
        subprocess.run([sys.executable, "-m", "agebench.train", *overrides], stdout=subprocess.DEVNULL, check=True)
        results = json.loads(Path(folder, "run", "results.json").read_text(encoding="utf-8"))
    return results["timing"]["train_images_per_s"], results["metrics"]["test/accuracy"]


def main() -> None:
    """Measure both and write results/keras_job.csv."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("keras", help="a Python interpreter with tensorflow and keras")
    parser.add_argument("--data", type=Path, default=Path("data"), help="a folder with mnist/")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    ways = {way: [] for way in ("keras", *PRECISIONS)}
    for seed in range(args.seeds):
        ways["keras"].append(train_keras(args.keras, args.data, args.epochs, seed))
        for precision in PRECISIONS:
            ways[precision].append(train_agebench(precision, args.data, args.epochs, seed))
        print(seed, *(found[-1] for found in ways.values()), flush=True)
    with (RESULTS / "keras_job.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("way", "epochs", "seeds", "img_per_s", "ratio", "test_accuracy", "std"))
        for way, found in ways.items():
            speeds, accuracies = zip(*found, strict=True)
            ratio = statistics.median(a / b for a, (b, _) in zip(speeds, ways["keras"], strict=True))
            mean, std = statistics.mean(accuracies), statistics.stdev(accuracies) if len(found) > 1 else 0.0
            numbers = (f"{statistics.median(speeds):.0f}", f"{ratio:.2f}", f"{mean:.4f}", f"{std:.4f}")
            writer.writerow((way, args.epochs, args.seeds, *numbers))


if __name__ == "__main__":
    main()
