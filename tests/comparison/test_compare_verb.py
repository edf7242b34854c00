"""Output and exit code of `python -m agebench.compare`."""

import json
import subprocess
import sys

import numpy as np
import pytest

from agebench.compare import main
from agebench.files import write_csv

TARGETS = np.array((20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 20, 21))


@pytest.fixture
def verb(monkeypatch, capsys):
    """Return a function that runs the command in this process and returns exit code, stdout and stderr."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def runs(make_run, tmp_path):
    """Return a folder with two runs of one protocol and one run of another protocol."""
    make_run("runs/a", points=TARGETS + 2)
    make_run("runs/b", points=TARGETS + 1, head="coral")
    make_run("runs/c", points=TARGETS + 1, protocol="demo/random/age", split_sha="eeee")
    return tmp_path / "runs"


def test_tables_go_to_stdout_and_the_reason_for_several_tables_to_stderr(verb, runs) -> None:
    code, out, err = verb(runs)

    assert code == 0
    assert out.count("\n| rank | ") == 2
    assert err.startswith("these runs are not comparable: ")
    assert err.count("\n") == 1


def test_machine_readable_formats_have_notes_only_on_stderr(verb, runs, make_run) -> None:
    make_run("runs/d", seed=1, status="failed")

    code, out, err = verb(runs / "a", runs / "b", runs / "d", "--format", "json", "--metric", "cs5")

    assert code == 0
    assert json.loads(out)["tables"][0]["metric"] == "test/cs5"
    few = "95% intervals over only 4 people hold less often than 95% of the time: see docs/heads.md"
    single, failed = "n < 3: intervals and p-values describe these trained models", f"not ranked: failed: {runs}/d"
    assert [line[: len(each)] for line, each in zip(err.splitlines(), (few, single, failed), strict=True)] == [
        few,
        single,
        failed,
    ]


def test_several_formats_and_pictures_are_written_to_a_folder(verb, runs, tmp_path) -> None:
    code, out, err = verb(runs, "--format", "md,csv,html,json,latex", "--output", tmp_path / "new" / "out")

    written = {path.name for path in (tmp_path / "new" / "out").iterdir()}
    assert (code, out) == (0, "")
    assert {f"compare.{suffix}" for suffix in ("md", "csv", "html", "json", "tex")} <= written
    assert {"ranking.png", "curves.png"} <= written
    assert "data:image/png" in (tmp_path / "new" / "out" / "compare.html").read_text(encoding="utf-8")
    assert (tmp_path / "new" / "out" / "compare.md").read_text().startswith("these runs are not comparable")
    assert f"written: {tmp_path / 'new' / 'out' / 'compare.md'}" in err


def test_plot_writes_only_figures_and_still_prints_the_table(verb, runs, tmp_path) -> None:
    code, out, _ = verb(runs, "--plot", tmp_path / "figures")

    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert code == 0
    assert "| rank | " in out
    assert {"ranking.png", "curves.png"} <= written
    assert {name.rpartition(".")[2] for name in written} == {"png"}


def test_a_table_of_one_row_has_no_ranking(verb, make_run, tmp_path) -> None:
    make_run("runs/a", points=TARGETS + 2)

    verb(tmp_path / "runs", "--plot", tmp_path / "figures")

    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["curves.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (
            ["run=nowhere"],
            "there is no folder run=nowhere: give folders that train, a sweep or evaluate wrote, without run=",
        ),
        (["."], "there is no run in or below ."),
        ([".", "--format", "mdd"], "--format 'mdd' does not exist (did you mean 'md'?)"),
        ([".", "--format", ","], "--format needs one or more of md, csv, html, json, latex"),
        ([".", "--format", "md,csv"], "makes several files: add --output FOLDER"),
        ([], "arguments are required: FOLDER"),
    ],
)
def test_user_errors_have_one_sentence_and_exit_code_2(verb, tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)

    code, out, err = verb(*arguments)

    assert (code, out) == (2, "")
    assert message in err


def test_an_unknown_metric_and_an_unwritable_folder_are_user_errors(verb, runs, tmp_path) -> None:
    (tmp_path / "file").write_text("")

    assert "did you mean 'mae'" in verb(runs, "--metric", "maes")[2]
    assert "choose another --output" in verb(runs, "--output", tmp_path / "file")[2]


def test_piped_output_is_utf8_in_any_locale(runs) -> None:
    line = [sys.executable, "-X", "utf8=0", "-m", "agebench.compare", str(runs / "a")]

    out = subprocess.run(line, capture_output=True, check=True, env={"PYTHONIOENCODING": "ascii"}).stdout

    assert "mae (years) ↓" in out.decode("utf-8")


def test_comparing_imports_neither_torch_nor_matplotlib() -> None:
    code = "import sys, agebench.compare, agebench.comparison.render, agebench.comparison.sweep; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "agebench.comparison.tables" in loaded
    heavy = {"torch", "lightning", "timm", "matplotlib", "sklearn", "scipy", "hydra", "omegaconf"}
    assert heavy & {name.partition(".")[0] for name in loaded} == set()


@pytest.mark.parametrize("line", [[], ["x", "--nope"], ["x", "--metric"]])
def test_wrong_arguments_are_one_sentence_as_in_other_commands(verb, line) -> None:
    code, out, err = verb(*line)

    assert (code, out) == (2, "")
    assert err.startswith("agebench compare: ")
    assert err.endswith("; --help describes the arguments\n")
    assert err.count("\n") == 1


def test_evaluations_of_runs_in_the_same_folder_are_compared_if_they_are_named(verb, runs, make_run) -> None:
    make_run("runs/a/evaluate/now", points=TARGETS + 3, run=str(runs / "a"), split_sha="other")
    make_run("elsewhere", points=TARGETS + 3, run=str(runs / "a"), split_sha="other")

    def folders(*arguments) -> list[str]:
        tables = json.loads(verb(*arguments, "--format", "json")[1])["tables"]
        return sorted(
            each.rpartition("/")[2] for table in tables for group in table["groups"] for each in group["folders"]
        )

    assert folders(runs) == ["a", "b", "c"]
    assert verb(runs)[2].startswith("1 evaluation of these runs left out: name the folder, or add --evaluations\n")
    assert folders(runs, "--evaluations") == ["a", "b", "c", "now"]
    assert folders(runs / "a" / "evaluate", runs / "b") == ["b", "now"]
    assert folders(runs, runs.parent / "elsewhere") == ["a", "b", "c", "elsewhere"]


def test_an_evaluation_that_was_moved_with_its_run_is_left_out(verb, runs, make_run) -> None:
    make_run("runs/a/evaluate/now", points=TARGETS + 3, run="outputs/gone", split_sha="other")

    assert "1 evaluation of these runs left out" in verb(runs)[2]


def test_the_groups_of_an_evaluation_that_is_left_out_are_used(verb, make_run, tmp_path) -> None:
    facts = {"targets": [20, 21, 22] * 20, "people": [""] * 60}
    make_run("runs/a", points=[21.0] * 60, **facts)
    folder = make_run("runs/a/evaluate/now", points=[21.0] * 60, run=str(tmp_path / "runs/a"), **facts)
    write_csv(folder / "groups.csv", ("name", "sex"), [(f"{i}.jpg", "f" if i < 30 else "m") for i in range(60)])

    for option in ("--by", "--gaps"):
        code, out, _ = verb(tmp_path / "runs", option, "sex")

        assert code == 0
        assert ("sex = f: 30 test images" if option == "--by" else "gap by sex") in out
