"""What is known of a point once its process has ended, however it ended."""

import json
import math

import pytest

from agebench.sweep.point import CONSOLE, Point

DONE = {"status": "completed", "best": {"monitor": "val/mae", "value": 4.25}}


def make_point(folder, results=None, console=None) -> Point:
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    if console is not None:
        (folder / CONSOLE).write_text(console, encoding="utf-8")
    return Point("lr-0.1-abc123", folder, [])


def told(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_a_completed_run_has_its_best_value(tmp_path) -> None:
    point = make_point(tmp_path, DONE)

    point.close(0)

    assert (point.status, point.monitor, point.best, point.error) == ("completed", "val/mae", 4.25, "")


def test_a_run_that_failed_with_a_reason_keeps_it_in_one_line(tmp_path) -> None:
    point = make_point(tmp_path, {"status": "failed", "error": "RuntimeError: one\n  two"})

    point.close(1)

    assert (point.status, point.error) == ("failed", "RuntimeError: one two")
    assert math.isnan(point.best)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(-9, "killed by signal 9, as the system does when memory runs out"), (-11, "killed by signal 11")],
)
def test_a_killed_run_is_marked_as_failed_by_who_survives_it(tmp_path, code, reason) -> None:
    point = make_point(tmp_path, {"status": "running", "seed": 3})

    point.close(code)

    assert (point.status, point.error) == ("failed", reason)
    assert told(tmp_path) == {"status": "failed", "seed": 3, "error": reason}


def test_a_run_stopped_with_the_sweep_is_interrupted_and_no_failure(tmp_path) -> None:
    point = make_point(tmp_path, {"status": "running"})

    point.close(-9, stopped="interrupted")

    assert (point.status, point.error) == ("interrupted", "")
    assert told(tmp_path) == {"status": "interrupted"}


def test_a_run_that_took_too_long_says_so(tmp_path) -> None:
    point = make_point(tmp_path / "new")

    point.close(-9, stopped="not done within launcher.timeout=5 s")

    assert told(tmp_path / "new") == {"status": "failed", "error": "not done within launcher.timeout=5 s"}


def test_a_process_that_died_before_its_run_began_is_told_by_its_last_line(tmp_path) -> None:
    point = make_point(tmp_path, console="some noise\nImportError: no module\n\n")

    point.close(1)

    assert point.error == "ImportError: no module"


def test_a_complete_folder_does_not_hide_that_its_process_failed(tmp_path) -> None:
    point = make_point(tmp_path, DONE, console="agebench train: holds a finished run of another config")

    point.close(2)

    assert (point.status, point.error) == ("failed", "agebench train: holds a finished run of another config")
    assert told(tmp_path) == DONE
