"""Atomic writes: a file is written completely or not at all, also by two threads at the same time."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agebench.files import write_csv, write_json


def test_two_threads_that_write_the_same_table_both_succeed(tmp_path: Path) -> None:
    both, failed = threading.Barrier(2, timeout=20), []

    def rows(name: str) -> Iterator[tuple[str]]:
        both.wait()  # both files are open
        yield (name,)
        both.wait()

    def write(name: str) -> None:
        try:
            write_csv(tmp_path / "missing.csv", ("name",), rows(name))
        except Exception as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in ("a.jpg", "b.jpg")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert failed == []
    assert [path.name for path in tmp_path.iterdir()] == ["missing.csv"]
    assert (tmp_path / "missing.csv").read_text("utf-8-sig") in ("name\na.jpg\n", "name\nb.jpg\n")


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", {"seed": 1})
    write_csv(tmp_path / "table.csv", ("name",), [("a",)])

    with pytest.raises(ZeroDivisionError):
        write_csv(tmp_path / "table.csv", ("name",), ((1 // n,) for n in (1, 0)))
    with pytest.raises(TypeError):
        write_json(tmp_path / "results.json", {"seed": object()})

    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "table.csv"]
    assert (tmp_path / "table.csv").read_text("utf-8-sig") == "name\na\n"
