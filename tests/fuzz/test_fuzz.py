"""Damaged input and hostile overrides end well or in one sentence: the corpus, and 300 random cases in CI."""

import subprocess
import sys
from pathlib import Path

import pytest


def fuzz(work: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(Path(__file__).parent), "--work", str(work / "work"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_no_case_that_once_broke_a_command_does_so_again(tmp_path: Path) -> None:
    done = fuzz(tmp_path, "--corpus", "--cases", "0")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2].split()[1] != "0"


@pytest.mark.ci
def test_no_random_case_ends_in_a_traceback_a_hang_or_a_wrong_exit_code(tmp_path: Path) -> None:
    done = fuzz(tmp_path, "--cases", "300", "--seed", "15", "--limit", "120")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2].split()[:2] == ["all", "300"]
