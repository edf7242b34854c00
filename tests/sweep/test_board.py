"""The log lines of a sweep without a terminal."""

import json
import logging

from agebench.sweep.board import Board, describe
from agebench.sweep.point import Point
from agebench.sweep.slots import Slot

MESSAGE = {"epoch": 3, "epochs": 10, "metrics": {"val/accuracy": 0.875}, "images_per_s": 12345.6, "left_s": 3725.0}


def test_the_progress_of_a_job_is_one_line() -> None:
    assert describe(MESSAGE) == "epoch 3/10  val/accuracy 0.8750  12,346 img/s  eta 1:02:05"
    assert describe({}) == "is starting"


def test_the_start_an_epoch_and_the_end_of_each_job_are_a_line_each(tmp_path, caplog) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"status": "failed", "error": "no memory"}), encoding="utf-8")
    point = Point("lr-0.1-abc123", tmp_path, [])

    with caplog.at_level(logging.INFO), Board(12, at_once=2, terminal=False) as board:
        board.show_start(point, Slot(("3",)))
        board.show_progress(point, {**MESSAGE, "epoch_ended": False})
        board.show_progress(point, {**MESSAGE, "epoch_ended": True})
        point.close(1)
        point.seconds = 7.25
        board.show_end(point)

    assert caplog.messages == [
        "[ 1/12] lr-0.1-abc123 starts on GPU 3",
        "lr-0.1-abc123  epoch 3/10  val/accuracy 0.8750  12,346 img/s  eta 1:02:05",
        "[ 1/12] lr-0.1-abc123 failed after 7.2 s with exit code 1: no memory",
        f"        its log: {tmp_path}/console.log",
    ]


def test_a_warning_of_several_jobs_is_shown_once_and_marked_at_each(tmp_path, caplog) -> None:
    results = {"status": "completed", "best": {"value": 0.5, "monitor": "val/accuracy"}}
    points = [Point(name, tmp_path, [], status="completed", results=results, was_complete=True) for name in "abc"]

    with caplog.at_level(logging.INFO), Board(3, at_once=1, terminal=False) as board:
        for point in points:
            board.show_start(point, Slot())
            if point.name != "c":
                board.show_progress(point, {"warning": "has other code"})
            board.show_end(point)

    assert [message for message in caplog.messages if "starts" not in message] == [
        "warning: a has other code",
        "[1/3] a was already complete, with other code: val/accuracy 0.5000",
        "[2/3] b was already complete, with other code: val/accuracy 0.5000",
        "[3/3] c was already complete: val/accuracy 0.5000",
    ]


def test_the_time_left_is_that_of_the_points_that_were_trained(tmp_path) -> None:
    board = Board(10, at_once=2, terminal=False)
    shown = []
    for seconds, was_complete in ((60.0, False), (100.0, False), (0.5, True)):
        point = Point("p", tmp_path, [], status="completed", seconds=seconds, was_complete=was_complete)
        board.show_end(point)
        shown.append(board._eta())

    # 9, 8 and 7 points are left, two at once, of 60, 80 and 80 s each.
    assert shown == ["0:04:30", "0:05:20", "0:04:40"]
