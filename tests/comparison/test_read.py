"""Runs are found and read, also from incomplete or invalid folders."""

import json
from pathlib import Path

import pytest
import yaml

from agebench.errors import UserError
from agebench.runs.read import find_runs, points_of, read_run


def test_each_run_is_found_once_at_any_depth(make_run, tmp_path) -> None:
    make_run("sweeps/one/seed-0")
    make_run("sweeps/one/seed-1", seed=1)
    make_run("single")

    found = find_runs([tmp_path, tmp_path / "sweeps"])

    assert [run.folder.name for run in found] == ["single", "seed-0", "seed-1"]
    assert [run.seed for run in found] == [0, 0, 1]
    assert {run.status for run in found} == {"completed"}


def test_a_missing_folder_or_one_without_runs_raises_an_error(tmp_path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*nowhere: "):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="there is no run in or below "):
        find_runs([tmp_path])


def test_curves_of_seed_means_among_the_runs_of_a_pattern_are_skipped(make_run, tmp_path) -> None:
    make_run("sweep/mlp-0a1b2c")
    (tmp_path / "sweep" / "mlp (mean of 2)").mkdir()

    found = find_runs(sorted(tmp_path.glob("sweep/*mlp*")))

    assert [run.folder.name for run in found] == ["mlp-0a1b2c"]
    with pytest.raises(UserError, match="there is no run in or below "):
        find_runs([tmp_path / "sweep" / "mlp (mean of 2)"])


def test_keys_without_effect_do_not_change_the_identity_of_a_run(make_run) -> None:
    first = read_run(make_run("a"))
    second = read_run(make_run("b", seed=7, config={"data.num_workers": 4, "data.root": "/elsewhere", "report": True}))
    third = read_run(make_run("c", config={"callbacks.checkpoint.save_last": False}))
    other = read_run(make_run("d", config={"optim.lr": 0.1}))
    other_images = read_run(make_run("e", data_sha="9999"))

    assert first.same == second.same == third.same
    assert len({first.same, other.same, other_images.same}) == 3


@pytest.mark.parametrize("key", ["data.cachet", "reporter.depth", "seeds", "callbacks.checkpoint.verbosity"])
def test_a_key_whose_prefix_is_a_key_without_effect_changes_the_identity(make_run, key) -> None:
    first, second = (read_run(make_run(f"run{value}", config={key: value})) for value in (1, 2))

    assert first.same != second.same
    assert (first.config[key], second.config[key]) == (1, 2)


def test_the_root_of_a_folder_data_set_changes_the_identity(make_run) -> None:
    own = {"data.source._target_": "agebench.data.sources.Folder"}
    here, there = (read_run(make_run(path, config={**own, "data.root": f"/{path}"})) for path in ("here", "there"))

    assert here.same != there.same
    assert here.config["data.root"] == "/here"


def test_an_evaluation_inherits_the_config_of_its_run(make_run, tmp_path) -> None:
    trained = make_run("trained", head="coral", seed=3, typed=["optim.lr=0.001"])
    folder = trained / "evaluate" / "now"
    folder.mkdir(parents=True)
    results = {"status": "completed", "run": "nowhere/else", "checkpoint": "best.ckpt", "protocol": "demo/random/age"}
    (folder / "results.json").write_text(json.dumps({**results, "metrics": {"test/mae": 2.0}}))

    found = read_run(folder)

    assert found.evaluated == trained
    assert (found.seed, found.choices["head"], found.result("epochs")) == (3, "coral", 20)
    assert (found.result("protocol"), found.metrics) == ("demo/random/age", {"test/mae": 2.0})
    assert found.same == read_run(trained).same
    (folder / "results.json").write_text(json.dumps({**results, "checkpoint": "last.ckpt"}))
    assert read_run(folder).same != read_run(trained).same
    assert read_run(folder).config["checkpoint"] == "last.ckpt"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", "unreadable"),
        ("[1, 2]", "unreadable"),
        ('{"status": 3}', "unreadable"),
        ('{"status": "running"}', "crashed"),  # no process holds its lock
    ],
)
def test_invalid_results_have_the_status_unreadable(tmp_path, text, status) -> None:
    (tmp_path / "results.json").write_text(text)

    assert read_run(tmp_path).status == status


def test_invalid_files_and_values_are_ignored(tmp_path) -> None:
    (tmp_path / ".hydra").mkdir()
    for name, text in {"config": "a: [", "hydra": "- 1", "overrides": "5"}.items():
        (tmp_path / ".hydra" / f"{name}.yaml").write_text(text)
    metrics = {"test/mae": None, "test/loss": float("inf"), "test/cs5": "high", "test/accuracy": 1}
    (tmp_path / "results.json").write_text(json.dumps({"status": "completed", "metrics": metrics, "best": [1]}))

    found = read_run(tmp_path)

    assert found.metrics == {"test/mae": None, "test/loss": None, "test/accuracy": 1.0}
    assert found.result("best", "value") is None
    assert (found.config, found.choices, found.typed) == ({}, {}, frozenset())


def test_points_are_the_direct_subfolders_of_a_sweep_also_without_results(make_run, tmp_path) -> None:
    make_run("sweep/done")
    make_run("sweep/done/evaluate/later")
    (tmp_path / "sweep" / "pending" / ".hydra").mkdir(parents=True)
    (tmp_path / "sweep" / "notes").mkdir()
    (tmp_path / "sweep" / "pending" / ".hydra" / "config.yaml").write_text(yaml.safe_dump({"optim": {"lr": 1}}))

    found = points_of(tmp_path / "sweep")

    assert [(run.folder.name, run.status) for run in found] == [("done", "completed"), ("pending", "not started")]
    assert found[1].config == {"optim.lr": 1}
    assert isinstance(found[1].folder, Path)
