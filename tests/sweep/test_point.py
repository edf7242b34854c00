"""The outcome of a point after its process has ended, for every way to end."""

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


def stored(folder):
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
def test_a_killed_run_is_marked_as_failed_by_the_sweep(tmp_path, code, reason) -> None:
    point = make_point(tmp_path, {"status": "running", "seed": 3})

    point.close(code)

    assert (point.status, point.error) == ("failed", reason)
    assert stored(tmp_path) == {"status": "failed", "seed": 3, "error": reason}


def test_a_run_stopped_with_the_sweep_is_interrupted_and_not_failed(tmp_path) -> None:
    point = make_point(tmp_path, {"status": "running"})

    point.close(-9, stopped="interrupted")

    assert (point.status, point.error) == ("interrupted", "")
    assert stored(tmp_path) == {"status": "interrupted"}


def test_a_run_that_exceeds_the_time_limit_is_marked_as_failed(tmp_path) -> None:
    point = make_point(tmp_path / "new")

    point.close(-9, stopped="did not end within launcher.timeout=5 s")

    assert stored(tmp_path / "new") == {"status": "failed", "error": "did not end within launcher.timeout=5 s"}


def test_the_error_of_a_process_that_died_before_its_run_is_its_last_line(tmp_path) -> None:
    point = make_point(tmp_path, console="some noise\nImportError: no module\n\n")

    point.close(1)

    assert point.error == "ImportError: no module"


def test_a_complete_folder_does_not_hide_that_its_process_failed(tmp_path) -> None:
    point = make_point(tmp_path, DONE, console="agebench train: holds a finished run of another config")

    point.close(2)

    assert (point.status, point.error) == ("failed", "agebench train: holds a finished run of another config")
    assert stored(tmp_path) == DONE


RECORDED = {
    "nothing": None,
    "running": {"status": "running"},
    "completed": DONE,
    "failed": {"status": "failed", "error": "ValueError: bad"},
    "interrupted": {"status": "interrupted"},
}
LATE = "did not end within launcher.timeout=5 s"
LAST = "its last line"
SIGNAL_9, SIGNAL_15 = "killed by signal 9, as the system does when memory runs out", "killed by signal 15"
# By exit code and by what results.json says: the point's status and its error.
CLOSED_BY_ITSELF = {
    0: [("failed", LAST), ("failed", LAST), ("completed", ""), ("failed", "ValueError: bad"), ("failed", LAST)],
    1: [("failed", LAST), ("failed", LAST), ("failed", LAST), ("failed", "ValueError: bad"), ("failed", LAST)],
    -9: [*[("failed", SIGNAL_9)] * 3, ("failed", "ValueError: bad"), ("failed", SIGNAL_9)],
    -15: [*[("failed", SIGNAL_15)] * 3, ("failed", "ValueError: bad"), ("failed", SIGNAL_15)],
    None: [*[("failed", LAST)] * 3, ("failed", "ValueError: bad"), ("failed", LAST)],
}


@pytest.mark.parametrize("code", [0, 1, -9, -15, None])
@pytest.mark.parametrize("recorded", RECORDED)
@pytest.mark.parametrize("stopped", ["", "interrupted", LATE])
def test_an_exit_code_and_a_status_make_one_outcome_and_only_an_open_status_is_rewritten(
    tmp_path, code, recorded, stopped
) -> None:
    point = make_point(tmp_path, RECORDED[recorded], console=f"noise\n{LAST}\n")
    point.begin()
    by_itself = CLOSED_BY_ITSELF[code][list(RECORDED).index(recorded)]
    expected = {"": by_itself, "interrupted": ("interrupted", ""), LATE: ("failed", LATE)}[stopped]
    if code == 0 and recorded == "completed":  # done before it could be stopped
        expected = ("completed", "")

    point.close(code, stopped=stopped)

    assert (point.status, point.error) == expected
    if recorded in ("nothing", "running"):
        error = {"error": expected[1]} if expected[1] else {}
        assert stored(tmp_path) == {"status": expected[0], **error}
    else:
        assert stored(tmp_path) == RECORDED[recorded]


def test_a_job_that_fails_while_the_sweep_stops_is_failed(tmp_path) -> None:
    point = make_point(tmp_path / "new")
    point.begin()
    (tmp_path / "new").mkdir()
    make_point(tmp_path / "new", RECORDED["failed"])

    point.close(1, stopped="interrupted")

    assert (point.status, point.error) == ("failed", "ValueError: bad")


def test_a_failure_of_an_earlier_start_does_not_count_when_the_sweep_stops(tmp_path) -> None:
    point = make_point(tmp_path, RECORDED["failed"])
    point.begin()

    point.close(1, stopped="interrupted")

    assert (point.status, point.error) == ("interrupted", "")


def test_a_process_that_printed_nothing_still_has_an_error(tmp_path) -> None:
    point = make_point(tmp_path, console=" \n\n")

    point.close(1)

    assert point.status == "failed"
    assert point.error != ""
