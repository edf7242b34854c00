"""The commands for trained runs refuse wrong paths before torch is imported."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from agebench.app import app
from agebench.calibrate import calibrate
from agebench.errors import UserError
from agebench.export import export
from agebench.predict import predict

COMMANDS = {"app": app, "calibrate": calibrate, "export": export, "predict": predict}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: Any) -> Path:
    """Return the folder of a run, as train names it. Importing torch raises an error."""
    folder = tmp_path / "outputs" / "digits" / "mlp-softmax" / "2026-01-02"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"status": "completed"}), encoding="utf-8")
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("given", ["outputs", "outputs/digits"])
def test_a_folder_above_the_runs_names_one_of_them(compose_config, run: Path, command: str, given: str) -> None:
    images = ["images=photos"] if command == "predict" else []
    config = compose_config(f"run={given}", *images, name=command)

    with pytest.raises(UserError, match=rf"^{given} is a folder of runs \(1\).*outputs/digits/mlp-softmax/2026-01-02$"):
        COMMANDS[command](config)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("images=fotos", "fotos does not exist: give a folder of images"),
        ("output=photos", "photos already exists: set another output="),
    ],
)
def test_predict_names_missing_images_and_an_existing_output(compose_config, run: Path, change, sentence) -> None:
    config = compose_config(f"run={run}", "images=photos", change, name="predict")

    with pytest.raises(UserError, match=re.escape(sentence)):
        predict(config)
