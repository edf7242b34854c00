"""Models that were trained elsewhere in a table of runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agebench.comparison.render import to_csv, to_markdown
from agebench.comparison.tables import Comparison, compare
from agebench.runs.read import find_runs

TARGETS = np.array([20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 20, 21], dtype=np.float64)


@pytest.fixture
def score_run(make_run):
    """Return a function that writes the folder of a scored file."""

    def make(name: str, *, points: Any, sha: str = "f1", matched: int = 12, **results: Any) -> Path:
        about = {"name": name, "sha": sha, "matched": matched, "test_images": 12}
        unknown = dict.fromkeys(("seed", "data_sha", "params", "epochs", "timing", "device", "threads", "git"))
        return make_run(results.pop("folder", name), points=points, scored=about, **unknown, **results)

    return make


def compared(folder: Path) -> Comparison:
    return compare(find_runs([folder]))


def test_a_scored_file_is_ranked_and_paired_with_runs_and_its_name_is_shown(make_run, score_run, tmp_path) -> None:
    make_run("own", points=TARGETS + 2)
    score_run("MiVOLO", points=TARGETS + 1)

    (table,) = compared(tmp_path).tables

    assert [(row.rank, row.group.params) for row in table.rows] == [
        (1, {"name": "MiVOLO"}),
        (2, {"name": "convnext_atto-softmax"}),
    ]
    assert table.rows[1].difference is not None
    assert table.rows[1].difference.value == pytest.approx(1)


def test_a_note_says_what_is_unknown(make_run, score_run, tmp_path) -> None:
    make_run("own", points=TARGETS + 2)
    score_run("MiVOLO", points=TARGETS + 1)

    (table,) = compared(tmp_path).tables

    expected = (
        "MiVOLO was trained elsewhere: its parameters, epochs, seed and training images, and so a leak, are unknown"
    )
    assert expected in table.notes


def test_parameters_of_runs_have_no_value_for_a_scored_file(make_run, score_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 2, head="coral")
    make_run("b", points=TARGETS + 3, head="softmax")
    score_run("MiVOLO", points=TARGETS + 1)

    (table,) = compared(tmp_path).tables

    assert table.parameters == ("name", "head")
    assert [tuple(row.group.params.values()) for row in table.rows] == [
        ("MiVOLO", None),
        (None, "coral"),
        (None, "softmax"),
    ]


def test_the_same_file_scored_twice_counts_once_and_another_file_is_another_row(score_run, tmp_path) -> None:
    score_run("MiVOLO", points=TARGETS + 1, folder="first")
    score_run("MiVOLO", points=TARGETS + 1, folder="again", age=1)
    score_run("MiVOLO", points=TARGETS + 2, folder="other", sha="f2")

    (table,) = compared(tmp_path).tables

    assert [[run.folder.name for run in row.group.runs] for row in table.rows] == [["again"], ["other"]]


def test_an_incomplete_file_has_its_own_table_with_a_note(make_run, score_run, tmp_path) -> None:
    make_run("own", points=TARGETS + 2)
    score_run("MiVOLO", points=TARGETS + 1, matched=10, split_sha="other")

    found = compared(tmp_path)

    assert "on different test images" in found.not_comparable
    first, second = found.tables
    assert [len(table.rows) for table in (first, second)] == [1, 1]
    (note,) = [note for note in [*first.notes, *second.notes] if "incomplete" in note]
    assert note.startswith("MiVOLO is incomplete: it has predictions for 10 of the 12 test images, and is not ranked")


def test_an_unknown_seed_is_empty_in_csv_and_unknown_costs_are_a_dash(score_run, make_run, tmp_path) -> None:
    make_run("own", points=TARGETS + 2, seed=7)
    score_run("MiVOLO", points=TARGETS + 1)

    found = compared(tmp_path)

    header, scored, own = (line.split(",") for line in to_csv(found).splitlines())
    assert (scored[header.index("seeds")], own[header.index("seeds")]) == ("", "7")
    row = next(line for line in to_markdown(found).splitlines() if "MiVOLO" in line)
    assert [cell.strip() for cell in row.split("|")][-4:-1] == ["-", "-", "-"]  # epochs, fit, parameters


def test_runs_without_the_main_metric_are_ranked_by_mae(score_run, tmp_path) -> None:
    metrics = {"test/mae": 1.0, "test/bias": 1.0}
    score_run("MiVOLO", points=TARGETS + 1, protocol="demo/official/decade", metrics=metrics)

    (table,) = compared(tmp_path).tables

    assert (table.metric, table.rows[0].rank) == ("test/mae", 1)
