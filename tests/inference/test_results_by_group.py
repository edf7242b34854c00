"""Results by group of a trained run, and those that an evaluation adds to a run without groups."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from agebench.errors import UserError
from agebench.evaluate import with_own_data
from agebench.inference.calibrate import calibrate_run
from agebench.inference.evaluate import evaluate_run
from agebench.training.fit import fit


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table of 160 images; 70 test images of men, 50 of women and 5 of unknown sex, one per person."""
    folder, rng = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    lines = ["path,age,sex,identity,split"]
    for i in range(160):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        sex = "m" if i < 70 else "f" if i < 120 else "" if i < 125 else "m"
        lines.append(f"{i}.png,{20 + i % 10},{sex},p{i},{'test' if i < 125 else 'val' if i < 135 else 'train'}")
    (folder / "faces.csv").write_text("\n".join(lines))
    return folder / "faces.csv"


@pytest.fixture(scope="module")
def run_of(compose_config, table: Path, tmp_path_factory: pytest.TempPathFactory):
    """Return a function that trains on the table and returns the folder."""

    def start(*overrides: str) -> Path:
        folder = tmp_path_factory.mktemp("runs") / "run"
        common = ("data=table", f"data.root={table}", "data.columns.label=age", "data.source.label=age")
        common += ("data.target=age", "data/split=column", "data.image_size=8", "model=mlp", "model.hidden=[4]")
        common += ("trainer.max_epochs=1", "trainer.accelerator=cpu", "callbacks.progress=null", "report=false")
        fit(compose_config(*common, *overrides), folder)
        return folder

    return start


@pytest.fixture(scope="module")
def grouped(run_of) -> Path:
    return run_of("data.groups=[sex]")


@pytest.fixture(scope="module")
def plain(run_of) -> Path:
    return run_of()


def test_a_run_has_its_metrics_by_group_and_the_gap(grouped: Path) -> None:
    predictions, table = read(grouped / "predictions.csv"), read(grouped / "by_group.csv")
    sex = {row["name"]: row["sex"] for row in read(grouped / "groups.csv")}
    found = results(grouped)["groups"]

    errors = {"m": [], "f": [], "unknown": []}
    for row in predictions:
        errors[sex[row["name"]]].append(abs(float(row["point"]) - float(row["target"])))
    means = {name: np.mean(each) for name, each in errors.items()}
    assert [(row["group"], row["people"]) for row in table] == [("f", "50"), ("m", "70"), ("unknown", "5")]
    assert {row["group"]: float(row["mae"]) for row in table} == pytest.approx(means, rel=1e-5)
    assert [row["note"] for row in table] == ["", "", "fewer than 30 people: not compared"]
    gap = next(each for each in found["gaps"] if each["metric"] == "mae")
    assert gap["gap"] == pytest.approx(abs(means["m"] - means["f"]))
    assert gap["interval"][0] < gap["gap"] < gap["interval"][1]
    assert gap["p"] <= gap["p_holm"] <= 1
    assert found["notes"] == ["by sex: not compared, fewer than 30 people: unknown (5)"]
    assert (found["columns"], found["over"], found["least"]) == (["sex"], "identity", 30)


def test_groups_change_neither_the_hash_nor_the_weights(grouped: Path, plain: Path) -> None:
    with_groups, without = results(grouped), results(plain)

    assert "groups" not in without
    assert not (plain / "by_group.csv").exists()
    assert with_groups["config"] == without["config"]
    assert with_groups["weights_sha"] == without["weights_sha"]
    assert (grouped / "predictions.csv").read_bytes() == (plain / "predictions.csv").read_bytes()


@pytest.mark.parametrize("data", [(), ("data=table",)])
def test_an_evaluation_adds_groups_to_a_run_without_them(
    compose_config, table: Path, grouped: Path, plain: Path, tmp_path: Path, data: tuple[str, ...]
) -> None:
    typed = with_own_data([f"run={plain}", *data, "data.groups=[sex]"])
    more = ("data.columns.label=age", "data/split=column", "data.source.label=age", "data.target=age") if data else ()
    cfg = compose_config(*typed, *more, "accelerator=cpu", name="evaluate")

    evaluate_run(cfg, tmp_path / "again", user_keys={each.partition("=")[0] for each in (*typed, *more)})

    assert (tmp_path / "again" / "by_group.csv").read_bytes() == (grouped / "by_group.csv").read_bytes()
    assert results(tmp_path / "again")["groups"] == results(grouped)["groups"]
    assert (tmp_path / "again" / "report" / "by_group.png").is_file()


def test_an_evaluation_has_the_groups_of_its_run(compose_config, grouped: Path, tmp_path: Path) -> None:
    evaluate_run(compose_config(f"run={grouped}", "accelerator=cpu", name="evaluate"), tmp_path / "again")

    assert (tmp_path / "again" / "groups.csv").read_bytes() == (grouped / "groups.csv").read_bytes()


def test_an_evaluation_by_an_unknown_column_is_an_error(compose_config, plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no column 'sx' \(did you mean 'sex'\?\)"):
        evaluate_run(
            compose_config(f"run={plain}", "groups=[sx]", "accelerator=cpu", name="evaluate"), tmp_path / "again"
        )

    assert not (tmp_path / "again" / "results.json").exists()


def test_a_calibration_adds_coverage_and_width_by_group_and_keeps_the_other_gaps(grouped: Path, tmp_path: Path) -> None:
    run, before = shutil.copytree(grouped, tmp_path / "run"), results(grouped)["groups"]["gaps"]
    conf = Path(__file__).parents[2] / "conf" / "calibrate.yaml"

    calibrate_run(OmegaConf.merge(OmegaConf.load(conf), {"run": str(run), "coverage": 0.8, "accelerator": "cpu"}))

    rows, fitted = read(run / "predictions.csv"), results(run)["calibration"]
    ages = np.arange(20, 30)
    powers = np.array([[float(row[f"p({age})"]) for age in ages] for row in rows]) ** (1 / fitted["temperature"])
    posterior = powers / powers.sum(1, keepdims=True)
    point, target = (np.array([float(row[name]) for row in rows]) for name in ("point", "target"))
    tails = np.minimum(posterior.cumsum(1), 1 - posterior.cumsum(1) + posterior)
    inside = (tails >= fitted["threshold"]) | (np.abs(ages - point[:, None]) < 1)
    low, high = ages[inside.argmax(1)], ages[9 - inside[:, ::-1].argmax(1)]
    covered = (low <= target) & (target <= high)
    sex = {row["name"]: row["sex"] for row in read(run / "groups.csv")}
    own = {name: np.array([sex[row["name"]] == name for row in rows]) for name in ("f", "m", "unknown")}
    table = read(run / "by_group.csv")
    for row in table:
        of_group = covered[own[row["group"]]]
        assert float(row["coverage"]) == pytest.approx(of_group.mean(), rel=1e-5)
        assert float(row["range_width"]) == pytest.approx((high - low)[own[row["group"]]].mean(), rel=1e-5)
        assert float(row["coverage_low"]) <= of_group.mean() <= float(row["coverage_high"])
    gaps = results(run)["groups"]["gaps"]
    assert gaps[: len(before)] == before
    assert [gap["metric"] for gap in gaps[len(before) :]] == ["coverage", "range_width"]
    assert gaps[-2]["gap"] == pytest.approx(abs(covered[own["f"]].mean() - covered[own["m"]].mean()))
