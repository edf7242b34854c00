"""Process images on all cores. Threads are sufficient, because decoding releases the GIL."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

CHUNK = 16  # images per task; one image per task would cost a tenth of the speed

T = TypeVar("T")
R = TypeVar("R")


def map_chunks(pool: ThreadPoolExecutor, task: Callable[[Sequence[T]], R], items: Sequence[T]) -> Iterator[R]:
    """Yield the result of a task for each chunk of items, in order, with a bounded number of chunks in progress.

    An exception of a task is raised here; later chunks are not submitted.
    """
    waiting: deque[Future[R]] = deque()
    for first in range(0, len(items), CHUNK):
        waiting.append(pool.submit(task, items[first : first + CHUNK]))
        if len(waiting) > 2 * cores():
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def cores() -> int:
    """Return the number of CPU cores that this process may use, which a batch system can limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
