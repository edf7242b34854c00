"""The runs of the k folds of a split as one run. Expected values come from scikit-learn, over all predictions."""

import csv
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, log_loss, mean_absolute_error

from agebench.comparison import render
from agebench.comparison.by_group import by_group
from agebench.comparison.decisions import at_age_limit
from agebench.comparison.folds import pool_folds
from agebench.comparison.groups import Group
from agebench.comparison.sweep import write_sweep
from agebench.comparison.tables import compare
from agebench.files import write_csv
from agebench.runs.read import find_runs, read_run

K, SIZES = 3, (15, 18, 12)  # images of each fold, three of each person
IMAGES = sum(SIZES)
TARGETS = 20 + np.arange(IMAGES) * 7 % 10
PEOPLE = np.array([f"p{i // 3:02d}" for i in range(IMAGES)])
NAMES = np.array([f"{i:02d}.jpg" for i in range(IMAGES)])
ROWS = np.split(np.arange(IMAGES), np.cumsum(SIZES)[:-1])


def estimates(seed: int) -> np.ndarray:
    """Return estimates whose errors depend on the person."""
    rng = np.random.default_rng(seed)
    person = rng.normal(0, 2, IMAGES // 3).repeat(3)
    return np.clip(TARGETS + person + rng.normal(0, 1, IMAGES), 20, 29).round(3)


@pytest.fixture
def make_fold(make_run):
    """Return a function that writes the run of one fold."""

    def make(name: str, fold: int, points: np.ndarray, *, rows: np.ndarray | None = None, **changes: Any) -> Path:
        chosen = ROWS[fold] if rows is None else rows
        split = {"_target_": "agebench.data.split.kfold", "seed": 0, "k": K, "fold": fold}
        config = {f"data.split.{key}": value for key, value in split.items()} | changes.pop("config", {})
        given = {
            "points": points[chosen],
            "targets": TARGETS[chosen],
            "people": PEOPLE[chosen],
            "names": NAMES[chosen].tolist(),
            "protocol": f"demo/kfold{K}-{fold}/age",
            "split_sha": f"sha of fold {fold}",
            "data_sha": f"data of fold {fold}",
            "data": {"train": IMAGES - len(chosen) - 5, "val": 5, "test": len(chosen), "val_is_test": False},
            "choices": {"data/split": "kfold"},
            "typed": [f"data.split.fold={fold}"],
        }
        return make_run(name, config=config, **{**given, **changes})

    return make


@pytest.fixture
def make_folds(make_fold):
    """Return a function that writes all folds of a config and a seed."""

    def make(name: str, points: np.ndarray, **changes: Any) -> None:
        for fold in range(K):
            make_fold(f"runs/{name}-{fold}", fold, points, **changes)

    return make


@pytest.mark.parametrize(("seeds", "names"), [((4,), ["fold {}"]), ((0, 1), ["seed 0, fold {}", "seed 1, fold {}"])])
def test_the_page_links_each_fold(make_folds, tmp_path, seeds, names) -> None:
    for seed in seeds:
        make_folds(f"a-{seed}", estimates(seed), seed=seed)
        for fold in range(K):
            (tmp_path / f"runs/a-{seed}-{fold}" / "report").mkdir()
            (tmp_path / f"runs/a-{seed}-{fold}" / "report" / "index.html").touch()

    page = render.to_html(compare(pool_folds(find_runs([tmp_path]))[0]), folder=tmp_path)

    links = dict(re.findall(r'href="([^"]*)">((?:seed|fold) [^<]*)<', page))
    expected = {
        f"runs/a-{seed}-{fold}/report/index.html": name.format(fold)
        for seed, name in zip(seeds, names, strict=True)
        for fold in range(K)
    }
    assert links == expected


def test_the_metrics_of_pooled_folds_are_those_of_all_predictions(make_folds, tmp_path) -> None:
    make_folds("a", estimates(0))

    (run,), notes = pool_folds(find_runs([tmp_path]))

    rows = [row for i in range(K) for row in csv.DictReader((tmp_path / f"runs/a-{i}/predictions.csv").open())]
    target, point = (np.array([float(row[name]) for row in rows]) for name in ("target", "point"))
    posterior = np.array([[float(row[f"p({label})"]) for label in range(20, 30)] for row in rows])
    likely = 20 + posterior.argmax(1)
    assert notes == []
    assert len(rows) == IMAGES
    assert run.result("protocol") == "demo/kfold3/age"
    assert run.result("data", "test") == IMAGES
    assert run.result("split_sha") == hashlib.sha256("\n".join(NAMES).encode()).hexdigest()[:16]
    expected = {
        "mae": mean_absolute_error(target, point),
        "accuracy": accuracy_score(target, likely),
        "nll": log_loss(target, posterior, labels=range(20, 30)),
        "qwk": cohen_kappa_score(target, likely, weights="quadratic"),
        "median_error": np.median(np.abs(target - point)),
    }
    assert {name: run.metrics[f"test/{name}"] for name in expected} == pytest.approx(expected)
    assert "test/loss" not in run.metrics


def test_the_interval_resamples_all_people(make_folds, tmp_path) -> None:
    make_folds("a", estimates(0))

    (run,), _ = pool_folds(find_runs([tmp_path]))

    errors = np.abs(estimates(0) - TARGETS).reshape(-1, 3).mean(1)  # of each person, who all have three images
    rng = np.random.default_rng(1)
    means = errors[rng.integers(0, len(errors), (20_000, len(errors)))].mean(1)
    low, high = run.result("intervals", "test/mae")
    people = IMAGES // 3
    assert run.result("bootstrap", "over") == "identity"
    assert run.result("bootstrap", "groups") == people
    # The expanded percentile interval of 15 people has the quantiles 1.3% and 98.7%.
    assert [low, high] == pytest.approx(np.quantile(means, [0.0133, 0.9867]), abs=0.03)


def test_pooled_folds_took_the_time_of_all_and_were_written_with_the_newest(make_fold, tmp_path) -> None:
    for fold, age in enumerate((30, 50, 10)):
        make_fold(f"runs/{fold}", fold, estimates(0), age=age)

    (run,), _ = pool_folds(find_runs([tmp_path]))

    assert run.result("timing", "fit_s") == pytest.approx(3 * 60.4)
    assert run.written == (tmp_path / "runs/1/results.json").stat().st_mtime


def test_two_pooled_groups_have_a_paired_difference_by_person(make_folds, tmp_path) -> None:
    make_folds("good", estimates(0))
    make_folds("bad", estimates(1) + 1.5, head="coral")

    pooled, _ = pool_folds(find_runs([tmp_path]))
    (table,) = compare(pooled).tables

    errors = [np.abs(points - TARGETS) for points in (estimates(0), estimates(1) + 1.5)]
    difference = table.rows[1].difference
    assert table.parameters == ("head",)
    assert difference is not None
    assert difference.value == pytest.approx((errors[1] - errors[0]).mean())
    assert table.paired is not None
    assert (table.paired.over, table.paired.drawn) == ("people", IMAGES // 3)


def test_each_seed_is_pooled_and_each_fold_has_a_figure_beside_it(make_folds, tmp_path) -> None:
    make_folds("a", estimates(0))
    make_folds("b", estimates(1), seed=1)

    compared = compare(pool_folds(find_runs([tmp_path]))[0])

    errors = np.array([np.abs(estimates(seed) - TARGETS) for seed in (0, 1)])
    expected = [errors[:, rows].mean() for rows in ROWS]
    (group,) = (row.group for row in compared.tables[0].rows)
    assert len(group.runs) == 2
    assert group.mean("test/mae") == pytest.approx(errors.mean())
    assert group.by_fold("test/mae") == pytest.approx(expected)
    assert "folds 0 to 2" in render.to_markdown(compared)
    assert " ".join(f"{value:.2f}" for value in expected) in render.to_markdown(compared)
    (row,) = csv.DictReader(render.to_csv(compared).splitlines())
    assert [float(value) for value in row["by_fold"].split()] == pytest.approx(expected)
    (told,) = json.loads(render.to_json(compared))["tables"][0]["groups"]
    assert told["metrics"]["test/mae"]["by_fold"] == pytest.approx(expected)
    assert len(told["folders"]) == 2 * K


def test_the_baseline_of_a_pool_uses_the_train_part_of_each_fold(make_folds, tmp_path) -> None:
    make_folds("a", estimates(0))
    for fold in range(K):
        train = [(f"t{i}", "train", "", 20 + fold) for i in range(3)]
        write_csv(tmp_path / f"runs/a-{fold}/split.csv", ("name", "part", "identity", "target"), train)

    (table,) = compare(pool_folds(find_runs([tmp_path]))[0]).tables

    guesses = np.repeat([20, 21, 22], SIZES)
    assert table.baselines[0].metrics == {"test/mae": pytest.approx(np.abs(TARGETS - guesses).mean())}


def test_a_missing_and_a_failed_fold_are_named_and_nothing_is_pooled(make_fold, make_folds, tmp_path) -> None:
    make_folds("whole", estimates(0), head="coral")
    make_fold("runs/first", 0, estimates(0))
    make_fold("runs/failed", 1, estimates(0), status="failed", metrics={})

    found, notes = pool_folds(find_runs([tmp_path]))

    assert notes == ["folds not pooled: softmax: 1 of 3 folds are completed; needed: 1 (failed), 2 (missing)"]
    assert [(run.folder.name, len(run.folds)) for run in found] == [("failed", 0), ("first", 0), ("whole-0", 3)]
    assert [table.protocol for table in compare(found).tables] == ["demo/kfold3-0/age", "demo/kfold3/age"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metrics": {"test/mae": None}}, "fold 2 diverged (null metrics)"),
        ({"metrics": {"test/mae": 99.0}}, "the predictions.csv of last does not match its results.json"),
        ({"leak": {"images": 3}}, "fold 2 was tested on people or images of its train part"),
        ({"rows": np.arange(25, 37)}, "two folds test the same image, such as 25.jpg, because the data has changed"),
        (
            {"data": {"train": 20, "val": 5, "test": 12}},
            "the folds test 45 images, and the data of each fold has 37 or 45",
        ),
        (
            {"data": {"train": float("nan"), "val": [], "test": 12}},
            "the folds test 45 images, and the data of each fold",
        ),
        (
            {"config": {"data.split.seed": 1}},
            "2 of 3 folds are completed; needed: 2 (missing)",  # fold 2 of another seed of the split
        ),
    ],
)
def test_folds_that_do_not_fit_together_are_not_pooled(make_fold, tmp_path, changes, reason) -> None:
    for fold in (0, 1):
        make_fold(f"runs/{fold}", fold, estimates(0))
    make_fold("runs/last", 2, estimates(0), **changes)

    found, notes = pool_folds(find_runs([tmp_path]))

    assert f": {reason}" in notes[0]
    assert not any(run.folds for run in found)
    assert len(found) == 3


@pytest.mark.parametrize("decision", [{"age_limit": 50}, {"age_limit": "x"}, {"age_limit": 25, "challenge_ages": 3}])
def test_folds_with_an_impossible_age_limit_are_not_pooled(make_folds, tmp_path, decision) -> None:
    make_folds("a", estimates(0), decision=decision)

    found, notes = pool_folds(find_runs([tmp_path]))

    assert "the age limit in a-0 cannot be used" in notes[0]
    assert len(found) == 3


def test_folds_with_other_labels_are_not_pooled(make_folds, tmp_path) -> None:
    make_folds("a", estimates(0))
    path = tmp_path / "runs/a-1/predictions.csv"
    path.write_text(path.read_text().replace("p(28),p(29)", "p(29),p(28)"))

    found, notes = pool_folds(find_runs([tmp_path]))

    different = "the models of its folds have different labels, because the data has changed"
    assert notes == [f"folds not pooled: convnext_atto-softmax: {different}"]
    assert len(found) == 3


def test_only_the_newest_run_of_a_fold_counts(make_fold, make_folds, tmp_path) -> None:
    make_folds("a", estimates(0))
    make_fold("runs/again", 1, estimates(2), age=1)

    (run,), notes = pool_folds(find_runs([tmp_path]))

    points = estimates(0)
    points[ROWS[1]] = estimates(2)[ROWS[1]]
    assert run.metrics["test/mae"] == pytest.approx(mean_absolute_error(TARGETS, points))
    (note,) = notes
    assert note.startswith("1 run excluded: only the newest run of a config and seed counts (")
    assert note.endswith("1)")


def test_two_runs_of_a_fold_on_different_data_are_not_pooled(make_fold, make_folds, tmp_path) -> None:
    make_folds("a", estimates(0))
    make_fold("runs/b", 1, estimates(0), data_sha="other data")

    found, notes = pool_folds(find_runs([tmp_path]))

    assert len(found) == 4
    assert "fold 1 was run on different data" in notes[0]
    assert "runs/a-1 and " in notes[0]


def test_a_fold_that_was_tested_on_another_fold_is_no_part_of_a_pool(make_folds, make_fold, tmp_path) -> None:
    for fold in (0, 1):
        make_fold(f"runs/{fold}", fold, estimates(0))
    make_fold("runs/1/evaluate/now", 2, estimates(0), run=str(tmp_path / "runs/1"))

    found, notes = pool_folds(find_runs([tmp_path]))

    assert not any(run.folds for run in found)
    assert notes[0].endswith("2 of 3 folds are completed; needed: 2 (missing)")


def test_an_incomplete_set_of_evaluations_repeats_the_pooled_runs(make_folds, make_fold, tmp_path) -> None:
    make_folds("a", estimates(0))
    make_fold("runs/a-1/evaluate/now", 1, estimates(0), run=str(tmp_path / "runs/a-1"))

    found, notes = pool_folds(find_runs([tmp_path]))

    assert len(found) == 1
    assert notes == ["1 evaluation excluded: the tests of pooled runs are repeated"]


def test_runs_without_folds_are_unchanged(make_run, tmp_path) -> None:
    make_run("runs/a", points=TARGETS[:12])

    runs = find_runs([tmp_path])

    assert pool_folds(runs) == (runs, [])


def test_decisions_at_an_age_limit_are_those_of_the_pool(make_folds, tmp_path) -> None:
    make_folds("a", estimates(0))

    (run,), _ = at_age_limit(pool_folds(find_runs([tmp_path]))[0], 25)

    judged, minors = estimates(0) >= 25, TARGETS < 25
    assert run.metrics["test/false_adult_rate"] == pytest.approx(judged[minors].mean())
    assert Group((run,), {}).by_fold("test/false_adult_rate") == pytest.approx(
        [judged[rows][minors[rows]].mean() for rows in ROWS]
    )


def test_an_age_limit_of_all_folds_is_that_of_the_pool(make_folds, tmp_path) -> None:
    make_folds("a", estimates(0), decision={"age_limit": 25.0, "challenge_ages": [25.0, 28.0]})

    (run,), _ = pool_folds(find_runs([tmp_path]))

    judged, minors = estimates(0) >= 28, TARGETS < 25
    assert run.metrics["test/false_adult_rate_at_28"] == pytest.approx(judged[minors].mean())


def test_folds_with_different_age_limits_have_no_decisions(make_fold, tmp_path) -> None:
    for fold, limit in enumerate((25.0, 25.0, 28.0)):
        make_fold(f"runs/{fold}", fold, estimates(0), decision={"age_limit": limit, "challenge_ages": [limit]})

    (run,), notes = pool_folds(find_runs([tmp_path]))

    assert notes == []
    assert run.result("decision") is None
    assert not [name for name in run.metrics if "adult" in name or "minor" in name]


def test_the_calibration_of_each_fold_is_applied_to_its_images(make_folds, tmp_path) -> None:
    make_folds("a", estimates(0).round())
    fitted = {"coverage": 0.9, "temperature": 1, "over": "identity", "groups": 9, "images": 9, "nll": [1, 1]}
    # The set has all labels with a threshold of 0. In fold 1 it has one: the estimate, which is the most likely label.
    runs = [
        replace(run, results={**run.results, "calibration": {**fitted, "threshold": threshold}})
        for run, threshold in zip(find_runs([tmp_path]), (0, 0.47, 0), strict=True)
    ]

    (run,), notes = pool_folds(runs)

    right = estimates(0).round() == TARGETS
    covered = np.concatenate([right[rows] if fold == 1 else np.ones(len(rows)) for fold, rows in enumerate(ROWS)])
    assert notes == []
    assert run.metrics["test/coverage"] == pytest.approx(covered.mean())
    assert run.metrics["test/range_width"] == pytest.approx(9 * (IMAGES - SIZES[1]) / IMAGES)


def test_a_pool_is_ranked_within_groups_of_its_images(make_folds, tmp_path, monkeypatch) -> None:
    make_folds("a", estimates(0))
    monkeypatch.setattr("agebench.comparison.by_group.LEAST", 5)
    sex = np.where(np.arange(IMAGES) // 3 % 2, "f", "m")
    for fold, rows in enumerate(ROWS):
        write_csv(tmp_path / f"runs/a-{fold}/groups.csv", ("name", "sex"), zip(NAMES[rows], sex[rows], strict=True))

    runs, _ = by_group(pool_folds(find_runs([tmp_path]))[0], ["sex"])
    compared = compare(runs)

    errors = np.abs(estimates(0) - TARGETS)
    assert {table.group: table.rows[0].group.mean("test/mae") for table in compared.tables} == pytest.approx(
        {f"sex = {name}": errors[sex == name].mean() for name in "fm"}
    )
    assert "folds 0 to" not in render.to_markdown(compared)  # the metrics of a fold are those of all its images


def test_the_summary_of_a_sweep_pools_its_folds(make_folds, make_fold, tmp_path) -> None:
    make_folds("a", estimates(0))
    make_fold("runs/b-0", 0, estimates(0), head="coral")

    write_sweep(tmp_path / "runs")

    text = (tmp_path / "runs/sweep.md").read_text(encoding="utf-8")
    assert "## demo/kfold3/age: 45 test images of 15 people" in text
    assert "- folds not pooled: coral: 1 of 3 folds are completed; needed: 1 (missing), 2 (missing)" in text
    assert text.count("| a-") == K  # each point has a row


def test_folds_by_image_keep_their_name(make_fold, tmp_path) -> None:
    for fold in range(K):
        protocol = f"digits/kfold-by-image3-{fold}-limit20/age"
        make_fold(f"runs/{fold}", fold, estimates(0), protocol=protocol, people=[""] * SIZES[fold])

    (run,), _ = pool_folds([read_run(tmp_path / f"runs/{fold}") for fold in range(K)])

    assert run.result("protocol") == "digits/kfold-by-image3-limit20/age"
    assert run.result("bootstrap", "over") == "image"
    assert run.result("bootstrap", "groups") == IMAGES
