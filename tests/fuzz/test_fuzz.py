"""Damaged input and hostile overrides end well or in one sentence: 300 random cases, and those that once did not."""

import subprocess
import sys
from pathlib import Path


def test_no_case_ends_in_a_traceback_a_hang_or_a_wrong_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parent), "--corpus", "--cases", "300", "--seed", "15"]

    done = subprocess.run([*command, "--work", str(tmp_path / "work")], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "all " in done.stdout
