"""Written files and shown text: no cell is a formula, no text has control characters, no link is followed."""

import csv
import json
import logging
import os
import random
import re
from pathlib import Path

import pytest

from agebench.comparison.render import align
from agebench.files import LogFile, csv_text, guard_cell, open_log, plain_cell, read_csv, write_csv, write_json
from agebench.runs.predictions_csv import read_predictions
from agebench.text import VisibleFormatter, markdown, say, visible

MARKS = "=+-@\t\r\n'\",;|＝＋－＠ a1あ.e"


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1+1", "'=1"])
def test_a_text_that_a_spreadsheet_runs_begins_with_an_apostrophe(text: str) -> None:
    assert guard_cell(text) == "'" + text


@pytest.mark.parametrize("cell", [-1.5, -3, "-1.5", "+2", "-1e-05", "-inf", "a=b", "'tis", "", None, "猫"])
def test_numbers_and_plain_text_are_unchanged(cell: object) -> None:
    assert guard_cell(cell) == cell


def test_every_text_is_read_back_unchanged(tmp_path: Path) -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices(MARKS, k=draw.randint(0, 5))) for _ in range(2_000)]

    write_csv(tmp_path / "a.csv", ("name", "=label"), zip(texts, reversed(texts), strict=True))

    rows = read_csv(tmp_path / "a.csv")
    assert [row["name"] for row in rows] == texts
    assert [row["=label"] for row in rows] == texts[::-1]
    assert [plain_cell(guard_cell(text)) for text in texts] == texts


def test_no_cell_of_a_written_file_starts_a_formula(tmp_path: Path) -> None:
    draw = random.Random(1)
    texts = ["".join(draw.choices(MARKS, k=3)) for _ in range(500)]

    write_csv(tmp_path / "a.csv", ("name",), [(text,) for text in texts])

    with (tmp_path / "a.csv").open(newline="", encoding="utf-8-sig") as file:
        cells = [row[0] for row in csv.reader(file)]
    runs = [cell for cell in cells if cell[:1] in set("=+-@\t\r\n＝＋－＠") and not re.fullmatch(r"[+-][\d.]+", cell)]
    assert runs == []
    assert len(cells) == 501


def test_a_written_csv_starts_with_a_byte_order_mark(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ("name",), [("あ",)])

    assert (tmp_path / "a.csv").read_bytes() == b"\xef\xbb\xbfname\r\n\xe3\x81\x82\r\n"


def test_a_csv_for_a_pipe_has_no_mark_and_quotes_a_carriage_return() -> None:
    assert csv_text(("a", "b"), [("x\ry", None), ("=1", 2)]) == 'a,b\n"x\ry",\n\'=1,2\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_predictions_are_read_with_the_names_that_were_written(tmp_path: Path, encoding: str) -> None:
    names = ["=1.jpg", "a\u2028b.jpg", "'x.jpg"]
    lines = ["name,identity,target,point,p(0),p(1),protocol", *(f"{guard_cell(n)},@p,0,0,0.75,0.25,p" for n in names)]
    (tmp_path / "predictions.csv").write_text("\r\n".join(lines) + "\r\n", encoding=encoding, newline="")

    labels, leading, posterior = read_predictions(tmp_path / "predictions.csv", posterior=True)

    assert labels == ["0", "1"]
    assert [row[0] for row in leading] == names
    assert posterior.tolist() == [[0.75, 0.25]] * 3


@pytest.mark.parametrize(
    "name", ["a|b", "a\\|b", "`x`", "<img src=x>", "a\nb | c", "[x](http://y)", "&lt;", "*x*", "_x_"]
)
def test_a_markdown_table_shows_a_name_and_nothing_else(name: str) -> None:
    line = align(["name"], [[name]], [False]).splitlines()[2]

    cell = line.removeprefix("| ").removesuffix(" |")
    assert not re.search(r"(?<!\\)(\\\\)*[|`*]", cell)  # no mark without a backslash
    assert not re.search(r"(?<!\\)(<img|&lt;|_x)|\]\(", cell)
    assert re.sub(r"\\(.)", r"\1", cell) == name.replace("\n", " ")  # what Markdown shows


def test_ordinary_cells_of_a_markdown_table_are_unchanged() -> None:
    cells = ["1.50 ± 0.71 [0.50, 4.50]", "< 0.0002", "weight_decay", "あ", "lr=1e-3, a & b"]

    assert [markdown(cell) for cell in cells] == cells


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("\a", r"\x07"),
        ("a\rb", r"a\rb"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("\x9b31m", r"\x9b31m"),
        ("\udc80", r"\udc80"),
        ("猫\tb\nc", "猫\tb\nc"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 1, "%s", (text,), None)

    say(text)

    assert visible(text) == expected
    assert capsys.readouterr().err == expected + "\n"
    assert VisibleFormatter("%(message)s").format(record) == expected


def test_every_logger_of_the_commands_hides_control_characters() -> None:
    files = sorted((Path(__file__).parents[1] / "conf" / "hydra").glob("*_logging/*.yaml"))

    used = [line.split()[1] for file in files for line in file.read_text().splitlines() if "Formatter" in line]

    assert used == ["agebench.text.VisibleFormatter"] * 3  # console of the sweep; console and file of the job


def test_a_file_is_never_written_through_a_link(tmp_path: Path) -> None:
    theirs = tmp_path / "thesis.txt"
    theirs.write_text("mine")
    for name in ("results.json", "split.csv", "train.log", "console.log"):
        (tmp_path / name).symlink_to(theirs)

    write_json(tmp_path / "results.json", {"seed": 1})
    write_csv(tmp_path / "split.csv", ("name",), [("a",)])
    handler = LogFile(tmp_path / "train.log", delay=True)
    handler.emit(logging.LogRecord("x", logging.INFO, "", 1, "logged", (), None))
    handler.close()
    with os.fdopen(open_log(tmp_path / "console.log"), "w") as console:
        console.write("printed")

    assert theirs.read_text() == "mine"
    assert json.loads((tmp_path / "results.json").read_text()) == {"seed": 1}
    assert (tmp_path / "train.log").read_text() == "logged\n"
    assert (tmp_path / "console.log").read_text() == "printed"
