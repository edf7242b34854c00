"""The command export: the file and its description reproduce the predictions of the run's test."""

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image


def read_images(folder: Path, names: list[str], about: dict) -> np.ndarray:
    """Resize images as the JSON description says, with Pillow only."""
    assert (about["resize"]["crop_mode"], about["resize"]["crop_pct"]) == ("squash", 1.0)
    _, _, height, width = about["input"]["shape"]
    method = Image.Resampling[about["resize"]["interpolation"].upper()]
    images = [
        Image.open(folder / name).convert(about["input"]["channels"]).resize((width, height), method) for name in names
    ]
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image in images])


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_the_file_reproduces_the_predictions_of_the_run(command, trained, kind):
    command("export", f"run={trained}/run", f"format={kind}", f"output=out/model.{kind}")

    about = json.loads(Path("out/model.json").read_text())
    with (trained / "run" / "predictions.csv").open(encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    images = read_images(trained / "data/demo/CACD2000", [row["name"] for row in rows], about)
    if kind == "onnx":
        session = onnxruntime.InferenceSession("out/model.onnx", providers=["CPUExecutionProvider"])
        posterior, point = session.run(["posterior", "point"], {about["input"]["name"]: images})
    else:
        posterior, point = torch.export.load("out/model.pt2").module()(torch.from_numpy(images))
    expected = [[float(row[f"p({label})"]) for label in about["labels"]] for row in rows]
    assert np.asarray(posterior) == pytest.approx(np.array(expected), abs=1e-5)
    assert np.asarray(point) == pytest.approx(np.array([float(row["point"]) for row in rows]))
    assert (about["unit"], about["protocol"].split("/")[0]) == ("years", "demo")


@pytest.mark.ci
def test_two_formats_of_one_model_share_a_description_and_two_models_do_not(command, trained, capsys):
    command("export", f"run={trained}/run", "format=onnx", "output=age.onnx")
    written = Path("age.json").read_text()

    command("export", f"run={trained}/run", "format=pt2", "output=age.pt2")

    assert Path("age.pt2").exists()
    assert Path("age.json").read_text() == written
    Path("age.pt2").unlink()
    Path("age.json").write_text(json.dumps(json.loads(written) | {"config": "another"}))
    with pytest.raises(SystemExit):
        command("export", f"run={trained}/run", "format=pt2", "output=age.pt2")
    assert "age.json already exists and describes another model: set another output=" in capsys.readouterr().err
    assert not Path("age.pt2").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "export needs a trained run: run=outputs/..."),
        ("run=nowhere", "nowhere is not a run"),
        ("run=RUN format=onxx", "format must be one of onnx, pt2, safetensors, got onxx (did you mean 'onnx'?)"),
        ("run=RUN output=here.onnx", "here.onnx already exists: set another output="),
        (
            "run=RUN output=new.json",
            "new.json is the name of the description: set output= with another suffix, .onnx",
        ),
        ("run=RUN output=about.onnx", "about.json already exists: set another output="),
        ("run=RUN output=here.onnx/model.onnx", "cannot write here.onnx/model.onnx"),
    ],
)
def test_a_user_error_is_one_sentence_and_nothing_is_written(command, trained, capsys, arguments, sentence):
    for name in ("here.onnx", "about.json"):
        Path(name).write_text("mine")

    with pytest.raises(SystemExit) as end:
        command("export", *arguments.replace("RUN", f"{trained}/run").split())

    assert end.value.code == 2
    stderr = capsys.readouterr().err
    assert sentence in stderr
    assert "Traceback" not in stderr
    assert sorted((path.name, path.read_text()) for path in Path().iterdir()) == [
        ("about.json", "mine"),
        ("here.onnx", "mine"),
    ]
