"""A run is tested on ages, decades or bins that differ from those that it was trained for."""

import csv
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from agebench.errors import UserError
from agebench.inference.calibrate import calibrate_run
from agebench.inference.evaluate import evaluate_run
from agebench.training.fit import fit

CONF = Path(__file__).parents[2] / "conf"
BASE = (
    "data/split=official",
    "data.source.label=age",
    "data.image_size=4",
    "model.hidden=[8]",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
    "report=false",
)
TABLES = {"young": (0, 69), "all": (1, 110), "inside": (1, 60)}  # youngest and oldest
FIRST_TEST = 24


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """Return a folder of tables of 36 images. The last 12 are test, with the youngest and the oldest among them."""
    folder = tmp_path_factory.mktemp("tables")
    for number, (name, (low, high)) in enumerate(TABLES.items()):
        ages = np.linspace(low, high, 36).astype(int)
        ages = np.concatenate([ages[::3], ages[1::3], ages[2::3]])
        ages[FIRST_TEST], ages[0] = low, low
        lines = []
        for i, age in enumerate(ages):
            pixels = np.full((4, 4, 3), (2 * age, i, number), dtype=np.uint8)  # no two images are identical
            Image.fromarray(pixels).save(folder / f"{name}{i}.png")
            lines.append(f"{name}{i}.png,{age},{'train' if i < 20 else 'val' if i < FIRST_TEST else 'test'}")
        (folder / f"{name}.csv").write_text("\n".join(["path,label,split", *lines]))
    return folder


@pytest.fixture(scope="module")
def trained(compose_config, tables, tmp_path_factory):
    """Return a function that returns the folder of a run on a table, trained once."""
    runs: dict[tuple[str, ...], Path] = {}

    def make(table: str, *overrides: str) -> Path:
        if (table, *overrides) not in runs:
            folder = tmp_path_factory.mktemp("runs") / "run"
            fit(compose_config(*_data(tables, table), *BASE, *overrides), folder)
            runs[table, *overrides] = folder
        return runs[table, *overrides]

    return make


def _data(tables: Path, table: str) -> list[str]:
    return ["data=table", f"data.root={tables}/{table}.csv"]


@pytest.fixture
def evaluate(compose_config, tables, tmp_path):
    """Return a function that tests a run on a table, and returns results.json and the rows of predictions.csv."""

    def start(run_dir: Path, table: str, *overrides: str) -> tuple[dict, list[dict[str, str]]]:
        own = [*_data(tables, table), "data.source.label=age", "data/split=official", *overrides]
        keys = {override.partition("=")[0] for override in own}
        cfg = compose_config(f"run={run_dir}", "accelerator=cpu", *own, name="evaluate")
        evaluate_run(cfg, tmp_path / "out", user_keys=keys)
        with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
            return json.loads((tmp_path / "out" / "results.json").read_text()), list(csv.DictReader(file))

    return start


def ages_of(tables: Path, table: str) -> dict[str, int]:
    with (tables / f"{table}.csv").open() as file:
        return {row["path"]: int(row["label"]) for row in csv.DictReader(file) if row["split"] == "test"}


@pytest.mark.ci
@pytest.mark.parametrize(("train", "test", "labels"), [("young", "all", (0, 110)), ("all", "young", (0, 110))])
def test_ages_beyond_those_of_the_run_are_tested_by_their_error(trained, evaluate, tables, train, test, labels) -> None:
    found, rows = evaluate(trained(train, "data.target=age"), test)

    ages = ages_of(tables, test)
    low, high = TABLES[train]
    true = np.array([ages[row["name"]] for row in rows])
    error = np.array([float(row["point"]) for row in rows]) - true
    beyond = (true < low) | (true > high)
    assert len(rows) == 12
    assert beyond.sum() >= 1
    assert [row["target"] for row in rows] == list(map(str, true))
    assert found["metrics"]["test/mae"] == pytest.approx(np.abs(error).mean())
    assert found["metrics"]["test/bias"] == pytest.approx(error.mean())
    assert found["metrics"]["test/cs5"] == pytest.approx((np.abs(error) <= 5).mean())
    assert found["intervals"]["test/mae"][0] <= found["metrics"]["test/mae"] <= found["intervals"]["test/mae"][1]
    assert {"test/accuracy", "test/nll", "test/loss", "test/qwk"} & found["metrics"].keys() == set()
    assert "accuracy" in found["left_out"]["metrics"]
    assert f"the model predicts ages {low} to {high}, the data has ages" in found["left_out"]["reason"]
    about = found["model_range"]
    assert (about["ages"], about["images"]) == ([low, high], beyond.sum())
    assert about["within"]["mae"] == pytest.approx(np.abs(error[~beyond]).mean())
    assert about["beyond"]["mae"] == pytest.approx(np.abs(error[beyond]).mean())
    columns = [name for name in rows[0] if name.startswith("p(")]
    assert (columns[0], columns[-1]) == tuple(f"p({age})" for age in labels)
    assert sum(float(rows[0][name]) for name in columns) == pytest.approx(1, abs=1e-5)


def test_ages_inside_those_of_the_run_have_every_metric(trained, evaluate, tables) -> None:
    found, rows = evaluate(trained("young", "data.target=age"), "inside")

    likelihood = np.array([float(row[f"p({row['target']})"]) for row in rows])
    assert found["metrics"]["test/nll"] == pytest.approx(-np.log(likelihood).mean(), rel=1e-5)
    assert {"test/accuracy", "test/loss"} <= found["metrics"].keys()
    assert {"left_out", "model_range"} & found.keys() == set()


@pytest.mark.parametrize(
    ("overrides", "years"),
    [
        (("data.target=decade",), lambda point: 10 * point + 4.5),
        (("data.target=bins", "data.bins=[20,40]"), lambda point: np.interp(point, [0, 1, 2], [9.5, 29.5, 49.5])),
    ],
)
def test_a_run_of_decades_or_bins_is_tested_in_years_by_the_middle_ages(
    trained, evaluate, tables, overrides, years
) -> None:
    run = trained("young", *overrides)
    in_unit = {row["name"]: float(row["point"]) for row in evaluate(run, "inside")[1]}

    found, rows = evaluate(run, "inside", "data.target=age")

    ages = ages_of(tables, "inside")
    points = np.array([float(row["point"]) for row in rows])
    np.testing.assert_allclose(points, [years(in_unit[row["name"]]) for row in rows], rtol=1e-5)
    errors = np.abs(points - [ages[row["name"]] for row in rows])
    assert found["protocol"] == "table/official/age"
    assert found["metrics"]["test/mae"] == pytest.approx(errors.mean())
    assert "test/accuracy" not in found["metrics"]


def test_a_run_of_ages_is_tested_on_bins_by_their_edges(trained, evaluate) -> None:
    run = trained("young", "data.target=age")
    in_years = {row["name"]: float(row["point"]) for row in evaluate(run, "inside")[1]}

    found, rows = evaluate(run, "inside", "data.target=bins", "data.bins=[20,40]")

    expected = [(in_years[row["name"]] >= 20) + (in_years[row["name"]] >= 40) for row in rows]
    assert [float(row["point"]) for row in rows] == expected
    assert found["metrics"]["test/within_1"] <= 1


def test_bins_that_the_user_chooses_as_the_target_need_their_edges(trained, evaluate) -> None:
    run = trained("young", "data.target=bins", "data.bins=[20,40]")

    with pytest.raises(UserError, match="needs ascending edges in years, got None"):
        evaluate(run, "inside", "data.target=bins")


def test_a_calibration_is_not_used_for_other_labels(trained, evaluate, tmp_path) -> None:
    run = shutil.copytree(trained("young", "data.target=age"), tmp_path / "run")
    settings = {"run": str(run), "coverage": 0.5, "accelerator": "cpu"}
    calibrate_run(OmegaConf.merge(OmegaConf.load(CONF / "calibrate.yaml"), settings))

    same, _ = evaluate(run, "young")
    other, _ = evaluate(run, "all")

    assert "calibration" in same
    assert "calibration" not in other


@pytest.mark.ci
@pytest.mark.parametrize(("limit", "warned"), [(30, True), (40, False)])
def test_only_decisions_at_the_same_limit_are_compared_with_those_of_training(
    trained, compose_config, tmp_path, caplog, limit, warned
) -> None:
    run = shutil.copytree(trained("young", "data.target=age", "age_limit=30"), tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    results["metrics"]["test/false_adult_rate"] += 0.25
    (run / "results.json").write_text(json.dumps(results))

    with caplog.at_level(logging.WARNING):
        evaluate_run(
            compose_config(f"run={run}", "accelerator=cpu", f"age_limit={limit}", name="evaluate"), tmp_path / "out"
        )

    assert ("differ from those that train reported" in caplog.text) == warned


def test_classes_that_differ_are_refused(trained, evaluate) -> None:
    with pytest.raises(UserError, match=r"must be tested with it: remove data\.target"):
        evaluate(trained("young", "data.target=age"), "inside", "data.source.label=class", "data.target=class")


def test_fixed_ages_are_the_labels_of_a_run(trained) -> None:
    run = trained("inside", "data.target=age", "data.ages=[0,80]")

    with (run / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        columns = [name for name in next(csv.reader(file)) if name.startswith("p(")]
    assert columns == [f"p({age})" for age in range(81)]
