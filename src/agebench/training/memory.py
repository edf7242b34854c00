"""Keeps the memory that a training step frees in the process, so that the next step can reuse it."""

import contextlib
import ctypes
import os

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # parameters of mallopt, from glibc's malloc.h
NEVER = -1  # a trim threshold that disables trimming, from mallopt(3)


def keep_freed_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the system; do nothing with another C library.

    A training step on a CPU frees its activations and allocates the same amount again. By default glibc returns this
    memory to the system after each step, and the next step gets it back page by page. The page faults take a third to a
    half of a small network's step. With this function the process keeps its peak memory until it ends.

    The environment variable AGEBENCH_KEEP_MEMORY=0 disables this function.
    """
    if os.environ.get("AGEBENCH_KEEP_MEMORY") == "0":
        return
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library, or Windows
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_MAX, 0)  # mmap blocks are unmapped as soon as they are freed
        mallopt(TRIM_THRESHOLD, NEVER)
