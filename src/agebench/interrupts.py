"""Signals that end a command like Ctrl-C: the status becomes `interrupted`, and finished work is kept."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Terminals, `kill` and job schedulers send these. Windows lacks most of them.
NAMES = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
REQUEUE = ("SIGUSR1", "SIGUSR2")  # under SLURM, Lightning saves and requeues the job


INTERRUPTED = 130  # exit code of an interrupted process of a DDP run, as of a shell command after Ctrl-C


def exit_code() -> int:
    """Return the exit code after an interruption: 1, or INTERRUPTED in a process that another one started for DDP."""
    return 1 if os.environ.get("LOCAL_RANK", "0") == "0" else INTERRUPTED


@contextmanager
def postponed() -> Iterator[None]:
    """Context manager: handle the signals that arrive in the block, Ctrl-C among them, at its end.

    A handler runs between two instructions of the main thread. In a block that uses a lock it may raise
    KeyboardInterrupt after the lock was acquired and before anything would release it. The next use of that lock, such
    as by the shutdown, then waits forever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", *NAMES) if hasattr(signal, name)]
    handlers = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
    received: list[int] = []
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: received.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(received):
            signal.raise_signal(signal.Signals(number))


@contextmanager
def handle_signals() -> Iterator[None]:
    """Context manager: raise KeyboardInterrupt at the first of the signals, and ignore those that follow it.

    A signal that is already handled or ignored keeps its handler; `nohup` ignores SIGHUP.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()
    left_alone = REQUEUE if "SLURM_JOB_ID" in os.environ else ()
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name) and name not in left_alone]
    handled = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker ends as it would without this handler
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(signal.Signals(number))
            return
        for each in handled:
            signal.signal(each, signal.SIG_IGN)  # nothing interrupts the shutdown
        raise KeyboardInterrupt

    for number in handled:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
