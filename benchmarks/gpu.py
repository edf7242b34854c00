"""Speed on a GPU: `make bench-gpu`.

Measures images/s of four networks and of a bare loop over floats on the GPU, the utilisation (relative to a matrix
product on the same GPU), the wait for data and the memory; then MNIST to 99% (with MNIST in data/) and a sweep of
16 points.
"""

import argparse
import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks import sweeps
from benchmarks.throughput import RESULTS, Job, make_config, measure
from torch.utils.flop_counter import FlopCounterMode

from agebench.build import build_data, build_module

JOBS = {
    "convnext_tiny": Job(["model=timm", "model.model_name=convnext_tiny"], 224, 3, 128, 5_120, ("bf16-mixed",)),
    "resnet50": Job(["model=timm", "model.model_name=resnet50"], 224, 3, 128, 5_120, ("bf16-mixed",)),
    "keras_cnn": Job(["model=keras_cnn"], 28, 1, 128, 60_000, ("32-true", "bf16-mixed")),
    "mlp": Job(["model=mlp"], 28, 1, 128, 60_000, ("32-true",)),
}
TO_99 = ["data=mnist", "model=keras_cnn", "trainer.precision=bf16-mixed", "trainer.max_epochs=30", "report=false"]
TO_99 += ["callbacks.early_stopping.patience=30", "+callbacks.early_stopping.stopping_threshold=0.99"]
SWEEP = ["data=mnist", "model=mlp", "report=false", "trainer.max_epochs=3", "sweep=gpu", "-m"]


def matmul_flops(device: torch.device, size: int, seconds: float = 1.0) -> float:
    """Return the operations/s of a bf16 product of square matrices, the upper bound of the device."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    done, start = 0, 0.0
    for round_ in range(1_000_000):
        if round_ == 3:  # warmed up
            torch.cuda.synchronize() if device.type == "cuda" else None
            done, start = 0, time.perf_counter()
        a @ b
        done += 1
        if round_ >= 3 and round_ % 10 == 0:
            torch.cuda.synchronize() if device.type == "cuda" else None
            if time.perf_counter() - start > seconds:
                break
    return 2 * size**3 * done / (time.perf_counter() - start)


def flops_per_image(job: Job, folder: Path) -> float:
    """Return the operations of a forward and backward pass per image, of convolutions and matrix products."""
    cfg = make_config(job, "32-true", folder, epochs=1, device="cpu")
    data = build_data(cfg)
    network = build_module(cfg, data).model.train()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, job.channels, job.size, job.size)).sum().backward()
    return counter.get_total_flops() / 2


def write(name: str, rows: list[dict[str, Any]]) -> None:
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / name).open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def networks(names: list[str], device: str, *, epochs: int, images: int | None) -> None:
    place = torch.device(device if device == "cpu" else "cuda")
    best = matmul_flops(place, 8192 if place.type == "cuda" else 1024)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in names:
            job = JOBS[name]._replace(**({} if images is None else {"images": images}))
            flops = flops_per_image(job, Path(temporary))
            for precision in job.precisions:
                if place.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                row = measure(name, job, precision, Path(temporary), epochs=epochs, device=device)
                peak = torch.cuda.max_memory_allocated() / 2**20 if place.type == "cuda" else float("nan")
                row["utilisation"] = f"{row['agebench_img_per_s'] * flops / best:.3f}"
                row["memory_mib"] = f"{peak:.0f}"  # of both, including the bare loop's floats
                rows.append(row)
                print(*row.values(), flush=True)
    name = torch.cuda.get_device_name() if place.type == "cuda" else "CPU"
    print(f"{name}: {best / 1e12:.1f} TFLOP/s in a bf16 product; torch {torch.__version__}")
    write(f"{place.type}.csv", rows)


def mnist(device: str) -> None:
    """Train to 99% val accuracy, then run a sweep of 16 points."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, data = Path(temporary), f"paths.data={Path('data').absolute()}"
        where = [data, f"trainer.accelerator={device}"]
        wall = sweeps.train(folder, *TO_99, *where, "hydra.run.dir=run", line=[])
        results = json.loads((folder / "run" / "results.json").read_text(encoding="utf-8"))
        row: dict[str, Any] = {
            "epochs": results["epochs"],
            "test_accuracy": results["metrics"]["test/accuracy"],
            "from_start_s": f"{wall:.1f}",
            "training_s": results["timing"]["fit_s"],
        }
        row["sweep_of_16_s"] = f"{sweeps.train(folder, *SWEEP, *sweeps.POINTS[16].split(), *where, line=[]):.1f}"
        row["of_which_training_s"] = f"{sweeps.trained(folder, 'outputs/sweeps/gpu/*/results.json', 16):.1f}"
    print(row)
    write(f"mnist_{device}.csv", [row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, help="images per epoch, for a quick try")
    parser.add_argument("--device", default="gpu", choices=("gpu", "cpu"))
    parser.add_argument("--no-mnist", action="store_true")
    args = parser.parse_args()
    if args.device == "gpu" and not torch.cuda.is_available():
        sys.exit(
            "make bench-gpu needs a CUDA GPU, and torch finds none; run `python -m benchmarks.throughput` on a CPU"
        )
    networks(args.jobs, args.device, epochs=args.epochs, images=args.images)
    if not args.no_mnist:
        mnist(args.device)


if __name__ == "__main__":
    main()
