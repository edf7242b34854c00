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
IMPORT = "import torch, lightning.pytorch"
LINES = {
    "agebench --help": ["-m", "agebench", "--help"],
    "train --help": [*TRAIN, "--help"],
    "a mistyped key": [*TRAIN, "optim.lrr=1"],
    IMPORT: ["-c", IMPORT],
    "first step of data=digits model=mlp": [*TRAIN, "data=digits", "model=mlp", "model._target_=net.Net"],
    "predict of one image": ["-m", "agebench.predict", "run=run", "images=digit.png", "output={i}.csv"],
    "compare of one run": ["-m", "agebench.compare", "run"],
    "prepare data=digits, packed before": ["-m", "agebench.prepare", "data=digits"],
    "audit data=digits": ["-m", "agebench.audit", "data=digits"],
}
CACD = "audit data=cacd, 163,446 images"  # needs the real metadata
OWN = ["data=digits", "trainer.max_epochs=1", "report=false", "hydra.run.dir=run"]  # the run that others use


def run(line: list[str], folder: Path) -> float:
    """Run a command; return the seconds that it took."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    start = time.perf_counter()
    subprocess.run([sys.executable, *line], cwd=folder, capture_output=True, env=environment)
    return time.perf_counter() - start


def make_inputs(folder: Path) -> None:
    """Write the network, the image and the run that the commands use."""
    from agebench.data.sources.digits import Digits

    (folder / "net.py").write_text(NET, encoding="utf-8")
    Digits().open(0).save(folder / "digit.png")
    run([*TRAIN, *OWN], folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cacd", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "cacd")
    given = parser.parse_args()
    lines = dict(LINES)
    if given.cacd.is_dir():
        lines[CACD] = ["-m", "agebench.audit", "data=cacd", f"data.root={given.cacd.resolve()}"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_inputs(folder)
        measured: dict[str, list[float]] = {name: [] for name in lines}
        for i in range(given.repeats):
            for name, line in lines.items():
                measured[name].append(run([part.format(i=i) for part in line], folder))
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "start.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("what", "median_s", "repeats"))
        for name, each in measured.items():
            writer.writerow((name, f"{statistics.median(each):.2f}", given.repeats))
            print(f"{name}: {statistics.median(each):.2f} s")


if __name__ == "__main__":
    main()
