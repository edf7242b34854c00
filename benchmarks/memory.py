"""Memory of a training: its peak, the part without mapped files, and its growth over epochs.

`python -m benchmarks.memory NAME OVERRIDES...` runs `agebench.train OVERRIDES...` and reads the memory of the process
ten times per second (Linux). Pages of a mapped store are resident while they are in the page cache, and the system can
reclaim them. `own` excludes them.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "memory.csv"
COLUMNS = ("name", "epochs", "peak_mib", "own_peak_mib", "own_after_epoch_5_mib", "own_at_the_end_mib", "command")


def read_memory(pid: int) -> tuple[float, float] | None:
    """Return resident and own memory of a process in MiB, or None after it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    sizes = {key: int(size) / 1024 for key, size in re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB", status, re.M)}
    return (sizes["VmRSS"], sizes["RssAnon"]) if len(sizes) == 2 else None


def epochs_done(run_dir: Path) -> int:
    try:
        return len((run_dir / "metrics.csv").read_text(encoding="utf-8").splitlines()) - 1
    except OSError:
        return 0


def watch(overrides: list[str], run_dir: Path) -> tuple[int, float, float, float, float]:
    """Run a training; return epochs, peak, own peak, own after epoch 5 and own at the end of the last epoch, in MiB."""
    command = [sys.executable, "-m", "agebench.train", *overrides, f"hydra.run.dir={run_dir}", "report=false"]
    after: dict[int, float] = {}
    peak = own_peak = 0.0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        while process.poll() is None:
            if sizes := read_memory(process.pid):
                peak, own_peak = max(peak, sizes[0]), max(own_peak, sizes[1])
                after.setdefault(epochs_done(run_dir), sizes[1])
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(process.returncode)
    return max(after), peak, own_peak, after.get(5, float("nan")), after[max(after)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("overrides", nargs="+")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        epochs, *sizes = watch(args.overrides, Path(temporary, "run"))
    # Absolute paths are specific to this machine.
    overrides = " ".join(each for each in args.overrides if "=/" not in each)
    row = (args.name, epochs, *(f"{size:.0f}" for size in sizes), overrides)
    rows = list(csv.reader(RESULTS.read_text(encoding="utf-8").splitlines()))[1:] if RESULTS.exists() else []
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerows([COLUMNS, *(each for each in rows if each[0] != args.name), row])
    print(*zip(COLUMNS, row, strict=True), sep="\n")


if __name__ == "__main__":
    main()
