"""Memory that a training step frees is kept for the next one."""

import contextlib
import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = -1  # as its manual has it


def keep_freed_memory() -> None:
    """Have glibc keep what is freed instead of giving it back to the system; elsewhere do nothing.

    A step on a CPU frees its activations and asks for as many again. By its defaults glibc gives them back in between,
    and the system hands out thousands of pages anew, each by a page fault: a third to a half of a small network's step.
    What a process has had stays with it until it ends, so that its memory stays what its peak was.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library, or Windows
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_MAX, 0)  # no block comes from mmap, which would unmap it once it is freed
        mallopt(TRIM_THRESHOLD, NEVER)
