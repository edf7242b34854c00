"""The cost of a sweep beyond the training of its jobs: agebench's launcher, Hydra's, and one command per point.

Each method runs the same points (lr x optimizer x seed of the MLP on digits) in its own folder. The cost of a further
job is the wall time that it adds to the command, minus its `timing.fit_s`.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
LINE = ["data=digits", "model=mlp"]
POINTS = {1: "seed=0", 16: "seed=0,1,2,3 optim=adam,sgd optim.lr=1e-3,1e-2"}
WAYS = {
    "agebench, 1 job": [],
    "agebench, 2 jobs": ["launcher.jobs=2"],
    "hydra/launcher=basic": ["hydra/launcher=basic"],
    "hydra/launcher=joblib, 1 job": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"],
    "hydra/launcher=joblib, 2 jobs": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
}


def train(folder: Path, *arguments: str, line: Sequence[str] = LINE) -> float:
    """Run a command; return its wall time in seconds."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "agebench.train", *line, *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return time.perf_counter() - start


def sweep(folder: Path, points: int, arguments: list[str], epochs: int) -> tuple[float, float]:
    """Run a sweep; return its wall time and the total training time of its jobs, in seconds."""
    name = f"{points}"
    wall = train(folder, *arguments, f"trainer.max_epochs={epochs}", f"sweep={name}", "-m", *POINTS[points].split())
    return wall, trained(folder, f"outputs/sweeps/{name}/*/results.json", points)


def separately(folder: Path, points: int, epochs: int) -> tuple[float, float]:
    """Run each point as a separate command; return the same as `sweep`."""
    lines: list[list[str]] = [[]]
    for text in POINTS[points].split():
        key, values = text.split("=")
        lines = [[*line, f"{key}={value}"] for line in lines for value in values.split(",")]
    wall = sum(
        train(folder, *line, f"trainer.max_epochs={epochs}", f"hydra.run.dir=alone/{i}") for i, line in enumerate(lines)
    )
    return wall, trained(folder, "alone/*/results.json", points)


def trained(folder: Path, pattern: str, points: int) -> float:
    results = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob(pattern)]
    if len(results) != points or any(each["status"] != "completed" for each in results):
        raise SystemExit(f"{folder} has {len(results)} of {points} runs, or some did not complete")
    return sum(float(each["timing"]["fit_s"]) for each in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "sweeps.csv")
    parser.add_argument("--ways", nargs="*", default=[*WAYS, "16 commands"], choices=[*WAYS, "16 commands"])
    args = parser.parse_args()
    ways = {k: v for k, v in WAYS.items() if "joblib" not in k or find_spec("hydra_plugins.hydra_joblib_launcher")}
    measured: dict[str, list[tuple[float, float, float]]] = {}
    for repeat in range(args.repeats):
        for way in [way for way in (*ways, "16 commands") if way in args.ways]:
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                if way == "16 commands":
                    first = separately(folder, 1, args.epochs)[0]
                    (folder / "alone").rename(folder / "first")
                    wall, own = separately(folder, 16, args.epochs)
                else:
                    first = sweep(folder, 1, ways[way], args.epochs)[0]
                    wall, own = sweep(folder, 16, ways[way], args.epochs)
            measured.setdefault(way, []).append((first, wall, own))
            print(f"{repeat + 1}/{args.repeats} {way}: {wall:.1f} s, own training {own:.1f} s", flush=True)
    args.out.parent.mkdir(exist_ok=True)
    with args.out.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["way", "1 point, s", "16 points, s", "of which training, s", "a further job beyond it, s"])
        for way, rows in measured.items():
            first, wall, own = (statistics.median(column) for column in zip(*rows, strict=True))
            at_once = 2 if "2 jobs" in way else 1
            beyond = (wall - first) / 15 - own / 16 / at_once
            writer.writerow([way, f"{first:.1f}", f"{wall:.1f}", f"{own:.1f}", f"{beyond:.2f}"])
    print(args.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
