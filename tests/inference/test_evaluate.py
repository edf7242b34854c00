"""Evaluation of a finished run, whose own test was limited to one batch of the digits."""

import csv
import json
import logging
import shutil
from pathlib import Path

import pytest

from agebench.errors import UserError
from agebench.inference.evaluate import evaluate_run
from agebench.training.fit import fit

BASE = (
    "data=digits",
    "data.eval_batch_size=50",
    "model.hidden=[16]",
    "trainer.max_epochs=1",
    "trainer.limit_test_batches=1",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
    "report=false",
)


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def trained_run(compose_config, tmp_path_factory) -> Path:
    """Return the read-only folder of a finished run."""
    folder = tmp_path_factory.mktemp("retest") / "run"
    fit(compose_config(*BASE), folder)
    return folder


@pytest.fixture
def evaluate(compose_config, tmp_path):
    """Return a function that tests a run again and returns the folder of the results."""

    def start(run_dir: Path, *overrides: str) -> Path:
        evaluate_run(
            compose_config(f"run={run_dir}", "accelerator=cpu", *overrides, name="evaluate"), tmp_path / "again"
        )
        return tmp_path / "again"

    return start


def test_the_runs_own_data_is_tested_with_the_runs_limit_of_test_batches(trained_run, evaluate) -> None:
    again = evaluate(trained_run)

    assert len(rows(again / "predictions.csv")) == 45  # the first of 4 equal batches of 180 images
    assert (again / "predictions.csv").read_bytes() == (trained_run / "predictions.csv").read_bytes()
    assert results(again)["metrics"] == results(trained_run)["metrics"]
    assert results(again)["split_sha"] == results(trained_run)["split_sha"]


def test_a_run_on_some_images_is_tested_on_them_under_its_protocol(compose_config, evaluate, tmp_path) -> None:
    fit(compose_config(*BASE, "data.limit=400"), tmp_path / "run")

    again = evaluate(tmp_path / "run")

    assert results(again)["protocol"] == results(tmp_path / "run")["protocol"]
    assert (again / "predictions.csv").read_bytes() == (tmp_path / "run" / "predictions.csv").read_bytes()


def test_another_data_set_is_tested_without_the_runs_limit_of_test_batches(trained_run, evaluate, caplog) -> None:
    with caplog.at_level(logging.INFO):
        again = evaluate(trained_run, "data=digits", "data.name=other", "data.eval_batch_size=50")

    tested = {row["name"] for row in rows(again / "split.csv") if row["part"] == "test"}
    assert len(tested) == 180
    assert {row["name"] for row in rows(again / "predictions.csv")} == tested
    part = "testing 180 of 1,797 images of data=other: those in the test part of data/split=random; "
    part += "data/split=test_only tests all of them"
    assert [record.getMessage() == part for record in caplog.records].count(True) == 1


def test_test_only_tests_every_image_of_another_data_set(trained_run, evaluate, caplog) -> None:
    with caplog.at_level(logging.INFO):
        again = evaluate(trained_run, "data=digits", "data.name=other", "data/split=test_only", "allow_leak=true")

    tested, trained = rows(again / "predictions.csv"), rows(trained_run / "split.csv")
    found = results(again)
    assert {row["name"] for row in tested} == {f"{i:04d}" for i in range(1_797)}
    assert found["protocol"] == "other/test_only/class"
    assert (found["data"]["train"], found["data"]["val"], found["data"]["test"]) == (0, 0, 1_797)
    assert found["baseline"] == {"median_mae": None, "majority_accuracy": None}
    right = [row["target"] == row["point"] for row in tested]
    assert found["metrics"]["test/accuracy"] == pytest.approx(sum(right) / 1_797)
    assert "testing 1,797 of" not in caplog.text
    # The same images under another name of the data set: each image is its own copy.
    parts = [row["part"] for row in trained]
    assert found["leak"]["images"] == parts.count("train")
    assert found["seen_in_training"]["file"] == {part: parts.count(part) for part in ("train", "val")}
    listed = {row["name"]: row["by_file"] for row in rows(again / "seen_in_training.csv")}
    assert listed == {row["name"]: row["part"] for row in trained if row["part"] != "test"}


def test_images_identical_to_those_of_the_train_part_raise(trained_run, evaluate) -> None:
    with pytest.raises(UserError, match=r"of the 1,797 test images are images that the model was trained on"):
        evaluate(trained_run, "data=digits", "data.name=other", "data/split=test_only")


@pytest.mark.parametrize("line", [(), ("data.batch_size=auto",)])
def test_a_split_for_tests_only_cannot_be_trained_on(compose_config, tmp_path, line) -> None:
    with pytest.raises(UserError, match="data/split=test_only has no train images: train with another split"):
        fit(compose_config(*BASE, "data/split=test_only", *line), tmp_path / "run")


DIFFERS = "test/accuracy differ from those that train reported"


@pytest.mark.parametrize(
    ("shift", "checkpoint", "warned"),
    [
        (0.0, "tested", False),
        (0.9e-4, "tested", False),
        (-0.9e-4, "tested", False),
        (1.1e-4, "tested", True),
        (-1.1e-4, "tested", True),
        (0.1, "last", False),  # other weights than the tested ones
    ],
)
def test_a_metric_that_differs_from_that_of_the_run_by_over_1e_4_causes_a_warning(
    trained_run, evaluate, tmp_path, caplog, shift, checkpoint, warned
) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    reported = results(trained_run)
    reported["metrics"]["test/accuracy"] += shift
    (tmp_path / "run" / "results.json").write_text(json.dumps(reported))

    with caplog.at_level(logging.WARNING):
        evaluate(tmp_path / "run", f"checkpoint={checkpoint}")

    assert [DIFFERS in record.getMessage() for record in caplog.records] == [True] * warned


def test_a_metric_of_another_data_set_is_not_compared_with_that_of_the_run(trained_run, evaluate, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        again = evaluate(trained_run, "data=digits", "data.name=other")

    assert results(again)["metrics"] != results(trained_run)["metrics"]
    assert "differ from those that train reported" not in caplog.text
