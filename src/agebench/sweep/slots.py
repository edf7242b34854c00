"""The GPUs of each job of a sweep, or a share of the CPU."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agebench.errors import UserError


@dataclass(frozen=True)
class Slot:
    """The devices for one job at a time.

    Args:
        gpus: The CUDA devices that it may use, as in CUDA_VISIBLE_DEVICES; None keeps the variable unchanged.
    """

    gpus: tuple[str, ...] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables of a job in this slot."""
        return {} if self.gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}

    def __str__(self) -> str:
        return "" if self.gpus is None else f"GPU {','.join(self.gpus)}"


def visible_gpus(count: Callable[[], int]) -> list[str]:
    """Return the CUDA devices that this process may use, named as CUDA_VISIBLE_DEVICES names them.

    Args:
        count: Returns the number of devices; called if that variable is not set.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(i) for i in range(count())]
    names = [name.strip() for name in named.split(",")]
    if "-1" in names:  # CUDA uses the devices before the first invalid one
        names = names[: names.index("-1")]
    return [name for name in names if name]


def make_slots(gpus: Sequence[str], *, jobs: int | str, gpus_per_job: int) -> list[Slot]:
    """Return the slots of a sweep, one for each job that may run at the same time; no GPU is in two slots.

    Args:
        gpus: The available devices; without any, jobs train on the CPU.
        jobs: Number of jobs at the same time; `auto` is one for every `gpus_per_job` GPUs, and one on a CPU.
        gpus_per_job: GPUs of each job; 0 assigns none, so that jobs share all visible GPUs.

    Raises:
        UserError: If there are too few GPUs.
    """
    if not gpus or gpus_per_job == 0:
        return [Slot()] * (1 if jobs == "auto" else int(jobs))
    max_jobs = len(gpus) // gpus_per_job
    wanted = max(max_jobs, 1) if jobs == "auto" else int(jobs)
    if wanted > max_jobs:
        raise UserError(
            f"launcher.jobs={jobs} with launcher.gpus_per_job={gpus_per_job} needs {wanted * gpus_per_job} GPUs, and "
            f"{len(gpus)} are visible: lower one of them, or let jobs share with launcher.gpus_per_job=0"
        )
    return [Slot(tuple(gpus[i * gpus_per_job : (i + 1) * gpus_per_job])) for i in range(wanted)]
