"""Memory that a training step frees is kept for the next one."""

import contextlib
import ctypes

# Of glibc's malloc.h, with what mallopt takes at most.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
MOST_TRIM, MOST_MMAP = 2**31 - 1, 32 * 2**20  # bytes


def keep_freed_memory() -> None:
    """Have glibc keep what is freed instead of giving it back to the system; elsewhere do nothing.

    A step on a CPU frees its activations and asks for as many again. By its defaults glibc gives them back in between,
    and the system hands out thousands of pages anew, each by a page fault: a third of a small network's step. Blocks of
    more than 32 MiB still go back at once, so that the memory of a process stays what its peak was.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library, or Windows
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, MOST_MMAP)
        mallopt(TRIM_THRESHOLD, MOST_TRIM)
