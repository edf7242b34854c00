"""The processes of a DDP run on this machine: if one of them dies, the others end with one sentence."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agebench.errors import FailedError
from agebench.interrupts import INTERRUPTED, NAMES, exit_code
from agebench.lightning_internals import observe_ranks
from agebench.runs.writer import RunWriter

POLL_S = 0.5
EXIT_S = 5.0  # a process closes its connections seconds before its exit code is known
GRACE_S = 10.0  # time to notice a lost connection; a collective on a GPU may wait for much longer
SIGNALS = {int(getattr(signal, name)) for name in ("SIGINT", *NAMES) if hasattr(signal, name)}  # that interrupt a run


class _Peers:
    """The other processes of a DDP run, as far as this one can watch them.

    The first process watches those that Lightning started. Each of those watches the first one, which is its parent.

    Args:
        run_dir: The run directory.
        first: Whether this is the first process, which writes the status of the run.
        machines: The number of machines of the run.
    """

    def __init__(self, run_dir: Path, *, first: bool, machines: int = 1) -> None:
        self.run_dir, self.first, self.machines = run_dir, first, machines
        self.children: list[subprocess.Popen[bytes]] = []
        # Hydra's job name in the command line with which Lightning starts a process
        started = not first and any(a.startswith("hydra.job.name=train_ddp_process_") for a in sys.argv)
        self.parent = os.getppid() if started else None
        self.ended = threading.Event()
        self.ending = threading.Lock()  # held to end, so that only one thread writes the status
        self.interrupted = False  # whether the lost process or this one was interrupted, as by Ctrl-C
        self.thread: threading.Thread | None = None
        self.received: int | None = None  # descriptor from which the signals to this process are read

    def start(self) -> None:
        """Watch the other processes in a thread, if there are any."""
        if self.thread is None and (self.children or self.parent is not None or self.machines > 1):
            self.thread = threading.Thread(target=self._watch, daemon=True)
            self.thread.start()

    def add(self, processes: list[subprocess.Popen[bytes]]) -> None:
        """Watch the processes that Lightning has started."""
        self.children = processes
        self.start()

    def find_lost(self) -> str:
        """Return a sentence about a process that has died; empty if there is none."""
        if self.parent is not None and os.getppid() != self.parent:
            return "the first process of this run died, so the others ended too"
        for rank, child in enumerate(self.children, start=1):
            if (code := child.poll()) not in (None, 0):
                self.interrupted = code == INTERRUPTED or -code in SIGNALS
                how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                how = "was interrupted" if self.interrupted else how
                return f"process {rank} of this run {how}, so the others ended too"
        return ""

    def wait_for_lost(self) -> str:
        """Return the sentence about a lost process. Wait for its exit code, if there are processes to wait for."""
        until = time.monotonic() + EXIT_S
        while not (lost := self.find_lost()) and (self.children or self.parent) and time.monotonic() < until:
            time.sleep(0.05)
        return lost

    @contextmanager
    def record_signals(self) -> Iterator[None]:
        """Context manager: record signals to this process, also while its main thread waits and cannot handle them."""
        if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
            yield
            return
        self.received, written = os.pipe()
        os.set_blocking(self.received, False)
        os.set_blocking(written, False)
        before = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(written)
            os.close(self.received)

    def is_interrupted(self) -> bool:
        """Return whether the lost process or this one was interrupted."""
        if self.received is not None and not self.interrupted:
            with suppress(OSError):  # nothing was received
                self.interrupted = bool(SIGNALS & {*os.read(self.received, 4096)})
        return self.interrupted

    def kill(self) -> None:
        """Kill the processes that Lightning has started."""
        for child in self.children:
            child.kill()

    def _watch(self) -> None:
        while not (lost := self.find_lost()) and not self.is_interrupted():
            if self.ended.wait(POLL_S):
                return
        self.ended.wait(GRACE_S)
        with self.ending:
            if self.ended.is_set():  # the main thread writes the status
                return
            self.kill()
            sentence = explain_lost(lost or "interrupted while it waited for another process", self.run_dir)
            if self.first:
                with suppress(OSError):
                    if self.is_interrupted():
                        RunWriter.close(self.run_dir, "interrupted")
                    else:
                        RunWriter.close(self.run_dir, "failed", sentence)
            print(f"agebench train: {sentence}", file=sys.stderr, flush=True)
            os._exit(exit_code())  # the main thread waits for a process that is dead, or not there


def explain_lost(lost: str, run_dir: Path) -> str:
    """Return one sentence about the end of this process and how to resume the run."""
    return f"{lost}; finished epochs are kept in {run_dir}: repeat the command to resume"


@contextmanager
def watch_ranks(run_dir: Path, *, first: bool, machines: int = 1) -> Iterator[None]:
    """Context manager: end this process soon after another process of its DDP run has died.

    It also ends soon after a signal that its main thread cannot handle, because it waits for another process.

    Args:
        run_dir: The run directory.
        first: Whether this is the first process, which writes the status of the run.
        machines: The number of machines of the run.

    Raises:
        FailedError: If another process died, instead of the error of the lost connection.
        KeyboardInterrupt: If another process was interrupted.
    """
    peers = _Peers(run_dir, first=first, machines=machines)
    with peers.record_signals():
        peers.start()
        try:
            with observe_ranks(peers.add):
                yield
        except BaseException as error:
            lost = peers.wait_for_lost() if isinstance(error, RuntimeError) else ""
            peers.kill()  # they would wait for this one
            if lost and peers.is_interrupted():
                raise KeyboardInterrupt from error
            if lost:
                raise FailedError(explain_lost(lost, run_dir)) from error
            raise
        finally:
            with peers.ending:
                peers.ended.set()
            if peers.thread is not None:
                peers.thread.join(1.0)  # it reads a descriptor that is closed next
