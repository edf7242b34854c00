"""Run the mutants of `mutants.yaml`: small wrong changes of the code, each of which a test must notice.

A mutant is applied to a copy of src in a temporary folder, never to the working tree. Its tests run in a process forked
from this one, which has imported the heavy libraries.

Each result is appended to `build/mutants.jsonl` at once, and reused while the mutant, its file and its tests stay the
same. An interrupted run therefore resumes, and after a change of a few files only their mutants are run. `--afresh`
runs all of them.

The exit code is 1 if a mutant survives without a reason in `mutants.yaml`, if its old text does not occur exactly once
in its file (it is stale), or if its tests fail without it.
"""

import argparse
import compileall
import contextlib
import gc
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutants.yaml")
STATE = REPOSITORY / "build" / "mutants.jsonl"
HEAVY = (
    "h5py", "hydra.main", "lightning", "matplotlib.figure", "matplotlib.pyplot", "pytest", "scipy.io",
    "sklearn.manifold", "sklearn.model_selection", "timm", "torch", "torchmetrics", "torchvision",
)  # fmt: skip
FAILED, COLLECTION_FAILED = 1, 2  # exit codes of pytest when a test fails, and when a file cannot be imported
OUTPUT_LINES = 15  # shown of tests that fail without a mutant
PROGRESS_EACH = 25  # mutants


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

    def fingerprint(self) -> str:
        """Return a hash of the mutant, its file and its tests; without `old`, of all of src and conf and the tests."""
        changed = [REPOSITORY / "src" / self.file] if self.old else [REPOSITORY / "src", REPOSITORY / "conf"]
        tests = [REPOSITORY / "tests" / name.partition("::")[0] for name in self.tests]
        parts = [self.file, self.old, self.new, *self.tests, *map(sha256, (*changed, *tests))]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.file}\n    - {self.old.strip()}\n    + {self.new.strip()}"


@cache
def sha256(path: Path) -> str:
    """Return the hash of a file, or of the Python and YAML files in a folder."""
    files = sorted(each for each in path.rglob("*") if each.suffix in (".py", ".yaml")) if path.is_dir() else [path]
    found = hashlib.sha256()
    for file in files:
        found.update(f"{file.relative_to(REPOSITORY)}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()


class CITestsLast:
    """A plugin of pytest: the tests that take seconds run last, because most mutants are killed by faster ones."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: item.get_closest_marker("ci") is not None)


class State:
    """The results of earlier runs, one JSON object a line, so that a run that is killed loses at most one.

    Args:
        path: File to read and to append to.
        afresh: Whether to forget what it contains.
    """

    def __init__(self, path: Path, *, afresh: bool) -> None:
        self.path, self.codes = path, dict[str, int]()
        path.parent.mkdir(exist_ok=True)
        lines = [] if afresh or not path.is_file() else path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):  # the last line of a run that was killed
                self.codes |= json.loads(line)
        path.write_text("".join(f"{json.dumps({key: code})}\n" for key, code in self.codes.items()), encoding="utf-8")

    def add(self, mutant: Mutant, code: int) -> None:
        """Keep the exit code of the tests of a mutant, unless the time limit ended them: the machine may be busy."""
        if code == -signal.SIGKILL:
            return
        self.codes[mutant.fingerprint()] = code
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps({mutant.fingerprint(): code})}\n")


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
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ["PYTHONPATH"] = str(folder / "src")
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        sys.path.insert(0, str(folder / "src"))
        os.chdir(REPOSITORY)
        files = [str(REPOSITORY / "tests" / name) for name in mutant.tests]
        options = ("-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--tb=short")
        code = int(pytest.main([*files, *options], [CITestsLast()]))
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


def find_failing(mutants: Sequence[Mutant], state: State, *, jobs: int, timeout: float) -> set[str]:
    """Run each test file without a mutant, and return those that fail. They could not tell a mutant from the code."""
    files = [Mutant("", "", "", (name,)) for name in sorted({name for mutant in mutants for name in mutant.tests})]
    new = [each for each in files if state.codes.get(each.fingerprint()) != 0]
    failing = set()
    for each, code, output in run_all(new, jobs=jobs, timeout=timeout):
        state.add(each, code)
        if code:
            failing.add(each.tests[0])
            print(f"FAILS WITHOUT A MUTANT (exit code {code}): tests/{each.tests[0]}")
            print("\n".join(output.splitlines()[-OUTPUT_LINES:]), flush=True)
    return failing


def find_killed(mutants: Sequence[Mutant], state: State, *, jobs: int, timeout: float) -> Iterator[tuple[Mutant, bool]]:
    """Yield each mutant, and whether its tests killed it. Each unexpected result is printed at once."""
    new = [each for each in mutants if each.fingerprint() not in state.codes]
    earlier = [(each, code) for each in mutants if (code := state.codes.get(each.fingerprint())) is not None]
    print(f"{len(mutants)} mutants, {len(earlier)} of them with a result of an earlier run", flush=True)
    for mutant, code in chain(earlier, run_new(new, state, jobs=jobs, timeout=timeout)):
        killed = code in (FAILED, COLLECTION_FAILED) or code < 0
        if not killed and not mutant.survives:
            print(f"SURVIVED: {mutant}", flush=True)
        elif killed and mutant.survives:
            print(f"KILLED, so its reason to survive is wrong: {mutant}", flush=True)
        elif code == -signal.SIGKILL:
            print(f"KILLED BY THE TIME LIMIT: {mutant}", flush=True)
        yield mutant, killed


def run_new(mutants: Sequence[Mutant], state: State, *, jobs: int, timeout: float) -> Iterator[tuple[Mutant, int]]:
    """Yield each mutant with the exit code of its tests, keep it, and print the progress."""
    since = time.monotonic()
    for i, (mutant, code, _) in enumerate(run_all(mutants, jobs=jobs, timeout=timeout), start=1):
        state.add(mutant, code)
        if i % PROGRESS_EACH == 0:
            print(f"{i} of {len(mutants)} in {(time.monotonic() - since) / 60:.1f} min", flush=True)
        yield mutant, code


def main() -> None:
    """Run the mutants, and print a table, also if the run is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="TEXT", help="run only the mutants of files whose path contains it")
    parser.add_argument("--afresh", action="store_true", help="do not reuse results of earlier runs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at once")
    parser.add_argument("--timeout", type=float, default=300, help="seconds, after which a mutant counts as killed")
    given = parser.parse_args()
    limits = {"jobs": given.jobs, "timeout": given.timeout}
    mutants = [m for m in read_list(LIST) if not given.files or any(text in m.file for text in given.files)]
    stale = find_stale(mutants)
    for text in stale:
        print(f"STALE, {text}")
    mutants = [mutant for mutant in mutants if mutant.count() == 1]

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the table is printed
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for name in HEAVY:
        importlib.import_module(name)
    compileall.compile_dir(REPOSITORY / "src", quiet=1)  # once; the copies contain the compiled files
    gc.freeze()  # a collection in a fork would copy and search the heavy libraries, which takes a second
    state = State(STATE, afresh=given.afresh)
    failing = find_failing(mutants, state, **limits)
    results = []
    try:
        for result in find_killed([each for each in mutants if not failing & {*each.tests}], state, **limits):
            results.append(result)
    finally:
        print(f"\n{format_table(results)}\n", flush=True)
    for mutant, killed in results:
        if not killed and mutant.survives:
            print(f"survives: {mutant}\n    because {mutant.survives}")
    sys.stdout.flush()
    # sys.exit would print what the libraries leak.
    os._exit(bool(stale or failing or any(killed == bool(mutant.survives) for mutant, killed in results)))


if __name__ == "__main__":
    main()
