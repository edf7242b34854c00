"""The process of one point: started by a server that has everything imported, and never left behind."""

import contextlib
import json
import logging
import multiprocessing
import os
import runpy
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agebench.cli import main as cli
from agebench.errors import UserError
from agebench.sweep.point import CONSOLE, Point
from agebench.sweep.slots import Slot

CHECKED = ["seed", "paths", "data", "head", "augment"]  # the parts that agebench.build.check_parts reads
Context = ForkServerContext | SpawnContext
reporter: Connection | None = None  # in a job: the way to the process that started it


def start_server() -> Context:
    """Return what starts processes, its server with everything imported started in the background."""
    # Without this, asking how many GPUs there are would make a CUDA context, which no forked process can use.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    # It would otherwise mourn the locks of jobs that were killed, at the end of a sweep that has reported them.
    with _set("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker"):
        resource_tracker.ensure_running()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["agebench.sweep.preload"])
    with _deaf():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Have what is started ignore Ctrl-C, which is the sweep's: it would break off the server's imports, and say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _set(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def count_gpus(context: Context) -> int:
    """Return how many CUDA devices there are, without making a context in this process."""
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_count_gpus, args=(theirs,))
    process.start()
    theirs.close()
    try:
        return int(ours.recv())
    except EOFError:
        return 0
    finally:
        process.join()


def _count_gpus(line: Connection) -> None:
    import torch

    _answer(line, torch.cuda.device_count() if torch.cuda.is_available() else 0)


def _answer(line: Connection, answer: int | str) -> None:
    """Tell it to the sweep, unless Ctrl-C has ended it in the meantime."""
    with contextlib.suppress(BrokenPipeError):
        line.send(answer)


def check_points(context: Context, configs: Sequence[DictConfig]) -> None:
    """Find what cannot work in any point, each kind of point once, in a process that is forked for it.

    Args:
        context: What starts processes.
        configs: Of the points.

    Raises:
        UserError: If data, split, head or augmentation of a point cannot be had together.
    """
    kinds: dict[str, dict[str, Any]] = {}
    for config in configs:
        nodes: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, CHECKED), resolve=True)
        kinds.setdefault(json.dumps({**nodes, "seed": 0}, sort_keys=True, default=str), nodes)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_check_points, args=(list(kinds.values()), theirs))
    process.start()
    theirs.close()
    try:
        wrong = ours.recv()
    except EOFError:  # it died: the points' own processes will tell
        wrong = ""
    finally:
        process.join()
    if wrong:
        raise UserError(wrong)


def _check_points(nodes: list[dict[str, Any]], line: Connection) -> None:
    from agebench.build.training import check_parts

    threading.Thread(target=_follow_parent, daemon=True).start()
    logging.disable()  # each run says it itself
    try:
        for each in nodes:
            check_parts(OmegaConf.create(each))
        wrong = ""
    except UserError as error:
        wrong = str(error)
    _answer(line, wrong)


class Job:
    """A point's process.

    Args:
        context: What starts processes.
        point: What to run.
        slot: Where.
        jobs: How many share the CPU.
    """

    def __init__(self, context: Context, point: Point, slot: Slot, *, jobs: int) -> None:
        self.point, self.slot = point, slot
        self.line, theirs = context.Pipe(duplex=False)
        environment = {**os.environ, **slot.environment}
        self.process: BaseProcess = context.Process(
            target=_run,
            args=(point.arguments, point.composed, str(point.folder), environment, jobs, point.ranks, theirs),
        )
        self.process.start()
        theirs.close()

    def messages(self) -> list[dict[str, Any]]:
        """Return what it has told of its progress since the last time."""
        told = []
        try:
            while not self.line.closed and self.line.poll():
                told.append(self.line.recv())
        except (EOFError, OSError):
            self.line.close()
        return told

    def signal(self, number: int) -> None:
        """Send a signal to the process alone, which passes it on as it sees fit."""
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def end(self) -> int | None:
        """Kill what is left of the process and of those it started; return its exit code."""
        if self.process.is_alive():
            self.process.kill()  # it may not have its group yet
        if self.process.pid is not None:
            kill_group(self.process.pid)
        self.process.join()
        self.line.close()
        return self.process.exitcode


def kill_group(pid: int) -> None:
    """Kill a process and all that it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        return
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def _run(
    arguments: list[str],
    composed: tuple[Any, Any] | None,
    folder: str,
    environment: Mapping[str, str],
    jobs: int,
    ranks: int,
    line: Connection,
) -> None:
    """Be the command `python -m agebench.train ARGUMENTS`, in a fresh process whose imports are done."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in the terminal is the sweep's, and its ranks can be ended with it
    threading.Thread(target=_follow_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a sweep in the background was started to ignore it
    os.environ.clear()
    os.environ.update(environment)
    Path(folder).mkdir(parents=True, exist_ok=True)
    _redirect(Path(folder, CONSOLE))
    if jobs > 1:
        _share_cpu(jobs, ranks)
    global reporter
    reporter, cli.composed = line, composed
    sys.argv = ["agebench-train", *arguments]
    try:
        # As a module of its own, so that a DDP rank is started with the same line (python -m agebench.train).
        runpy.run_module("agebench.train", run_name="__main__", alter_sys=True)
    finally:
        logging.shutdown()


def _follow_parent() -> None:
    """Die as soon as the sweep's process has, however it died."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        kill_group(os.getpid())


def _redirect(file: Path) -> None:
    """Send all that this process and its own say into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115  # as long as the process
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115


def _share_cpu(jobs: int, ranks: int) -> None:
    """Use as many threads as follow from the number of jobs alone, so that a run repeats itself bit for bit."""
    import torch

    threads = max(1, torch.get_num_threads() // jobs // ranks)
    torch.set_num_threads(threads)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)  # for the processes of further ranks
