"""The process of one point. It is forked from a server with all imports done, and ends with the sweep."""

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

from agebench import interrupts
from agebench.errors import UserError
from agebench.files import open_log
from agebench.sweep.environment import set_variable
from agebench.sweep.point import CONSOLE, Point
from agebench.sweep.session import JobSession
from agebench.sweep.slots import Slot

CHECKED = ["seed", "paths", "data", "head", "augment"]  # the keys that agebench.build.check_parts reads
Context = ForkServerContext | SpawnContext
# The signals that end a sweep in order.
ENDING = [getattr(signal, name) for name in ("SIGINT", *interrupts.NAMES) if hasattr(signal, name)]


def start_server() -> Context:
    """Return the multiprocessing context that starts processes. Its fork server does all imports in the background."""
    # Without this, counting the GPUs would create a CUDA context, which a forked process cannot use.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    # On macOS, system libraries that the preloaded modules use may crash in a forked process.
    if sys.platform == "darwin" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    # Python would otherwise warn about the locks of killed jobs at the end of the sweep.
    with set_variable("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker"):
        resource_tracker.ensure_running()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["agebench.sweep.preload"])
    with _ignore_interrupts():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Context manager: processes that start in the block ignore signals that end the sweep.

    A terminal sends them to the fork server too. Without it the jobs could not end in order.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def count_gpus(context: Context) -> int:
    """Return the number of CUDA devices, without creating a CUDA context in this process."""
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
    """Send an answer to the sweep, unless Ctrl-C has ended the sweep."""
    with contextlib.suppress(BrokenPipeError):
        line.send(answer)


def check_points(context: Context, configs: Sequence[DictConfig]) -> None:
    """Check in a separate process that the parts of every point fit together. Equal points are checked once.

    Args:
        context: Starts processes.
        configs: The composed configs of the points.

    Raises:
        UserError: If data, split, head or augmentation of a point are wrong or do not fit together.
    """
    plain: list[Any] = []
    for config in configs:
        keys = [str(key) for key in config if key != "hydra"]
        plain.append(OmegaConf.to_container(OmegaConf.masked_copy(config, keys), resolve=True))
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_check_points, args=(plain, theirs))
    process.start()
    theirs.close()
    try:
        wrong = ours.recv()
    except EOFError:  # the process died; the processes of the points will report the reason
        wrong = ""
    finally:
        process.join()
    if wrong:
        raise UserError(wrong)


def _check_points(configs: list[dict[str, Any]], line: Connection) -> None:
    from agebench.build.keys import NETWORK, TRAINING, check_nodes
    from agebench.build.module import check_parts

    threading.Thread(target=_exit_with_parent, daemon=True).start()
    logging.disable()  # each run logs the same messages itself
    try:
        kinds: dict[str, dict[str, Any]] = {}
        for config in configs:
            check_nodes(config, (*NETWORK, *TRAINING))
            nodes = {key: config[key] for key in CHECKED}
            kinds.setdefault(json.dumps({**nodes, "seed": 0}, sort_keys=True, default=str), nodes)
        for each in kinds.values():
            check_parts(OmegaConf.create(each))
        wrong = ""
    except UserError as error:
        wrong = str(error)
    _answer(line, wrong)


class Job:
    """The process of a point, which starts immediately.

    Args:
        context: Starts processes.
        point: What to run.
        slot: The devices of the process.
        jobs: Number of jobs that share the CPU.
    """

    def __init__(self, context: Context, point: Point, slot: Slot, *, jobs: int) -> None:
        self.point, self.slot = point, slot
        self.line, theirs = context.Pipe(duplex=False)
        environment = {**os.environ, **slot.environment}
        self.process: BaseProcess = context.Process(
            target=_run,
            args=(point, environment, jobs, theirs),
        )
        self.process.start()
        theirs.close()

    def messages(self) -> list[dict[str, Any]]:
        """Return the progress messages since the last call."""
        received = []
        try:
            while not self.line.closed and self.line.poll():
                received.append(self.line.recv())
        except (EOFError, OSError):
            self.line.close()
        return received

    def signal(self, number: int) -> None:
        """Send a signal to the process, not to the processes that it started."""
        if self.process.pid is not None:
            with contextlib.suppress(OSError):  # it has ended; Windows has no ProcessLookupError for it
                os.kill(self.process.pid, number)

    def end(self) -> int | None:
        """Kill the process and the processes that it started, if they still run; return the exit code."""
        if self.process.is_alive():
            self.process.kill()  # it may not have created its process group yet
        if self.process.pid is not None:
            kill_group(self.process.pid)
        self.process.join()
        self.line.close()
        return self.process.exitcode


def kill_group(pid: int) -> None:
    """Kill a process and all processes that it started."""
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


def _run(point: Point, environment: Mapping[str, str], jobs: int, line: Connection) -> None:
    """Run the command `python -m agebench.train ARGUMENTS` in a new process whose imports are done."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in the terminal reaches the sweep alone, and kill_group also ends the DDP ranks
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    for number in ENDING:  # the fork server ignores them
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    point.folder.mkdir(parents=True, exist_ok=True)
    _redirect(point.folder / CONSOLE)
    if jobs > 1:
        _share_cpu(jobs, point.ranks)
    sys.argv = ["agebench-train", *point.arguments]
    try:
        with JobSession(point.composed, progress=line):
            # Run as a module, so that Lightning starts DDP ranks with `python -m agebench.train` too.
            runpy.run_module("agebench.train", run_name="__main__", alter_sys=True)
    finally:
        logging.shutdown()


def _exit_with_parent() -> None:
    """Exit as soon as the process of the sweep has ended, for any reason."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        kill_group(os.getpid())
        os._exit(1)  # still running, because it leads no process group


def _redirect(file: Path) -> None:
    """Redirect the output of this process and of its children to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    target = open_log(file)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115  # as long as the process
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115


def _share_cpu(jobs: int, ranks: int) -> None:
    """Set a number of threads that depends only on the number of jobs, so that runs are bitwise reproducible."""
    import torch

    threads = max(1, torch.get_num_threads() // jobs // ranks)
    torch.set_num_threads(threads)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)  # for the processes of further ranks
