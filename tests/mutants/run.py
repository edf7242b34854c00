"""Run the mutants of `mutants.yaml`: small wrong changes of the code, each of which a test must notice.

A mutant is applied to a copy of src in a temporary folder, never to the working tree. Its tests run in a process forked
from this one, which has imported the heavy libraries.

The exit code is 1 if a mutant survives without a reason in `mutants.yaml`, if its old text does not occur exactly once
in its file (it is stale), or if its tests fail without it.
"""

import argparse
import contextlib
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutants.yaml")
HEAVY = (
    "h5py", "hydra.main", "lightning", "matplotlib.figure", "matplotlib.pyplot", "pytest", "scipy.io",
    "sklearn.manifold", "sklearn.model_selection", "timm", "torch", "torchmetrics", "torchvision",
)  # fmt: skip
FAILED, COLLECTION_FAILED = 1, 2  # exit codes of pytest when a test fails, and when a file cannot be imported
OUTPUT_LINES = 15  # shown of tests that fail without a mutant


@dataclass(frozen=True)
class Mutant:
    """A change of one file. Without `old`, nothing is changed, and the tests must pass.

    Args:
        file: Path below src.
        old: Text that occurs exactly once in the file.
        new: Its replacement.
        tests: Files below tests, one of which must fail.
        survives: Why no test can fail; empty if one must.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str = ""

    @property
    def package(self) -> str:
        """The folder of the file, or the file if it is at the top."""
        path = Path(self.file)
        inside = path.relative_to("agebench") if path.parts[0] == "agebench" else path
        return (inside.parent if len(inside.parts) > 1 else inside.with_suffix("")).as_posix()

    def apply(self, source: Path) -> None:
        """Change the file in a copy of src."""
        if self.old:
            path = source / self.file
            path.write_text(path.read_text(encoding="utf-8").replace(self.old, self.new), encoding="utf-8")

    def count(self) -> int:
        """Return how often the old text occurs in the file."""
        path = REPOSITORY / "src" / self.file
        return path.read_text(encoding="utf-8").count(self.old) if path.is_file() else 0

    def __str__(self) -> str:
        return f"{self.file}\n    - {self.old.strip()}\n    + {self.new.strip()}"


def read_list(path: Path) -> list[Mutant]:
    """Return the mutants of a file. Each file of src has a list of tests and of mutants, which may name other tests.

    A file that needs a module which is not installed has none.
    """
    files: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        Mutant(file, each["old"], each["new"], tuple(each.get("tests", of["tests"])), each.get("survives", ""))
        for file, of in files.items()
        if "needs" not in of or find_spec(of["needs"])
        for each in of["mutants"]
    ]


def run_all(mutants: Sequence[Mutant], *, jobs: int, timeout: float) -> Iterator[tuple[Mutant, int, str]]:
    """Yield each mutant with the exit code of its tests (negative: the signal that ended them) and their output."""
    waiting, running = list(mutants), dict[int, tuple[Mutant, Path, float]]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop(0)
                folder = Path(tempfile.mkdtemp(prefix="mutant-"))
                shutil.copytree(REPOSITORY / "src", folder / "src")  # keeps the times, so compiled files stay valid
                (folder / "conf").symlink_to(REPOSITORY / "conf")
                mutant.apply(folder / "src")
                running[start(mutant, folder)] = mutant, folder, time.monotonic()
            time.sleep(0.05)
            for pid, (mutant, folder, since) in list(running.items()):
                if time.monotonic() - since > timeout:
                    kill(pid)
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    kill(pid)  # what the tests left behind
                    del running[pid]
                    output = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")
                    shutil.rmtree(folder)
                    yield mutant, os.waitstatus_to_exitcode(status), output
    finally:
        for pid, (_, folder, _) in running.items():
            kill(pid)
            shutil.rmtree(folder, ignore_errors=True)


def start(mutant: Mutant, folder: Path) -> int:
    """Fork a process that runs the tests of a mutant, and return its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()  # so that the processes that tests start end with it
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ["PYTHONPATH"] = str(folder / "src")
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        sys.path.insert(0, str(folder / "src"))
        os.chdir(REPOSITORY)
        import pytest

        files = [str(REPOSITORY / "tests" / name) for name in mutant.tests]
        code = int(pytest.main([*files, "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--tb=short"]))
        sys.stdout.flush()
        os._exit(code)
    finally:
        os._exit(3)  # pytest's code of an internal error


def kill(pid: int) -> None:
    """End the process group of a test run."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def find_stale(mutants: Sequence[Mutant]) -> list[str]:
    """Return a description of each mutant whose old text does not occur exactly once, or that names a missing test."""
    found = [f"occurs {times} times: {each}" for each in mutants if (times := each.count()) != 1]
    named = {name for each in mutants for name in each.tests}
    missing = sorted(name for name in named if not (REPOSITORY / "tests" / name.partition("::")[0]).is_file())
    return [*found, *(f"no test file tests/{name}" for name in missing)]


def format_table(results: Sequence[tuple[Mutant, bool]]) -> str:
    """Return the table of tried, killed and surviving mutants by package."""
    tried = Counter(mutant.package for mutant, _ in results)
    killed = Counter(mutant.package for mutant, is_killed in results if is_killed)
    lines = [f"{'package':<26} {'tried':>6} {'killed':>7} {'survived':>9}"]
    lines += [
        f"{name:<26} {tried[name]:>6} {killed[name]:>7} {tried[name] - killed[name]:>9}" for name in sorted(tried)
    ]
    total, dead = tried.total(), killed.total()
    lines.append(f"{'all':<26} {total:>6} {dead:>7} {total - dead:>9}   {dead / max(1, total):.3f} killed")
    return "\n".join(lines)


def find_failing(mutants: Sequence[Mutant], *, jobs: int, timeout: float) -> set[str]:
    """Run each test file without a mutant, and return those that fail. They could not tell a mutant from the code."""
    files = sorted({name for mutant in mutants for name in mutant.tests})
    failing = set()
    for each, code, output in run_all([Mutant("", "", "", (name,)) for name in files], jobs=jobs, timeout=timeout):
        if code:
            failing.add(each.tests[0])
            print(f"FAILS WITHOUT A MUTANT (exit code {code}): tests/{each.tests[0]}")
            print("\n".join(output.splitlines()[-OUTPUT_LINES:]), flush=True)
    return failing


def find_killed(mutants: Sequence[Mutant], *, jobs: int, timeout: float) -> list[tuple[Mutant, bool]]:
    """Run the tests of each mutant, and return whether they killed it. Each unexpected result is printed at once."""
    results = []
    for mutant, code, _ in run_all(mutants, jobs=jobs, timeout=timeout):
        killed = code in (FAILED, COLLECTION_FAILED) or code < 0
        results.append((mutant, killed))
        if not killed and not mutant.survives:
            print(f"SURVIVED: {mutant}", flush=True)
        elif killed and mutant.survives:
            print(f"KILLED, so its reason to survive is wrong: {mutant}", flush=True)
        elif code == -signal.SIGKILL:
            print(f"KILLED BY THE TIME LIMIT: {mutant}", flush=True)
    return results


def main() -> None:
    """Run the mutants, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="TEXT", help="run only the mutants of files whose path contains it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at once")
    parser.add_argument("--timeout", type=float, default=300, help="seconds, after which a mutant counts as killed")
    given = parser.parse_args()
    limits = {"jobs": given.jobs, "timeout": given.timeout}
    mutants = [m for m in read_list(LIST) if not given.files or any(text in m.file for text in given.files)]
    stale = find_stale(mutants)
    for text in stale:
        print(f"STALE, {text}")
    mutants = [mutant for mutant in mutants if mutant.count() == 1]

    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // given.jobs))
    for name in HEAVY:
        importlib.import_module(name)
    failing = find_failing(mutants, **limits)
    results = find_killed([mutant for mutant in mutants if not failing & {*mutant.tests}], **limits)
    print(f"\n{format_table(results)}\n")
    for mutant, killed in results:
        if not killed and mutant.survives:
            print(f"survives: {mutant}\n    because {mutant.survives}")
    sys.exit(bool(stale or failing or any(killed == bool(mutant.survives) for mutant, killed in results)))


if __name__ == "__main__":
    main()
