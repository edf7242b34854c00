"""Parts that are defined outside of agebench, one of each kind, work with every command."""

import csv
import json
from pathlib import Path

import pytest

from agebench.new.scaffold import write_scaffold

PARTS = {"backbone": "outer_net", "head": "outer_head", "data": "outer_data", "augment": "outer_noise"}
CONF = ("--config-dir", "conf")


def read(path: str) -> dict:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_every_command_works_with_parts_that_are_defined_outside(command, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(tmp_path))
    for kind, name in PARTS.items():
        write_scaffold(kind, name, tmp_path)
    Path("conf/experiment").mkdir()
    lines = ["# @package _global_", "# all outer parts", "defaults:", "  - override /data: outer_data"]
    lines += ["  - override /model: outer_net", "  - override /head: outer_head", "  - override /augment: outer_noise"]
    Path("conf/experiment/outer.yaml").write_text("\n".join([*lines, "trainer:", "  max_epochs: 2", ""]))

    command("prepare", *CONF, "data=outer_data")
    command("audit", *CONF, "data=outer_data", "hydra.run.dir=audit")
    command("train", *CONF, "experiment=outer", "hydra.run.dir=run")
    command("train", *CONF, "experiment=outer", "-m", "seed=1,2", "report=false", "hydra.sweep.dir=sweep")
    for verb, more in {"evaluate": "hydra.run.dir=again", "calibrate": "coverage=0.8", "export": "output=net.onnx",
                       "predict": "output=mine.csv"}.items():  # fmt: skip
        own = ["images=data/outer_data"] if verb == "predict" else []
        with pytest.raises(SystemExit):
            command(verb, "run=run", more, *own)
        assert "add trust=true" in capsys.readouterr().err
        command(verb, "run=run", more, *own, "trust=true")
    command("report.__main__", "run=run")
    command("report.__main__", "run=run", "level=full", "trust=true")
    command("score", *CONF, "predictions=run/predictions.csv", "data=outer_data", "hydra.run.dir=scored")
    command("compare", "sweep", "run", "--output", "table", "--format", "md,json")

    assert read("audit/audit.json")["test_identity_in_train"] == 0  # the split is by person
    results = read("run/results.json")
    assert (results["status"], results["protocol"]) == ("completed", "outer_data/identity/age")
    assert "test/mae" in results["intervals"]
    assert read("again/results.json")["metrics"]["test/mae"] == pytest.approx(results["metrics"]["test/mae"], abs=1e-4)
    assert [read(str(path))["seed"] for path in sorted(Path("sweep").glob("*/results.json"))] == [1, 2]
    assert Path("run/report/index.html").is_file()
    assert Path("run/calibration.json").is_file()
    assert Path("net.onnx").is_file()
    with Path("mine.csv").open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.DictReader(file))) == 400
    assert read("scored/results.json")["metrics"]["test/mae"] == pytest.approx(results["metrics"]["test/mae"], abs=1e-4)
    (table,) = read("table/compare.json")["tables"]
    assert sorted(table["groups"][0]["seeds"]) == [0, 1, 2]
