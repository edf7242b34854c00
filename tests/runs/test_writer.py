"""results.json has one writer, and its status is right however a run ends."""

import errno
import json
from pathlib import Path

import pytest

from agebench import files
from agebench.errors import UserError
from agebench.runs import writer as writer_module
from agebench.runs.writer import RunWriter


def written(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_a_run_is_running_until_it_is_completed(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run")

    with writer.running({"seed": 3}):
        during = written(tmp_path / "run")
        writer.update({"epochs": 2})

    assert during == {"status": "running", "seed": 3}
    assert written(tmp_path / "run") == {"status": "completed", "seed": 3, "epochs": 2}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyboardInterrupt(), {"status": "interrupted"}),
        (SystemExit(1), {"status": "interrupted"}),
        (UserError("use more data"), {"status": "failed", "error": "use more data"}),
        (ValueError("odd"), {"status": "failed", "error": "ValueError: odd"}),
    ],
    ids=repr,
)
def test_an_exception_is_written_and_passes_through(tmp_path: Path, error: BaseException, expected: dict) -> None:
    with pytest.raises(type(error)), RunWriter(tmp_path).running({"seed": 0}):
        raise error

    found = written(tmp_path)
    if "error" in found:
        found["error"] = found["error"].partition(" at ")[0]  # without the file and line of this test
    assert found == {"seed": 0, **expected}


def test_numbers_that_json_does_not_have_become_null(tmp_path: Path) -> None:
    RunWriter(tmp_path).update({"best": {"value": float("inf")}, "interval": [float("nan"), 1.5]})

    assert written(tmp_path) == {"best": {"value": None}, "interval": [None, 1.5]}


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    with RunWriter(tmp_path, enabled=False).running({"seed": 0}):
        pass

    assert list(tmp_path.iterdir()) == []


def test_the_end_of_a_killed_run_keeps_what_it_had_written(tmp_path: Path) -> None:
    RunWriter(tmp_path).update({"status": "running", "seed": 5})

    RunWriter.close(tmp_path, "failed", "killed by signal 9")

    assert written(tmp_path) == {"status": "failed", "seed": 5, "error": "killed by signal 9"}


def full_disk(path: Path):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_does_not_hide_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(writer: RunWriter) -> None:
        with writer.running({"seed": 0, "name": "ひらがな"}):
            monkeypatch.setattr(files, "atomic_write", full_disk)
            raise OSError(errno.ENOSPC, "No space left on device", "あ" * 3000)

    with pytest.raises(OSError, match="No space"):
        fill(RunWriter(tmp_path))

    found = written(tmp_path)
    assert (found["status"], found["seed"], found["name"]) == ("failed", 0, "ひらがな")
    assert "No space left on device" in found["error"]


def test_a_signal_while_the_status_is_written_does_not_lose_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json, calls = writer_module.write_json, []

    def interrupted(path: Path, data: dict, **more: int) -> None:
        calls.append(data["status"])
        if calls == ["running", "completed"]:
            raise KeyboardInterrupt
        write_json(path, data, **more)

    monkeypatch.setattr(writer_module, "write_json", interrupted)

    with pytest.raises(KeyboardInterrupt), RunWriter(tmp_path).running({"seed": 0}):
        pass

    assert written(tmp_path) == {"status": "completed", "seed": 0}
