"""MLflow, Weights & Biases, Trackio and Aim: what a run writes, read with their own readers."""

import json
import sqlite3
import struct
from pathlib import Path

import pytest

from agebench.cli.rules import check_config
from agebench.errors import UserError
from agebench.runs.tracking import open_trackio

LINE = ("data=digits", "model=mlp", "trainer.max_epochs=2", "data.limit=300", "hydra.run.dir=outputs/run")


def log_records(data: bytes) -> list[bytes]:
    """Return the records of a .wandb file: LevelDB's log format after a header of 7 bytes."""
    found, part, at = [], b"", 7
    while at + 7 <= len(data):
        if 2**15 - at % 2**15 < 7:  # the rest of a block is empty
            at += 2**15 - at % 2**15
        _, length, kind = struct.unpack_from("<IHB", data, at)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # complete, or the last part
            found.append(part)
            part = b""
    return found


def results() -> dict:
    return json.loads(Path("outputs/run/results.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("package", ["mlflow", "wandb", "trackio", "aim"])
def test_a_missing_package_is_one_sentence_with_the_command_that_installs_it(compose_config, monkeypatch, package):
    config = compose_config("data=digits", "model=mlp", f"logger={package}")
    monkeypatch.setattr("agebench.cli.rules.find_spec", lambda name: None)

    with pytest.raises(UserError, match=rf"logger={package} needs an extra: .*\[{package}\]"):
        check_config(config)


def test_mlflow_has_hyperparameters_metrics_of_each_epoch_test_metrics_and_the_page(command) -> None:
    pytest.importorskip("mlflow", reason="needs the extra: pip install agebench[mlflow]")

    command("train", *LINE, "logger=mlflow")

    with sqlite3.connect("outputs/mlflow.db") as database:
        params = dict(database.execute("SELECT key, value FROM params"))
        losses = database.execute("SELECT value FROM metrics WHERE key = 'train/loss' ORDER BY step").fetchall()
        test = database.execute("SELECT value FROM metrics WHERE key = 'test/accuracy'").fetchall()
        states = database.execute("SELECT name, status FROM runs").fetchall()
    assert (params["model"], params["optim.lr"], params["seed"]) == ("mlp", "0.001", "0")
    assert len(losses) == 2
    assert test == [(pytest.approx(results()["metrics"]["test/accuracy"]),)]
    assert states == [("outputs/run", "FINISHED")]
    stored = {path.name: path.read_bytes() for path in Path("outputs/mlflow-files").rglob("*") if path.is_file()}
    assert stored["index.html"] == Path("outputs/run/report/index.html").read_bytes()
    assert {"curves.png", "confusion.png"} <= stored.keys()


def test_wandb_has_hyperparameters_metrics_and_the_page_offline(command) -> None:
    pytest.importorskip("wandb", reason="needs the extra: pip install agebench[wandb]")
    from wandb.proto.wandb_internal_pb2 import Record

    command("train", *LINE, "logger=wandb")

    config, history = {}, []  # of both files: the training's, and that of the process that draws the report
    for file in sorted(Path("outputs/run/wandb").glob("offline-run-*/*.wandb")):
        for data in log_records(file.read_bytes()):
            record = Record.FromString(data)
            for item in (*record.run.config.update, *record.config.update):
                config[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
            if items := record.history.item:
                history.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    assert (config["model"], config["optim.lr"], config["seed"]) == ("mlp", 0.001, "0")
    assert len([row for row in history if "train/loss" in row]) == 2
    (test,) = (row["test/accuracy"] for row in history if "test/accuracy" in row)
    assert test == pytest.approx(results()["metrics"]["test/accuracy"])
    assert [row["report/page/_type"] for row in history if "report/page/_type" in row] == ["html-file"]
    (copied,) = Path("outputs/run/wandb").rglob("page_*.html")
    assert copied.read_bytes() == Path("outputs/run/report/index.html").read_bytes()


def test_trackio_has_hyperparameters_metrics_and_the_page(command, monkeypatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(folder := Path.cwd() / "outputs/trackio"))
    trackio = pytest.importorskip("trackio", reason="needs the extra: pip install agebench[trackio]")
    for module in (trackio.utils, trackio.sqlite_storage):  # an earlier test may have imported them
        monkeypatch.setattr(module, "TRACKIO_DIR", folder)

    command("train", *LINE, "logger=trackio")

    with sqlite3.connect("outputs/trackio/agebench.db") as database:
        (config,) = (json.loads(text) for (text,) in database.execute("SELECT config FROM configs"))
        rows = database.execute("SELECT run_name, metrics FROM metrics ORDER BY id").fetchall()
    metrics = [json.loads(text) for _, text in rows]
    assert {name for name, _ in rows} == {"outputs/run"}
    assert (config["model"], config["optim.lr"], config["seed"]) == ("mlp", 0.001, "0")
    assert len([row for row in metrics if "train/loss" in row]) == 2
    (test,) = (row["test/accuracy"] for row in metrics if "test/accuracy" in row)
    assert test == pytest.approx(results()["metrics"]["test/accuracy"])
    assert {"report/curves", "report/confusion", "report/page"} <= metrics[-1].keys()
    (copied,) = Path("outputs/trackio/media").rglob("*.html")
    assert copied.read_bytes() == Path("outputs/run/report/index.html").read_bytes()


def test_trackio_in_a_second_folder_of_a_process_is_one_sentence(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "first"))
    trackio = pytest.importorskip("trackio", reason="needs the extra: pip install agebench[trackio]")
    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "first")
    entry = {"folder": str(tmp_path / "second"), "project": "p", "run": "r", "group": None, "config": {}}

    with pytest.raises(UserError, match=r"Trackio writes to one folder .*first, got .*second"):
        open_trackio(entry)


def test_aim_has_hyperparameters_metrics_and_the_page(command) -> None:
    aim = pytest.importorskip("aim", reason="needs the extra: pip install agebench[aim]")

    command("train", *LINE, "logger=aim")

    entry = json.loads(Path("outputs/run/tracking.json").read_text(encoding="utf-8"))["aim"]
    run = aim.Run(entry["run"], repo="outputs/aim", system_tracking_interval=None, capture_terminal_logs=False)
    metrics = {(m.name, m.context.to_dict().get("subset")): m.values.values_list() for m in run.metrics()}
    pictures = run.get_image_sequence("curves", aim.sdk.run.Context({"subset": "report"}))
    name, params, artifacts = run.name, run["hparams"], run.artifacts
    run.close()
    assert name == "outputs/run"
    assert (params["model"], params["optim.lr"], params["seed"]) == ("mlp", 0.001, "0")
    assert len(metrics["loss", "train"]) == 2
    assert metrics["accuracy", "test"] == [pytest.approx(results()["metrics"]["test/accuracy"])]
    assert len(pictures.values.values_list()) == 1
    assert list(artifacts) == ["index.html"]
    (copied,) = Path("outputs/aim/files").rglob("index.html")
    assert copied.read_bytes() == Path("outputs/run/report/index.html").read_bytes()
