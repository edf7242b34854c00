"""The command calibrate on ages, and its use by predict, compare and the checks of the command line."""

import csv
import json
import shutil
from pathlib import Path

import pytest


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


def test_predict_has_the_ranges_whose_coverage_calibrate_measured(command, trained, tmp_path, capsys):
    shutil.copytree(trained / "run", "run")
    (tmp_path / "faces").mkdir()
    tested = table(Path("run/predictions.csv"))
    for row in tested:
        shutil.copy(trained / "data" / "demo" / "CACD2000" / row["name"], tmp_path / "faces")

    command("calibrate", "run=run", "coverage=0.6", "accelerator=cpu")
    command("predict", "run=run", "images=faces", "output=ages.csv", "accelerator=cpu")

    results, age = json.loads(Path("run/results.json").read_text()), {row["name"]: int(row["target"]) for row in tested}
    ranges = [(float(row["low"]), float(row["high"]), row) for row in table(Path("ages.csv"))]
    inside = [low <= age[row["name"]] <= high for low, high, row in ranges]
    metrics = results["metrics"]
    assert sum(inside) / len(inside) == pytest.approx(metrics["test/coverage"])
    assert sum(high - low for low, high, _ in ranges) / len(ranges) == pytest.approx(metrics["test/range_width"])
    assert all(low <= float(row["point"]) <= high for low, high, row in ranges)
    assert list(ranges[0][2])[list(ranges[0][2]).index("point") :][:3] == ["point", "low", "high"]
    assert results["calibration"]["over"] == "identity"
    decades = results["calibration"]["by_decade"]
    assert sum(each["images"] for each in decades.values()) == len(tested)
    covered = sum(each["images"] * each["coverage"] for each in decades.values())
    assert covered == pytest.approx(sum(inside), abs=1e-3)
    assert [row["decade"] for row in table(Path("run/coverage_by_decade.csv"))] == list(decades)
    assert (Path("run/report/calibration.png")).is_file()
    assert "test/coverage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "calibrate needs a trained run: run=outputs/..."),
        ("run=nowhere", "nowhere is not a run"),
        ("run=nowhere coverage=1", "coverage must be a share above 0 and below 1, got 1"),
        ("run=nowhere coverage=0", "coverage must be a share above 0 and below 1, got 0"),
        ("run=nowhere coverage=90", "coverage must be a share above 0 and below 1, got 90"),
        ("run=nowhere coverage=most", "coverage must be a share above 0 and below 1, got most"),
        ("run=SWEEP", "is a folder of runs (1), such as a sweep: give one of them, such as "),
        ("run=RUN coverage=0.99", "coverage=0.99 needs at least 99 people in val"),
    ],
)
def test_bad_input_ends_with_one_sentence(command, trained, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as end:
        command("calibrate", *arguments.replace("RUN", f"{trained}/run").replace("SWEEP", str(trained)).split())

    assert end.value.code == 2
    assert sentence in capsys.readouterr().err
