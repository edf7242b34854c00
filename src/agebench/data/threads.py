"""Work on images by all cores: decoding leaves Python's lock, so threads do."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

CHUNK = 16  # images a task: handing over each alone would cost a tenth of the speed

T = TypeVar("T")
R = TypeVar("R")


def ahead(pool: ThreadPoolExecutor, task: Callable[[Sequence[T]], R], items: Sequence[T]) -> Iterator[R]:
    """Yield what a task makes of each few items, in order, with some under way: one that fails calls off the others."""
    waiting: deque[Future[R]] = deque()
    for first in range(0, len(items), CHUNK):
        waiting.append(pool.submit(task, items[first : first + CHUNK]))
        if len(waiting) > 2 * cores():
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def cores() -> int:
    """Return the cores that this process may use, which a batch system may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
