"""Runs each case in a process forked from one that has imported everything, and judges how it ended."""

import contextlib
import faulthandler
import gc
import importlib
import json
import math
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cases
import materials
import overrides

VERBS = ("train", "evaluate", "predict", "export", "prepare", "audit", "compare", "calibrate", "report", "score")
MEMORY = 6 * 2**30  # address space that a case may add; a case that needs more must end in a sentence, too
FILE_SIZE = 2**29
WARM_UP = (
    *materials.RUNS.values(),
    ["evaluate", "run=digits_run"],
    ["predict", "run=ages_run", "images=images"],
    ["export", "run=digits_run", "format=pt2", "output=x.pt2"],
    ["prepare", "data=mnist", "data.root=mnist", "data.source.download=false"],
    ["audit", "data=folder", "data.root=classes.tar.gz", "data.image_size=8"],
    ["compare", "digits_run"],
    ["calibrate", "run=digits_run"],
    ["report", "run=digits_run"],
    ["score", "predictions=digits_run/predictions.csv", "data=digits", "data.limit=30"],
)


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Args:
        case: Its name.
        ending: `fine`, `sentence` or `wrong`.
        why: What is wrong, or the sentence.
        command: The command line.
        seconds: Wall time.
    """

    case: str
    ending: str
    why: str
    command: str
    seconds: float


def preload(work: Path, *, every_verb: bool) -> None:
    """Write the material, train the runs, and import what a child would have to import.

    Children run each verb once, and this process imports the modules that they report. It runs none itself: a process
    with threads cannot be forked safely.

    Args:
        work: Folder for the material.
        every_verb: Whether to run every verb. Few cases are faster without.
    """
    os.environ |= {"HF_HUB_OFFLINE": "1", "AGEBENCH_DATA": "data", "COLUMNS": "200"}
    for name in ("AGEBENCH_CACHE", "HYDRA_FULL_ERROR", "LOCAL_RANK", "RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    import torch

    torch.set_num_threads(1)
    for verb in VERBS:
        importlib.import_module(_module(verb))
    from agebench.config import config_folder

    base = materials.base = work / "base"
    materials.make(base)
    overrides.compose_keys(config_folder())
    socket.socket.connect = _refuse  # type: ignore[method-assign,assignment]  # no case may use the network
    seen: set[str] = set()
    for number, (verb, *arguments) in enumerate(WARM_UP if every_verb else materials.RUNS.values()):
        name = list(materials.RUNS)[number] if number < len(materials.RUNS) else ""
        more = [f"hydra.run.dir={name}"] if name else []
        pid = _fork(f"warm {verb}", [verb, *arguments, *more], base, limit=300, modules=base / "modules.txt")
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{verb} fails without damage:\n{(base / 'output.txt').read_text()}")
        for module in (base / "modules.txt").read_text().split():
            if module not in seen and not module.startswith(("__main__", "six.moves")):
                with contextlib.suppress(Exception):
                    importlib.import_module(module)
            seen.add(module)
    shutil.rmtree(base / "digits_run/evaluate", ignore_errors=True)
    gc.collect()
    gc.freeze()  # the children would copy each page whose reference counts the collector touches


def _module(verb: str) -> str:
    return f"agebench.{verb}.__main__" if verb == "report" else f"agebench.{verb}"


def _refuse(*_: object) -> None:
    raise OSError(101, "Network is unreachable")


def run(names: Sequence[str], work: Path, *, jobs: int, limit: float) -> Iterator[Outcome]:
    """Run cases, `jobs` at a time, and yield how each ended. The folder of a case that ended wrong is kept."""
    waiting = list(enumerate(names))[::-1]
    running: dict[int, tuple[str, Path, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, case = waiting.pop()
                box = work / f"{number:05d}"
                box.mkdir()
                running[_fork(case, None, box, limit=limit)] = (case, box, time.monotonic())
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid in running:
                case, box, began = running.pop(pid)
                _kill(pid)  # its own children
                outcome = judge(case, box, os.waitstatus_to_exitcode(status), time.monotonic() - began)
                if outcome.ending != "wrong":
                    shutil.rmtree(box, ignore_errors=True)
                yield outcome
            elif not pid:
                for child, (_, _, began) in running.items():
                    if time.monotonic() - began > limit + 5:  # the watchdog of the child does not work
                        _kill(child)
                time.sleep(0.005)
    finally:
        for child in running:
            _kill(child)


def _kill(pid: int) -> None:
    """Kill the process group of a case."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _fork(case: str, command: list[str] | None, box: Path, *, limit: float, modules: Path | None = None) -> int:
    """Start a case in a child process and return its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 97
    try:
        os.setsid()
        os.chdir(box)
        output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
            os.dup2(file, number)
        os.environ["HOME"] = str(box)
        faulthandler.enable()
        faulthandler.dump_traceback_later(limit, exit=True)
        _limit_resources()
        code = _call(command or cases.build(case))
    except BaseException:
        traceback.print_exc()
    finally:
        if modules is not None:
            modules.write_text("\n".join(sorted(sys.modules)))
        _leave(code)
    return 0


def _call(command: list[str]) -> int:
    """Run a command as a shell would, and return its exit code."""
    verb, *arguments = command
    Path("command.txt").write_text(shlex.join(command), errors="surrogateescape")
    sys.argv = [f"agebench-{verb}", *arguments]
    try:
        sys.modules[_module(verb)].main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _leave(code: int) -> None:
    import multiprocessing.util

    try:
        multiprocessing.util._exit_function()  # stops what the command started, as at the end of Python
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _limit_resources() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for kind, value in (
        (resource.RLIMIT_AS, used + MEMORY),
        (resource.RLIMIT_FSIZE, FILE_SIZE),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def judge(case: str, box: Path, code: int, seconds: float) -> Outcome:
    """Return how a case ended, from its exit code, its output and the files that it wrote."""
    text = (box / "output.txt").read_text(encoding="utf-8", errors="replace")
    file = box / "command.txt"
    command = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    ending, why = _judge(text, code, box)
    return Outcome(case, ending, why, command, seconds)


def _judge(text: str, code: int, box: Path) -> tuple[str, str]:
    lines = [each for each in text.splitlines() if each.strip()]
    last = lines[-1] if lines else ""
    if code == 97:
        return "wrong", f"the case could not be built: {last}"
    if "Timeout (" in text or code == -signal.SIGKILL:
        return "wrong", f"hang: {_place(text)}"
    if "Traceback (most recent call last)" in text or "Fatal Python error" in text:
        return "wrong", f"traceback: {_place(text)}"
    if sum("Warning" in each for each in lines) > 20 or len(lines) > 1000:
        return "wrong", f"{len(lines)} lines of output"
    if code == 0:
        return ("wrong", why) if (why := _nonsense(box)) else ("fine", "")
    if code not in (1, 2):
        return "wrong", f"exit code {code}: {last}"
    sentences = [each for each in lines if each.startswith(("agebench ", "python -m agebench.", "agebench-"))]
    if len(sentences) != 1 or not re.match(r"[\w. -]+: ", sentences[0]):
        return "wrong", f"exit code {code} and {len(sentences)} sentences: {last[:300]}"
    if re.search(r": (None|[A-Z]\w+Error)?$", sentences[0]):
        return "wrong", f"a sentence without content: {last}"
    if len(sentences[0]) > 7000:
        return "wrong", f"a sentence of {len(sentences[0])} characters"
    if "\x1b" in text:
        return "wrong", "control characters reach the terminal"
    return "sentence", sentences[0]


def _place(text: str) -> str:
    """Return the last line of a traceback, and the innermost place in agebench."""
    errors = re.findall(r"^[\w.]+(?:Error|Exception|Exit|Interrupt)\b.*", text, re.MULTILINE)
    error = errors[-1] if errors else ""
    found = re.findall(r'File "[^"]*/agebench/([\w/]+\.py)", line (\d+)(?:, in (\w+)| in (\w+))', text)
    where = found[0 if "Timeout (" in text else -1] if found else ("?", "?", "?", "")
    return f"{error[:200]} at {where[0]}:{where[2] or where[3]}:{where[1]}"


def _nonsense(box: Path) -> str:
    """Return what is wrong with the results that a command wrote, or an empty text."""
    began = (box / "command.txt").stat().st_mtime_ns
    written = [path for path in box.rglob("*") if path.is_file() and path.stat().st_mtime_ns > began]
    for path in written:
        if path.name == "results.json":
            results = json.loads(path.read_text(encoding="utf-8"))
            name = "test/accuracy" if "scored" in results else "test/loss"  # only a head has a loss
            value = results.get("metrics", {}).get(name)
            if results["status"] != "completed" or not isinstance(value, float) or not math.isfinite(value):
                return f"exit code 0, status {results['status']} and {name} {value}"
        if path.parent.name == "predict" and re.search(r",(nan|inf|-inf),", path.read_text(encoding="utf-8")):
            return f"exit code 0 and predictions that are not finite in {path.name}"
        if path.name.endswith(".part"):
            return f"exit code 0 and {path.name} is left"
    return ""
