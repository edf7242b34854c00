"""The end of a sweep on the console and on disk."""

import json
import logging

from agebench.sweep.point import Point
from agebench.sweep.summary import finish_sweep, format_points

DONE = {"status": "completed", "best": {"monitor": "val/mae", "value": 4.25}}


def test_each_point_is_a_row_of_an_aligned_table(tmp_path) -> None:
    done = Point("done", tmp_path / "done", [], status="completed", seconds=12.34, results=DONE)
    failed = Point("failed", tmp_path / "failed", [], status="failed", seconds=3.0)
    waiting = Point("waiting", tmp_path / "waiting", [])

    assert format_points([done, failed, waiting]) == [
        "  status     best val/mae    time  point",
        "  completed        4.2500  12.3 s  done",
        "  failed                    3.0 s  failed",
        "  not run                          waiting",
    ]


def test_a_sweep_without_a_point_leaves_no_folder(tmp_path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "multirun.yaml").touch()

    finish_sweep(tmp_path / "s", [])

    assert not (tmp_path / "s").exists()


def test_an_incomplete_sweep_names_the_command_that_resumes_it(tmp_path, caplog) -> None:
    folder = tmp_path / "s" / "a"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"status": "interrupted"}), encoding="utf-8")

    with caplog.at_level(logging.INFO):
        points = [Point("a", folder, [], status="interrupted"), Point("b", tmp_path / "s" / "b", [])]
        finish_sweep(tmp_path / "s", points)

    assert "repeat the command with sweep=s to resume the incomplete points" in caplog.messages
    assert (tmp_path / "s" / "sweep.md").read_text(encoding="utf-8").startswith("# s: 0 of 2 points completed\n")
