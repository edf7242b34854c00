"""Seconds until the help, an error and the first training step, compared with importing torch and Lightning."""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
# A network that ends the process in its first training step.
NET = """
import os
from agebench.models.mlp import MLP

class Net(MLP):
    def forward(self, images):
        if self.training and len(images) == 32:
            os._exit(0)
        return super().forward(images)
"""
TRAIN = ["-m", "agebench.train"]
LINES = {
    "train --help": [*TRAIN, "--help"],
    "a mistyped key": [*TRAIN, "optim.lrr=1"],
    "import torch, lightning": ["-c", "import torch, lightning"],
    "first step of data=digits model=mlp": [*TRAIN, "data=digits", "model=mlp", "model._target_=net.Net"],
}


def seconds(line: list[str], folder: Path) -> float:
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    subprocess.run([sys.executable, *line], cwd=folder, capture_output=True, env=environment)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "net.py").write_text(NET, encoding="utf-8")
        measured = {name: [] for name in LINES}
        for _ in range(args.repeats):
            for name, line in LINES.items():
                measured[name].append(seconds(line, folder))
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "start.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("what", "median_s", "repeats"))
        for name, each in measured.items():
            writer.writerow((name, f"{statistics.median(each):.2f}", args.repeats))
            print(f"{name}: {statistics.median(each):.2f} s")


if __name__ == "__main__":
    main()
