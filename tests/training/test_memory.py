"""Memory that is freed stays with the process."""

import subprocess
import sys

import pytest

CODE = """
import platform, resource, sys
from agebench.allocator import keep_freed_memory
if len(sys.argv) > 1:
    keep_freed_memory()
def step():
    blocks = [bytearray(b"x") * (size << 20) for size in (2, 2, 2, 2, 40)]  # MiB, every page of which is written to
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(platform.libc_ver()[0], (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20)
"""


def faults(*arguments: str) -> tuple[str, int]:
    """The C library, and page faults a step, of a process of its own."""
    told = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True).stdout
    library, _, count = told.strip().rpartition(" ")
    return library, int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for page faults")
def test_a_step_finds_its_memory_where_the_last_one_left_it() -> None:
    library, without = faults()
    if library != "glibc":
        pytest.skip("the C library is not glibc")

    _, kept = faults("keep")

    assert without > 100  # else there was nothing to mend
    assert kept < 20
