"""Ten fixed runs, reduced to their metrics and hashes of their weights. A refactoring must change neither.

    python -m benchmarks.fixed_runs --output before.json --checkout ../old
    python -m benchmarks.fixed_runs --output after.json
    python -m benchmarks.fixed_runs --compare before.json after.json

Every run uses one CPU thread, because the number of threads changes the last bits. MNIST and hiragana73 are read from
`--data`, a folder with `mnist/` and `hiragana73_sample/`.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
FACES = "data=demo data.target=age data.image_size=32 data.limit=400 model=small_cnn trainer.max_epochs=2"


class Bench:
    """Runs verbs of one checkout in a working folder."""

    def __init__(self, checkout: Path, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self.environment = {
            **os.environ,
            **threads,
            "PYTHONPATH": str(checkout / "src"),
            "AGEBENCH_DATA": str(folder / "data"),
        }

    def start(self, verb: str, line: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", f"agebench.{verb}", *line.split()],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def run(self, verb: str, line: str) -> None:
        process = self.start(verb, line)
        _, output = process.communicate()
        if process.returncode:
            sys.exit(f"{verb} {line}\n{output.decode()[-2000:]}")

    def train(self, name: str, line: str) -> dict[str, Any]:
        self.run("train", f"{line} hydra.run.dir=runs/{name} report=false callbacks.progress=null")
        return self.describe(f"runs/{name}")

    def describe(self, run: str) -> dict[str, Any]:
        folder = self.folder / run
        results = json.loads((folder / "results.json").read_text())
        found = {key: results[key] for key in ("metrics", "intervals", "split_sha", "leak", "protocol")}
        found["best"] = results.get("best")
        for name in ("best", "last"):
            file = folder / "checkpoints" / f"{name}.ckpt"
            if file.exists():
                found[f"{name} weights"] = hash_weights(file)
        table = (folder / "predictions.csv").read_bytes().removeprefix(b"\xef\xbb\xbf")
        found["predictions"] = hashlib.sha256(table).hexdigest()[:16]
        return found


def hash_weights(file: Path) -> str:
    import torch

    digest = hashlib.sha256()
    state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def hash_onnx(file: Path) -> str:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    shape = [5, *session.get_inputs()[0].shape[1:]]
    images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    return hashlib.sha256(session.run(["posterior"], {"images": images})[0].tobytes()).hexdigest()[:16]


def kill_and_resume(bench: Bench, line: str) -> dict[str, Any]:
    """Kill a run after its first epoch and resume it with the same command."""
    line = f"{line} hydra.run.dir=runs/resumed report=false"
    process = bench.start("train", line)
    while not (bench.folder / "runs/resumed/checkpoints/last.ckpt").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    bench.run("train", line)
    return bench.describe("runs/resumed")


def sweep(bench: Bench) -> dict[str, Any]:
    bench.run("train", "data=digits -m optim.lr=1e-3,1e-2 seed=0,1 trainer.max_epochs=2 report=false sweep=four")
    points = sorted((bench.folder / "outputs/sweeps/four").glob("*/results.json"))
    by_choice = {}
    for file in points:
        flat = file.parent.name.rpartition("-")[0]  # without the six digits of the config hash
        by_choice[flat] = bench.describe(str(file.parent.relative_to(bench.folder)))
    return by_choice


def all_runs(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def add(name: str, description: dict[str, Any]) -> None:
        found[name] = description
        print(name, "done", flush=True)

    add("digits mlp", bench.train("digits", "data=digits model=mlp trainer.max_epochs=3"))
    mnist = f"data=mnist data.root={bench.data}/mnist model=keras_cnn trainer.max_epochs=1"
    add("mnist keras_cnn", bench.train("mnist", mnist))
    add("faces coral", bench.train("coral", f"{FACES} head=coral"))
    hiragana = f"data=hiragana73 data.root={bench.data}/hiragana73_sample model=small_cnn trainer.max_epochs=1"
    add("hiragana small_cnn", bench.train("hiragana", f"{hiragana} augment=hiragana"))
    add("sweep of four", sweep(bench))
    add("resumed", kill_and_resume(bench, f"{FACES} head=dldl scheduler=cosine trainer.max_epochs=4"))
    ddp = "data=digits trainer.max_epochs=2 trainer.devices=2 trainer.strategy=ddp trainer.accelerator=cpu"
    add("ddp", bench.train("ddp", ddp))
    bench.run("prepare", "data=digits export=tree")
    own = "data=folder data.root=tree data/split=official data.channels=1 allow_leak=true"
    bench.run("evaluate", f"run=runs/digits {own} hydra.run.dir=runs/other")
    add("evaluate other data", bench.describe("runs/other"))
    add("k-fold", bench.train("fold", f"{FACES} head=softmax data.target=decade data/split=kfold data.split.fold=1"))
    bench.run("export", "run=runs/coral output=model.onnx")
    add("onnx", {"posterior": hash_onnx(bench.folder / "model.onnx")})
    return found


def compare(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print a Markdown table of the runs; return how many differ."""
    print("| run | compared | identical |\n|---|---|---|")
    different = 0
    for name in before:
        one, other = flatten(before[name]), flatten(after.get(name, {}))
        differing = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
        different += bool(differing)
        print(f"| {name} | {len(one)} values | {'yes' if not differing else 'no: ' + ', '.join(differing[:4])} |")
    return different


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {key: value for name, each in tree.items() for key, value in flatten(each, f"{prefix}/{name}").items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--checkout", type=Path, default=REPOSITORY)
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--compare", type=Path, nargs=2)
    args = parser.parse_args()
    if args.compare:
        sys.exit(compare(*(json.loads(file.read_text()) for file in args.compare)) > 0)
    with tempfile.TemporaryDirectory() as folder:
        found = all_runs(Bench(args.checkout.resolve(), args.data.resolve(), Path(folder)))
    if args.output:
        args.output.write_text(json.dumps(found, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
