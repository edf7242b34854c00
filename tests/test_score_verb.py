"""The command score writes a run folder for predictions of any program, without an image and without torch."""

import csv
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agebench.build.data import build_planner
from agebench.errors import UserError
from agebench.files import replace_nan
from agebench.metrics.compute import summarise
from agebench.metrics.predictions import LabelledPredictions, Predictions
from agebench.runs.description import describe_test
from agebench.runs.tables import write_predictions
from agebench.score import folder_name, score

Verb = Callable[..., dict[str, Any]]
ROWS = 200


@pytest.fixture
def faces(tmp_path: Path) -> list[str]:
    """Return the overrides for a table of the ages 20 to 39 of 20 people, without image files."""
    rows = [f"{i}.png,{20 + i % 20},p{i % 20},{'test' if i % 4 == 1 else 'train'}" for i in range(ROWS)]
    (tmp_path / "faces.csv").write_text("\n".join(["path,label,identity,split", *rows]))
    where = f"data.root={tmp_path}/faces.csv"
    return ["data=table", where, "data.source.label=age", "data.target=age", "data/split=official", "listed=true"]


@pytest.fixture
def verb(compose_config, tmp_path) -> Verb:
    """Return a function that scores a file into tmp_path/out and returns the content of results.json."""

    def run(file: Path, *overrides: str) -> dict[str, Any]:
        score(
            compose_config(f"predictions={file}", f"hydra.runtime.output_dir={tmp_path}/out", *overrides, name="score")
        )
        return json.loads((tmp_path / "out" / "results.json").read_text())

    return run


def write_own(folder: Path, overrides: list[str], compose_config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write predictions.csv as a run does, for random predictions, and return the metrics and the intervals."""
    cfg = compose_config(f"predictions={folder}/predictions.csv", *overrides, name="score")
    plan = build_planner(cfg).plan(listed=cfg.listed)
    rng, target = np.random.default_rng(0), plan.target
    posterior = rng.dirichlet(np.ones(target.num_labels), len(plan.split.test)).astype(np.float32)
    points = posterior @ target.values.astype(np.float32) if target.ordered else posterior.argmax(1)
    labelled = LabelledPredictions(
        posterior=posterior,
        point=points,
        target=target.labels[plan.split.test],
        values=target.values,
        ordered=target.ordered,
        unit=target.unit,
    )
    metrics = {f"test/{name}": value for name, value in summarise(labelled).items()}
    rows = np.arange(len(points))
    predictions = Predictions(**vars(labelled), rows=rows, losses=None, weights=None, metrics=metrics)
    write_predictions(folder, plan, predictions)
    return metrics, describe_test(plan, predictions)[0]["intervals"]


@pytest.mark.parametrize("target", ["age", "decade", "bins", "class"])
def test_the_file_of_a_run_gives_its_metrics_and_intervals_to_the_last_digit(
    verb, faces, tmp_path, compose_config, target
) -> None:
    overrides = ["data=digits"] if target == "class" else [*faces[:3], f"data.target={target}", *faces[4:]]
    overrides += ["data.bins=[25,30]"] if target == "bins" else []
    metrics, intervals = write_own(tmp_path, overrides, compose_config)

    found = verb(tmp_path / "predictions.csv", *overrides)

    assert found["metrics"] == metrics
    assert found["intervals"] == replace_nan(intervals)  # balanced_mae has none: five people are too few
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == (tmp_path / "predictions.csv").read_bytes()


def test_the_folder_has_the_files_of_a_test_and_says_what_is_unknown(verb, faces, tmp_path, compose_config) -> None:
    write_own(tmp_path, faces, compose_config)

    found = verb(tmp_path / "predictions.csv", *faces, "name='MiVOLO (v2)'")

    files = {path.name for path in (tmp_path / "out").iterdir()}
    tables = {"per_class.csv", "error_by_decade.csv", "cs_curve.csv"}
    assert files == {".hydra", "results.json", "predictions.csv", "split.csv", *tables}
    assert found["status"] == "completed"
    assert found["scored"]["name"] == "MiVOLO (v2)"
    assert (found["leak"], found["leak_checked"]) == (None, False)
    assert found["bootstrap"]["over"] == "identity"
    assert {"seed", "params", "epochs", "data_sha"} & found.keys() == set()


def test_points_alone_leave_out_metrics_with_a_reason(verb, faces, tmp_path) -> None:
    test = range(1, ROWS, 4)
    (tmp_path / "theirs.csv").write_text("\n".join(["image,pred", *(f"{i}.png,{22 + i % 20}" for i in test)]))

    found = verb(tmp_path / "theirs.csv", *faces)

    assert found["metrics"]["test/mae"] == found["metrics"]["test/bias"] == 2
    assert found["metrics"]["test/cs1"] == 0
    assert found["left_out"]["metrics"] == ["accuracy", "top5", "balanced_accuracy", "macro_f1", "nll", "ece", "qwk"]
    assert "only point estimates are known" in found["left_out"]["reason"]
    assert not (tmp_path / "out" / "per_class.csv").exists()
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        assert {row["p(20)"] for row in csv.DictReader(file)} == {""}


def test_decisions_at_an_age_limit_need_only_points_except_the_area_under_the_curve(verb, faces, tmp_path) -> None:
    test = range(1, ROWS, 4)  # true ages 21, 25, 29, 33, 37; estimates 2 higher
    (tmp_path / "theirs.csv").write_text("\n".join(["image,pred", *(f"{i}.png,{22 + i % 20}" for i in test)]))

    found = verb(tmp_path / "theirs.csv", *faces, "age_limit=26", "challenge_ages=[30]")

    assert found["metrics"]["test/false_adult_rate"] == 0.5  # 25 is judged 27
    assert found["metrics"]["test/false_minor_rate"] == 0
    assert found["metrics"]["test/false_adult_rate_at_30"] == 0
    assert "test/limit_auc" not in found["metrics"]
    assert found["decision"]["age_limit"] == 26
    assert (tmp_path / "out" / "decision.csv").is_file()


def test_the_results_by_group_are_written(verb, faces, tmp_path) -> None:
    lines = (tmp_path / "faces.csv").read_text().splitlines()
    rows = [f"{line},{'f' if i % 8 == 1 else 'm'}" for i, line in enumerate(lines[1:])]
    (tmp_path / "faces.csv").write_text("\n".join([f"{lines[0]},sex", *rows]))
    points = [f"{i}.png,{20 + i % 20 + (3 if i % 8 == 1 else 1)}" for i in range(1, ROWS, 4)]
    (tmp_path / "theirs.csv").write_text("\n".join(["name,point", *points]))

    found = verb(tmp_path / "theirs.csv", *faces, "data.groups=[sex]")

    assert found["groups"]["columns"] == ["sex"]
    with (tmp_path / "out" / "by_group.csv").open(encoding="utf-8-sig", newline="") as file:
        assert {row["group"]: float(row["mae"]) for row in csv.DictReader(file)} == {"f": 3, "m": 1}


def test_rows_that_do_not_match_are_counted_and_listed(verb, faces, tmp_path, caplog) -> None:
    rows = ["1.png,20", "5.png,20", "5.png,30", "9.png,20", "9.png,20", "0.png,20", "ghost.png,20"]
    (tmp_path / "theirs.csv").write_text("\n".join(["name,point", *rows]))

    results = verb(tmp_path / "theirs.csv", *faces)

    found, matched = results["scored"], "1.png\n9.png"  # 5.png has two different predictions
    assert results["split_sha"] == hashlib.sha256(matched.encode()).hexdigest()[:16]
    keys = ("rows", "test_images", "matched", "missing", "doubled", "unknown", "elsewhere")
    assert [found[key] for key in keys] == [7, 50, 2, 47, 2, 1, 1]
    assert found["examples"]["unknown"] == ["ghost.png"]
    assert "test images without a row: 47 of 50 (such as 13.png, 17.png, 21.png; see unmatched.csv)" in caplog.text
    with (tmp_path / "out" / "unmatched.csv").open(encoding="utf-8-sig", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [row["reason"] for row in listed] == ["missing"] * 47 + ["doubled"] * 2 + ["unknown"]
    assert listed[-1]["name"] == "ghost.png"


def test_a_list_of_unmatched_rows_is_removed_when_all_rows_match(verb, faces, tmp_path, compose_config) -> None:
    (tmp_path / "theirs.csv").write_text("name,point\n1.png,20\n")
    verb(tmp_path / "theirs.csv", *faces)
    write_own(tmp_path, faces, compose_config)

    found = verb(tmp_path / "predictions.csv", *faces)["scored"]

    assert (found["matched"], found["missing"]) == (50, 0)
    assert not (tmp_path / "out" / "unmatched.csv").exists()


def test_a_folder_with_a_run_is_not_overwritten_and_one_with_scores_is(verb, faces, tmp_path, compose_config) -> None:
    write_own(tmp_path, faces, compose_config)
    verb(tmp_path / "predictions.csv", *faces)
    assert verb(tmp_path / "predictions.csv", *faces, "name=again")["scored"]["name"] == "again"
    (tmp_path / "out" / "results.json").write_text('{"status": "completed", "config": "abc"}')

    with pytest.raises(UserError, match="holds another run"):
        verb(tmp_path / "predictions.csv", *faces)


def test_a_data_set_is_needed(verb, tmp_path) -> None:
    with pytest.raises(UserError, match="score needs a data set, whose test images were predicted: data=NAME"):
        verb(tmp_path / "theirs.csv")


@pytest.mark.parametrize(
    ("data", "name", "folder"),
    [
        ("cacd", "MiVOLO (v2)", "cacd/MiVOLO-v2"),
        ("cacd", None, "cacd/theirs"),
        ("../x", "../..", "x/scored"),
        (None, "a", "scored"),
    ],
)
def test_the_folder_is_named_after_the_data_and_the_model(data, name, folder) -> None:
    cfg = SimpleNamespace(data=data and SimpleNamespace(name=data), name=name, predictions="a/theirs.csv")

    assert folder_name(cfg) == folder


def test_the_command_does_not_load_torch(faces, tmp_path) -> None:
    (tmp_path / "theirs.csv").write_text("name,point\n1.png,20\n")
    code = "import sys; from agebench.score import main; main(); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "predictions=theirs.csv", *faces, "hydra.run.dir=out"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "written to" in done.stderr + done.stdout
    assert json.loads((tmp_path / "out" / "results.json").read_text())["scored"]["name"] == "theirs"
