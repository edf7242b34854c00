"""compile=true and compile=false give the same training, except for rounding."""

import csv
import shutil
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
def test_a_compiled_network_learns_the_same(command) -> None:
    line = ["data=digits", "data.limit=300", "model=keras_cnn", "report=false", "trainer.accelerator=cpu"]
    line += ["trainer.max_epochs=1", "model.conv_dropout=0", "model.dense_dropout=0"]
    losses = []
    for choice in ("true", "false"):
        command("train", *line, f"compile={choice}", f"hydra.run.dir=compile_{choice}")
        (row,) = csv.DictReader(Path(f"compile_{choice}", "metrics.csv").read_text(encoding="utf-8-sig").splitlines())
        losses.append(float(row["train/loss"]))

    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
