"""Groups of runs over seeds."""

import json

import pytest

from agebench.comparison.groups import Group, group_runs
from agebench.runs.read import read_run


def run_with(make_run, name: str, mae: float | None, **kwargs):
    return read_run(make_run(name, metrics={"test/mae": mae}, **kwargs))


def test_mean_and_standard_deviation_over_seeds(make_run) -> None:
    group = Group(tuple(run_with(make_run, f"s{i}", mae, seed=i) for i, mae in enumerate((4.0, 5.0, 9.0))), {})

    assert group.mean("test/mae") == 6.0
    assert group.std("test/mae") == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert group.interval("test/mae") is None


def test_a_single_seed_has_an_interval_and_no_standard_deviation(make_run) -> None:
    group = Group((run_with(make_run, "s", 4.0, intervals={"test/mae": [3.0, 5.5]}),), {})

    assert (group.std("test/mae"), group.interval("test/mae")) == (None, (3.0, 5.5))


def test_a_group_with_a_diverged_seed_has_no_mean(make_run) -> None:
    group = Group(tuple(run_with(make_run, f"s{i}", mae, seed=i) for i, mae in enumerate((4.0, None))), {})

    assert group.mean("test/mae") != group.mean("test/mae")
    assert group.diverged == 1


def test_a_decision_metric_that_is_undefined_is_no_divergence(make_run) -> None:
    metrics = {"test/mae": 4.0, "test/minor_precision_0.1": None}  # nobody is judged below the limit
    group = Group((read_run(make_run("s", metrics=metrics)),), {})

    assert group.diverged == 0


def test_only_the_newest_run_of_a_config_and_seed_counts(make_run) -> None:
    runs = [
        run_with(make_run, "new", 2.0, age=50),
        run_with(make_run, "old", 1.0, age=10),
        run_with(make_run, "other", 3.0, seed=1),
    ]

    groups, notes = group_runs(runs)

    assert [[run.folder.name for run in group] for group in groups] == [["new", "other"]]
    old = runs[1].folder
    assert notes == [f"1 run excluded: only the newest run of a config and seed counts ({old})"]


def test_at_most_three_excluded_runs_are_named(make_run) -> None:
    runs = [run_with(make_run, name, 1.0, age=9 - i) for i, name in enumerate(("new", "b", "c", "d", "e"))]

    _, (note,) = group_runs(runs)

    named = ", ".join(str(run.folder) for run in runs[1:4])
    assert note == f"4 runs excluded: only the newest run of a config and seed counts ({named}, ...)"


def test_an_evaluation_that_repeats_the_test_of_its_run_is_left_out(make_run) -> None:
    trained = make_run("trained", metrics={"test/mae": 2.0})
    again = trained / "evaluate" / "later"
    again.mkdir(parents=True)
    results = {"status": "completed", "run": str(trained), "checkpoint": "best.ckpt", "metrics": {"test/mae": 2.0}}
    (again / "results.json").write_text(json.dumps(results))

    groups, notes = group_runs([read_run(again), read_run(trained)])

    assert [[run.folder for run in group] for group in groups] == [[trained]]
    assert notes == ["1 evaluation excluded: it repeats the test of a run in the table"]


def test_seeds_may_be_null_or_text(make_run) -> None:
    folders = [make_run(name) for name in "abc"]
    for folder, seed in zip(folders, ("null", '"x"', "3"), strict=True):
        text = (folder / "results.json").read_text()
        (folder / "results.json").write_text(text.replace('"seed": 0', f'"seed": {seed}', 1))

    groups, notes = group_runs([read_run(folder) for folder in folders])

    assert {run.seed for run in groups[0]} == {None, "x", 3}
    assert notes == []
