"""Freed memory stays in the process unless AGEBENCH_KEEP_MEMORY=0."""

import os
import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
from agebench.training.memory import keep_freed_memory
if len(sys.argv) > 1:
    keep_freed_memory()
def step():
    blocks = [bytearray(b"x") * (size << 20) for size in (2, 2, 2, 2, 40)]  # MiB; writes to every page
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt needs glibc")


def page_faults(*arguments: str, **variables: str) -> int:
    """Return the page faults per step of a new process."""
    environment = {name: value for name, value in os.environ.items() if name != "AGEBENCH_KEEP_MEMORY"}
    command = [sys.executable, "-c", CODE, *arguments]
    return int(subprocess.run(command, capture_output=True, check=True, env=environment | variables).stdout)


def test_a_step_reuses_the_memory_that_the_previous_step_freed() -> None:
    default, kept = page_faults(), page_faults("keep")

    assert default > 100  # otherwise there is nothing to improve
    assert kept < 20


def test_an_environment_variable_switches_it_off() -> None:
    faults = page_faults("keep", AGEBENCH_KEEP_MEMORY="0")

    assert faults > 100
