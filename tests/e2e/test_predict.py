"""The command predict, on unlabelled images, without the data set of the run."""

import csv
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agebench.inference.predict import _log_predictions


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


def numbers(row: dict[str, str]) -> list[float]:
    return [float(value) for key, value in row.items() if key.startswith("p(")]


@pytest.fixture
def faces(trained: Path, tmp_path: Path) -> Path:
    """Return a folder with the test images of the run, without labels."""
    (tmp_path / "faces" / "deep").mkdir(parents=True)
    for i, row in enumerate(table(trained / "run" / "predictions.csv")):
        below = "deep" if i % 2 else "."
        shutil.copy(trained / "data" / "demo" / "CACD2000" / row["name"], tmp_path / "faces" / below / row["name"])
    return tmp_path / "faces"


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_the_predictions_are_those_of_the_runs_test(command, trained, faces, packed):
    shutil.copytree(trained / "run", "run")
    if packed:
        with zipfile.ZipFile("faces.zip", "w") as archive:
            for path in faces.rglob("*.jpg"):
                archive.write(path, path.relative_to(faces))

    command("predict", "run=run", f"images={'faces.zip' if packed else faces}", "output=out/ages.csv", "batch_size=7")

    expected = {row["name"]: row for row in table(Path("run/predictions.csv"))}
    predicted = table(Path("out/ages.csv"))
    leading = ["name", "point", "label", "most_likely_label", "probability", "p(14)"]
    assert list(predicted[0])[:6] == leading
    assert sorted(Path(row["name"]).name for row in predicted) == sorted(expected)
    for row in predicted:
        tested = expected[Path(row["name"]).name]
        assert numbers(row) == pytest.approx(numbers(tested), abs=2e-6)
        assert float(row["point"]) == pytest.approx(float(tested["point"]))
        assert abs(float(row["label"]) - float(row["point"])) <= 0.5
        assert row["most_likely_label"] == str(14 + int(np.argmax(numbers(row))))
        assert float(row["probability"]) == max(numbers(row))
        assert row["problem"] == ""


def test_with_an_age_limit_the_probability_of_at_least_that_age_is_added(command, trained, faces):
    command("predict", f"run={trained}/run", f"images={faces}", "output=ages.csv", "age_limit=18")

    predicted = table(Path("ages.csv"))
    assert list(predicted[0])[4:7] == ["probability", "p(>=18)", "p(14)"]
    for row in predicted:
        older = [
            float(value) for key, value in row.items() if key.startswith("p(") and key[2:-1] in map(str, range(18, 99))
        ]
        assert float(row["p(>=18)"]) == pytest.approx(sum(older), abs=1e-4)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("10", "age_limit=10 needs labels on both sides"),
        ("0", "age_limit must be a whole number"),
        ("x", "whole number"),
    ],
)
def test_an_age_limit_outside_the_labels_is_one_sentence(command, trained, faces, capsys, value, sentence):
    with pytest.raises(SystemExit) as end:
        command("predict", f"run={trained}/run", f"images={faces}", "output=ages.csv", f"age_limit={value}")

    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


def test_an_evaluation_adds_an_age_limit_that_the_run_did_not_have(command, trained, capsys):
    shutil.copytree(trained / "run", "run")
    limit = ["age_limit=30", "challenge_ages=[30,40]", "hydra.run.dir=again"]

    command("evaluate", "run=run", f"paths.data={trained}/data", *limit)

    results = json.loads(Path("again/results.json").read_text())
    rows = table(Path("again/predictions.csv"))
    minors = [float(row["point"]) for row in rows if int(row["target"]) < 30]
    for age in (30, 40):
        assert results["metrics"][f"test/false_adult_rate_at_{age}"] == np.mean([point >= age for point in minors])
    low, high = results["intervals"]["test/false_adult_rate"]
    assert low <= results["metrics"]["test/false_adult_rate"] <= high
    assert results["decision"]["below"]["images"] == len(minors)
    by_age = {row["challenge_age"]: row for row in table(Path("again/decision.csv"))}
    assert float(by_age["30"]["false_adult_rate"]) == pytest.approx(
        results["metrics"]["test/false_adult_rate"], rel=1e-5
    )
    assert Path("again/report/decision.png").is_file()
    err = capsys.readouterr().err
    assert results["decision"]["sentence"] in err
    assert "differ from those that train reported" not in err


def test_an_unreadable_image_has_a_row_with_the_problem(command, trained, faces, capsys):
    (faces / "empty.png").touch()
    (faces / "a.jpg").write_text("no image")
    Image.new("L", (40, 30)).save(faces / "grey.png")

    command("predict", f"run={trained}/run", f"images={faces}", "output=ages.csv")

    problems = {row["name"]: row["problem"] for row in table(Path("ages.csv"))}
    with_point = [row["name"] for row in table(Path("ages.csv")) if row["point"]]
    assert problems["empty.png"] == "the file is empty"
    assert problems["a.jpg"].startswith("it is not an image")
    assert "grey.png" in with_point
    assert len(with_point) == len(problems) - 2
    assert "2 could not be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("unit", "row", "shown"),
    [
        ("", {"label": "cat", "point": "cat", "p(dog)": "0.25", "p(cat)": "0.75"}, "a.png  cat  75.0%"),
        (
            "years",
            {"point": "41.3", "label": "41", "most_likely_label": "40", "p(40)": "0.0625", "p(41)": "0.0625"},
            "a.png  41.3 years  (40: 6.2%)",
        ),
        (
            "decades",
            {"point": "3.6", "low": "2", "high": "5", "label": "40s", "most_likely_label": "30s", "p(30s)": "0.5"},
            "a.png  40s  (30s: 50.0%)",
        ),
        ("decades", {"point": "4", "label": "40s", "most_likely_label": "40s", "p(40s)": "0.9"}, "a.png  40s  90.0%"),
    ],
)
def test_the_console_shows_the_answer_and_the_probability_of_the_most_likely_label(caplog, unit, row, shown):
    with caplog.at_level("INFO"):
        _log_predictions(["name", *row], [["a.png", *row.values()]], unit=unit, seconds=1.0)

    assert caplog.messages[0] == shown


def test_classes_are_predicted_by_name_for_a_single_image(command, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for shade, name in ((60, "dark"), (190, "light")):
        (tmp_path / "shades" / name).mkdir(parents=True)
        for i in range(30):
            pixels = rng.integers(shade - 40, shade + 40, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "shades" / name / f"{i}.png")
    line = "data=folder data.root=shades data/split=random data.image_size=8 data.batch_size=8 model=mlp"
    command("train", *line.split(), "report=false", "hydra.run.dir=run")
    Image.new("RGB", (8, 8), (200, 190, 195)).save("new.png")
    shutil.rmtree("shades")

    command("predict", "run=run", "images=new.png")

    (file,) = Path("run/predict").glob("*.csv")
    (row,) = table(file)
    assert (row["name"], row["label"], row["point"]) == ("new.png", "light", "light")
    assert list(row) == ["name", "label", "point", "p(dark)", "p(light)", "problem"]
    assert "new.png  light" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "predict needs a trained run: run=outputs/..."),
        ("run=RUN", "predict needs images: images=FOLDER"),
        ("run=nowhere images=here", "nowhere is not a run"),
        ("run=RUN images=nowhere", "nowhere does not exist: give a folder of images"),
        ("run=RUN images=none", "none contains no image"),
        ("run=RUN images=bad", "none of the 1 images can be read, for example x.jpg: the file is empty"),
        ("run=RUN images=bad output=here.csv", "here.csv already exists: set another output="),
        ("run=RUN images=bad batch_size=0", "batch_size must be an integer of 1 or more, got 0"),
        ("run=RUN images=bad checkpoint=here.csv", "here.csv is damaged or no checkpoint"),
        ("run=RUN images=bad accelerator=warp", "accelerator=warp is not available here"),
        ("run=RUN image=bad", "'image' (did you mean 'images'?)"),
    ],
)
def test_a_user_error_is_one_sentence_and_nothing_is_written(command, trained, capsys, arguments, sentence):
    Path("none").mkdir()
    Path("bad").mkdir()
    Path("bad/x.jpg").touch()
    Path("here.csv").write_text("mine")

    with pytest.raises(SystemExit) as end:
        command("predict", *arguments.replace("RUN", f"{trained}/run").split())

    assert end.value.code == 2
    stderr = capsys.readouterr().err
    assert sentence in stderr
    assert "Traceback" not in stderr
    assert Path("here.csv").read_text() == "mine"
    assert sorted(path.name for path in Path().iterdir()) == ["bad", "here.csv", "none"]


def test_a_checkpoint_without_labels_raises(command, trained, tmp_path, capsys):
    import torch

    shutil.copytree(trained / "run", "run")
    tested = json.loads(Path("run/results.json").read_text())["best"]["tested"]
    stored = torch.load(f"run/checkpoints/{tested}.ckpt", weights_only=True)
    del stored["agebench"]["values"]
    torch.save(stored, f"run/checkpoints/{tested}.ckpt")

    with pytest.raises(SystemExit) as end:
        command("predict", "run=run", f"images={trained}/data/demo")

    assert end.value.code == 2
    assert "agebench.values is missing" in capsys.readouterr().err
