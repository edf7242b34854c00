"""Calibration of a finished run on the digits: classes, and every image its own cluster."""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from agebench.calibration.calibration import Calibration
from agebench.errors import UserError
from agebench.inference.calibrate import calibrate_run, log_calibration
from agebench.inference.evaluate import evaluate_run
from agebench.training.fit import fit

CONF = Path(__file__).parents[2] / "conf"
BASE = (
    "data=digits",
    "model.hidden=[16]",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
)


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def config(run: Path, coverage: float = 0.9) -> DictConfig:
    changed = {"run": str(run), "coverage": coverage, "accelerator": "cpu"}
    return OmegaConf.merge(OmegaConf.load(CONF / "calibrate.yaml"), changed)


@pytest.fixture(scope="module")
def trained_run(compose_config, tmp_path_factory) -> Path:
    """Return the read-only folder of a finished run."""
    folder = tmp_path_factory.mktemp("calibrate") / "run"
    fit(compose_config(*BASE, "report=false"), folder)
    return folder


@pytest.fixture(scope="module")
def calibrated_run(trained_run, tmp_path_factory) -> Path:
    """Return the read-only folder of the same run, calibrated."""
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    shutil.copytree(trained_run, folder)
    calibrate_run(config(folder))
    return folder


@pytest.fixture
def run(trained_run, tmp_path) -> Path:
    """Return a copy of the run that is not calibrated."""
    return shutil.copytree(trained_run, tmp_path / "run")


def test_the_metrics_are_those_of_a_computation_from_predictions_csv(calibrated_run, trained_run) -> None:
    found, before = results(calibrated_run), results(trained_run)
    stored = json.loads((calibrated_run / "calibration.json").read_text())
    with (calibrated_run / "predictions.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    powers = np.array([[float(row[f"p({k})"]) for k in range(10)] for row in rows]) ** (1 / stored["temperature"])
    posterior = powers / powers.sum(1, keepdims=True)
    target = [int(row["target"]) for row in rows]

    sets = posterior >= stored["threshold"]
    sets[range(len(rows)), posterior.argmax(1)] = True

    metrics = found["metrics"]
    assert metrics["test/nll_calibrated"] == pytest.approx(
        -np.log(posterior[range(len(rows)), target]).mean(), rel=1e-4
    )
    assert metrics["test/coverage"] == pytest.approx(sets[range(len(rows)), target].mean(), abs=0.006)  # one image
    assert metrics["test/set_size"] == pytest.approx(sets.sum(1).mean(), abs=0.02)
    assert metrics["test/nll_calibrated"] < metrics["test/nll"]
    assert metrics["test/ece_calibrated"] < metrics["test/ece"]
    low, high = found["intervals"]["test/coverage"]
    assert low <= 0.9 <= high
    assert found["calibration"]["nll"][1] < found["calibration"]["nll"][0]
    assert found["calibration"]["over"] == "image"
    assert {name: metrics[name] for name in before["metrics"]} == before["metrics"]
    assert {key for key in found if found[key] != before.get(key)} == {"metrics", "intervals", "calibration"}


def test_evaluate_repeats_the_metrics_of_the_calibration(calibrated_run, compose_config, tmp_path) -> None:
    evaluate_run(compose_config(f"run={calibrated_run}", "accelerator=cpu", name="evaluate"), tmp_path / "with")
    plain = compose_config(f"run={calibrated_run}", "accelerator=cpu", "calibration=false", name="evaluate")
    evaluate_run(plain, tmp_path / "without")

    assert results(tmp_path / "with")["metrics"] == results(calibrated_run)["metrics"]
    assert results(tmp_path / "with")["calibration"] == results(calibrated_run)["calibration"]
    assert "test/coverage" not in results(tmp_path / "without")["metrics"]
    assert "calibration" not in results(tmp_path / "without")


def test_a_calibration_of_another_checkpoint_is_refused(calibrated_run, compose_config, tmp_path) -> None:
    copy = shutil.copytree(calibrated_run, tmp_path / "run")
    stored = json.loads((copy / "calibration.json").read_text())
    (copy / "calibration.json").write_text(json.dumps(stored | {"weights_sha": "0123456789abcdef"}))

    with pytest.raises(UserError, match=r"belongs to another checkpoint of this run: .* or set calibration=false"):
        evaluate_run(compose_config(f"run={copy}", "accelerator=cpu", name="evaluate"), tmp_path / "again")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"coverage": 0.9}'])
def test_a_damaged_calibration_is_refused(calibrated_run, compose_config, tmp_path, text) -> None:
    copy = shutil.copytree(calibrated_run, tmp_path / "run")
    (copy / "calibration.json").write_text(text)

    with pytest.raises(UserError, match=r"calibration\.json is damaged: calibrate the run again"):
        evaluate_run(compose_config(f"run={copy}", "accelerator=cpu", name="evaluate"), tmp_path / "again")


def edit(run: Path, key: str, value: object) -> None:
    (run / "results.json").write_text(json.dumps(results(run) | {key: value}))


def test_a_run_whose_val_part_is_its_test_part_is_refused(run) -> None:
    edit(run, "data", results(run)["data"] | {"val_is_test": True})

    with pytest.raises(UserError, match="calibrate needs a val part that is not the test part"):
        calibrate_run(config(run))


def test_an_unfinished_run_is_refused(run) -> None:
    edit(run, "status", "interrupted")

    with pytest.raises(UserError, match=r"calibrate needs a completed run, but .* is interrupted"):
        calibrate_run(config(run))


def test_other_test_images_than_those_of_the_run_are_refused(run) -> None:
    edit(run, "split_sha", "0123456789abcdef")

    with pytest.raises(UserError, match=r"the test images of .* have changed since it was trained"):
        calibrate_run(config(run))
    assert not (run / "calibration.json").exists()


def test_too_few_images_in_val_are_refused(run) -> None:
    with pytest.raises(UserError, match=r"coverage=0\.999 needs at least 999 images in val, got \d+: set a lower"):
        calibrate_run(config(run, coverage=0.999))


def test_the_temperature_is_fitted_on_val(calibrated_run) -> None:
    found = results(calibrated_run)
    with (calibrated_run / "metrics.csv").open(encoding="utf-8-sig") as lines:
        (epoch,) = csv.DictReader(lines)

    assert found["calibration"]["nll"][0] == pytest.approx(float(epoch["val/loss"]), abs=1e-4)  # softmax: the same loss
    assert found["calibration"]["nll"][0] != pytest.approx(found["metrics"]["test/nll"], abs=1e-3)


def test_metrics_of_training_are_never_replaced(run) -> None:
    edit(run, "metrics", results(run)["metrics"] | {"test/accuracy": 0.125})

    calibrate_run(config(run))

    assert results(run)["metrics"]["test/accuracy"] == 0.125


def test_results_of_another_checkpoint_are_not_changed(run) -> None:
    edit(run, "weights_sha", "0123456789abcdef")
    before = (run / "results.json").read_bytes()
    changed = config(run)
    changed.checkpoint = "best"

    calibrate_run(changed)

    assert (run / "results.json").read_bytes() == before
    assert (run / "calibration.json").exists()


@pytest.mark.parametrize(
    ("over", "ordered", "is_warned"), [("image", True, True), ("identity", True, False), ("image", False, False)]
)
def test_a_coverage_for_images_of_unknown_people_is_not_promised_for_new_people(
    caplog, over, ordered, is_warned
) -> None:
    size = "range_width" if ordered else "set_size"
    names = ("nll", "nll_calibrated", "ece", "ece_calibrated", "coverage", "coverage_uncalibrated", size)
    predictions = SimpleNamespace(
        ordered=ordered, metrics=dict.fromkeys((f"test/{name}" for name in (*names, f"{size}_uncalibrated")), 1.0)
    )

    log_calibration(Calibration(0.9, 1.0, 0.1, ordered, (20.0, 21.0), over, 40, 40, (1.0, 1.0), ""), predictions)

    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert ["may be lower for new people" in message for message in warned] == [True] * is_warned
