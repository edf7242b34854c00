"""A run whose process ended without a final status is `crashed`, wherever its status is read."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from agebench.build.checkpoint import read_checkpoint
from agebench.comparison.tables import compare
from agebench.runs.folder import actual_status
from agebench.runs.read import read_run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a lock cannot be probed on Windows")
HELD = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print(flush=True)
time.sleep(99)
"""


def make_run(folder: Path, **results) -> Path:
    (folder / ".lock").touch()
    (folder / "results.json").write_text(json.dumps({"status": "running", "config": "abc", **results}))
    return folder


def test_a_running_run_is_crashed_once_its_process_is_killed(tmp_path) -> None:
    run = make_run(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", HELD, str(run / ".lock")], stdout=subprocess.PIPE)
    process.stdout.readline()

    alive = read_run(run).status
    process.kill()
    process.wait()
    killed = read_run(run)

    assert (alive, killed.status) == ("running", "crashed")
    assert killed.error.startswith("its process ended without a final status")


def test_looking_at_a_run_does_not_lock_it(tmp_path) -> None:
    run = make_run(tmp_path)

    read_run(run)

    FileLock(run / ".lock").acquire(timeout=0).lock.release()


@pytest.mark.parametrize("status", ["completed", "failed", "interrupted"])
def test_a_final_status_is_kept(tmp_path, status) -> None:
    assert read_run(make_run(tmp_path, status=status)).status == status


def test_a_run_of_another_machine_may_still_run(tmp_path) -> None:
    assert read_run(make_run(tmp_path, host="elsewhere")).status == "running"


def test_a_copy_without_its_lock_does_not_run(tmp_path) -> None:
    (make_run(tmp_path) / ".lock").unlink()

    assert actual_status(tmp_path, {"status": "running"}) == "crashed"


def test_a_lock_that_is_a_link_is_not_followed_so_nothing_is_known(tmp_path) -> None:
    (make_run(tmp_path) / ".lock").unlink()
    (tmp_path / "other").touch()
    (tmp_path / ".lock").symlink_to(tmp_path / "other")

    assert actual_status(tmp_path, {"status": "running"}) == "running"


def test_compare_lists_a_crashed_run_as_such(tmp_path) -> None:
    compared = compare([read_run(make_run(tmp_path))], None)

    assert [(run.status, run.folder) for run in compared.unranked] == [("crashed", tmp_path)]


def test_predict_says_that_a_run_crashed(tmp_path, caplog) -> None:
    run = make_run(tmp_path)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").write_bytes(b"")

    with caplog.at_level(logging.WARNING), pytest.raises(Exception, match="damaged"):
        read_checkpoint(run, "best", json.loads((run / "results.json").read_text()), trust=False)

    assert "is crashed (its process ended without a final status" in caplog.text
