"""Progress in a real terminal (a pty), in a pipe, and disabled."""

import contextlib
import http.server
import io
import logging
import os
import re
import struct
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from agebench import progress
from agebench.data.readers.download import download
from agebench.data.resize import Resize
from agebench.data.sources import Digits
from agebench.data.store import Store
from agebench.data.unlabelled import Unlabelled
from agebench.progress import Bar
from agebench.runs.read import find_runs
from agebench.text import ConsoleHandler, page_link, say
from agebench.training.fit import fit

fcntl = pytest.importorskip("fcntl", reason="needs a pty")
termios = pytest.importorskip("termios", reason="needs a pty")
COLUMNS = 100


class Terminal:
    """A pty whose slave is sys.stderr."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        self.stderr = open(self.slave, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        self._received: list[bytes] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # raised when the slave is closed
            while data := os.read(self.master, 65536):
                self._received.append(data)

    def close(self) -> str:
        """Return everything that was written."""
        self.stderr.close()
        os.close(self.slave)
        self._reader.join()
        os.close(self.master)
        return b"".join(self._received).decode("utf-8")


@contextlib.contextmanager
def terminal(monkeypatch) -> Iterator[list[str]]:
    """Context manager: a list that contains what was written to the terminal after the block."""
    received: list[str] = []
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made.stderr)
    monkeypatch.setattr(progress, "DELAY_S", 0.0)
    monkeypatch.setattr(progress, "REDRAW_S", 0.0)
    try:
        yield received
    finally:
        monkeypatch.undo()
        received.append(made.close())


@contextlib.contextmanager
def pipe(monkeypatch) -> Iterator[list[str]]:
    """Context manager: like terminal, but stderr is no terminal and lines need not be 10 s apart."""
    received: list[str] = []
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    try:
        yield received
    finally:
        monkeypatch.undo()
        received.append(stderr.getvalue())


def screen(written: str) -> list[str]:
    """Return the lines that a terminal shows after this output."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[A|[\s\S]", written):
        if token == "\x1b[A":
            row -= 1
        elif token == "\r":
            column = 0
        elif token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        else:
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


class Clock:
    """Replaces the time module."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_rate_and_remaining_time_are_those_since_the_start(clock) -> None:
    bar = Bar("training", total=1000, done=400)  # 400 were done by an earlier process

    clock.now += 20
    bar.advance_to(700)

    assert bar.figures() == "70%  700 of 1,000 img  15 img/s  eta 0:00:20"


def test_the_remaining_time_is_unknown_without_a_total_or_a_rate(clock) -> None:
    assert Bar("a", total=None).figures() == "0 img  0.0 img/s  eta ?"
    assert Bar("a", total=5, unit="runs").figures() == "0%  0 of 5 runs  0.0 runs/s  eta ?"


def test_bytes_are_shown_in_megabytes(clock) -> None:
    bar = Bar("downloading", total=45_000_000, unit="B")

    clock.now += 2
    bar.update(5_000_000)

    assert bar.figures() == "11%  5.0 of 45.0 MB  2.5 MB/s  eta 0:00:16"


def test_without_a_terminal_lines_are_ten_seconds_and_ten_percent_or_a_minute_apart(clock, capsys) -> None:
    with Bar("packing", total=1000) as bar:
        for done in range(1, 401):  # a second each
            clock.now += 1
            bar.advance_to(done if done <= 250 else 250 + (done - 250) // 10)

    shown = [int(re.search(r"(\d+) of", line)[1]) for line in capsys.readouterr().err.splitlines()]
    # first every minute; 10% would take 100 s
    assert shown == [60, 120, 180, 240, 255, 261]


def test_without_a_terminal_short_work_writes_nothing(clock, capsys) -> None:
    with Bar("packing", total=100) as bar:
        for _ in range(100):
            clock.now += 0.09
            bar.update()

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("name", "value"), [("AGEBENCH_PROGRESS", "0"), ("LOCAL_RANK", "1")])
def test_disabled_progress_and_other_ranks_write_nothing(monkeypatch, name, value) -> None:
    with terminal(monkeypatch) as received:
        monkeypatch.setenv(name, value)
        with Bar("packing", total=3) as bar:
            bar.update()

    assert received == [""]


def test_in_a_terminal_the_bar_is_one_line_that_disappears(monkeypatch) -> None:
    with terminal(monkeypatch) as received, Bar("packing \x1b[2J", total=300) as bar:
        for _ in range(300):
            bar.update()

    frames = received[0].split("\r")
    assert sum("300 of 300 img" in frame for frame in frames) == 1
    assert max(map(len, frames)) <= COLUMNS
    assert "packing \\x1b[2J" in received[0]
    assert screen(received[0]) == [""]


def test_messages_and_log_lines_appear_above_nested_bars(monkeypatch) -> None:
    log = logging.getLogger("test_progress")
    with terminal(monkeypatch) as received:
        handler = ConsoleHandler(sys.stderr)
        monkeypatch.setattr(log, "handlers", [handler])
        monkeypatch.setattr(log, "propagate", False)
        with Bar("training", total=40) as outer:
            for i in range(4):
                with Bar("validating", total=10) as inner:
                    for _ in range(10):
                        outer.update()
                        inner.update()
                    say(f"said {i}") if i % 2 else log.warning("logged %d", i)

    assert [line for line in screen(received[0]) if line] == ["logged 0", "said 1", "logged 2", "said 3"]


def test_a_bar_is_redrawn_at_most_ten_times_a_second(monkeypatch) -> None:
    with terminal(monkeypatch) as received:
        monkeypatch.setattr(progress, "REDRAW_S", 0.1)
        ticks = Clock()
        monkeypatch.setattr(progress, "time", ticks)
        with Bar("training", total=20_000) as bar:
            for _ in range(20_000):  # in 2 s
                ticks.now += 1e-4
                bar.update()

    assert 15 <= received[0].count("training") <= 25


def pack(folder) -> None:
    source = Digits()
    rows = np.arange(300)
    Store(folder, "digits", key="digits", count=1797, resize=Resize(8, 1)).fill(source, rows)


def predict(folder) -> None:
    for i in range(200):
        Image.new("L", (8, 8), i).save(folder / f"{i:03d}.png")
    sum(len(batch) for batch in Unlabelled(folder, resize=Resize(8, 1), batch_size=32))


def compare(folder) -> None:
    for i in range(50):
        (folder / str(i)).mkdir()
        (folder / str(i) / "results.json").write_text('{"status": "completed"}', encoding="utf-8")
    find_runs([folder])


def fetch(folder) -> None:
    content = bytes(8_000_000)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        download([f"http://127.0.0.1:{server.server_port}/faces.tar"], folder / "faces.tar")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


WORK = [
    (pack, "packing", "300 of 300 img"),
    (predict, "predicting", "200 of 200 img"),
    (compare, "reading runs", "50 of 50 runs"),
    (fetch, "downloading faces.tar", "8.0 of 8.0 MB"),
]


@pytest.mark.parametrize(("work", "label", "end"), WORK)
def test_work_shows_a_bar_with_rate_and_remaining_time_in_a_terminal(tmp_path, monkeypatch, work, label, end) -> None:
    with terminal(monkeypatch) as received:
        work(tmp_path)

    assert re.search(rf"{label} 100%\|.*\| {re.escape(end)}  \S+ (img|runs|MB)/s  eta 0:00:00", received[0])
    assert screen(received[0]) == [""]


@pytest.mark.parametrize(("work", "label", "end"), WORK)
def test_work_writes_a_few_plain_lines_in_a_pipe(tmp_path, monkeypatch, work, label, end) -> None:
    with pipe(monkeypatch) as received:
        work(tmp_path)

    lines = received[0].splitlines()
    assert 1 <= len(lines) <= 11
    assert all(re.fullmatch(rf"{label}  \d+%  .* (img|runs|MB)/s  eta \d+:\d\d:\d\d", line) for line in lines)
    assert "\r" not in received[0]


def train(compose_config, folder, *more: str) -> None:
    small = ("data=digits", "data.limit=200", "model.hidden=[8]", "trainer.accelerator=cpu", "logger=csv")
    fit(compose_config(*small, "trainer.max_epochs=2", "report=false", *more), folder / "run")


def test_training_shows_one_bar_of_all_epochs_and_bars_of_validation_and_test(
    tmp_path, monkeypatch, compose_config
) -> None:
    with terminal(monkeypatch) as received:
        train(compose_config, tmp_path)

    shown = received[0]
    assert re.search(r"epoch 2/2 100%\|.*\| 400 of 400 img  .*/s  eta 0:00:00", shown)
    assert re.search(r"validating 100%\|.*\| 180 of 180 img", shown)
    assert re.search(r"testing 100%\|.*\| 180 of 180 img", shown)
    assert screen(shown)[-1] == ""
    assert not [line for line in screen(shown) if "%|" in line]


def test_training_without_progress_shows_no_bar(tmp_path, monkeypatch, compose_config) -> None:
    with terminal(monkeypatch) as received:
        train(compose_config, tmp_path, "callbacks.progress=null")

    assert "epoch" not in received[0]
    assert "validating" not in received[0]


def test_a_page_link_is_a_url_of_an_absolute_path(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    link = page_link(tmp_path.relative_to(tmp_path) / "あ b" / "index.html")

    assert link == f"file://{tmp_path}/%E3%81%82%20b/index.html"
