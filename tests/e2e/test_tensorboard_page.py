"""The pages of `tensorboard --logdir outputs`, read from its server."""

import csv
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

pytestmark = pytest.mark.slow
Ask = Callable[..., Any]


def train(folder: Path, *line: str) -> None:
    command = [sys.executable, "-m", "agebench.train", "trainer.accelerator=cpu", "trainer.max_epochs=2", *line]
    subprocess.run(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=300)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one run and a sweep of four points, which have other metrics."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder, "data=demo", "data.limit=60", "data.image_size=16", "model=mlp", "data.target=age", "head=coral")
    train(folder, "data=digits", "model=mlp", "-m", "optim.lr=1e-3,1e-2", "seed=0,1", "launcher.jobs=2", "sweep=s")
    return folder / "outputs"


@pytest.fixture(scope="module", params=["false", "true"], ids=["in Python", "load_fast"])
def ask(outputs: Path, request: pytest.FixtureRequest) -> Iterator[Ask]:
    line = [sys.executable, "-m", "tensorboard.main", "--port", "0", "--load_fast", request.param]
    board = subprocess.Popen([*line, "--logdir", "."], cwd=outputs, stderr=subprocess.PIPE, text=True)
    assert board.stderr is not None
    address = next(found[0] for text in board.stderr if (found := re.search(r"http://\S+:\d+", text)))

    def get(path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        query = urllib.request.Request(f"{address}/data/{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(query, timeout=30) as response:
            return json.load(response)

    before, end = None, time.monotonic() + 60
    while (now := get("plugin/scalars/tags")) != before or len(now) < 5:  # TensorBoard loads the data in the background
        assert time.monotonic() < end
        before = now
        time.sleep(2)
    yield get
    board.terminate()
    board.communicate()


def results(outputs: Path) -> dict[str, dict]:
    return {
        path.parent.relative_to(outputs).as_posix(): json.loads(path.read_text()) for path in outputs.rglob("r*.json")
    }


MEANS = ["sweeps/s/lr=0.001 (mean of 2)", "sweeps/s/lr=0.01 (mean of 2)"]


def test_the_page_lists_every_run_and_the_means_over_seeds(outputs: Path, ask: Ask) -> None:
    assert sorted(ask("runs")) == sorted([*results(outputs), *MEANS])
    tags = {tag for tags in ask("plugin/scalars/tags").values() for tag in tags}
    assert "hp_metric" not in tags
    assert {"x_test/accuracy", "x_test/mae"} <= tags


def test_the_page_opens_on_the_curves_of_train_and_val(ask: Ask) -> None:
    """TensorBoard sorts groups of cards by name, and opens the first two."""
    scalars = {tag for tags in ask("plugin/scalars/tags").values() for tag in tags}
    images = {tag for tags in ask("plugin/images/tags").values() for tag in tags}

    groups = sorted({tag.partition("/")[0] for tag in scalars | images})

    assert groups == ["train", "val", "val-and-test", "x_report", "x_std", "x_steps", "x_test"]


def test_the_custom_page_has_a_band_over_the_seeds_for_each_curve(outputs: Path, ask: Ask) -> None:
    (category,) = ask("plugin/custom_scalars/layout")["category"]

    assert {"train/loss", "val/loss", "train/accuracy", "val/accuracy"} <= {each["title"] for each in category["chart"]}
    for run, rate in zip(MEANS, ("0.001", "0.01"), strict=True):
        tables = [path.read_text("utf-8-sig") for path in outputs.glob(f"sweeps/s/lr-{rate}_seed-*/metrics.csv")]
        assert len(tables) == 2
        for chart in category["chart"]:
            (series,) = chart["margin"]["series"]
            seeds = [[float(row[chart["title"]]) for row in csv.DictReader(text.splitlines())] for text in tables]
            curves = ask(f"plugin/custom_scalars/scalars?run={quote(run)}&tag={quote('|'.join(series.values()))}")
            middle, lower, upper = (
                [value for _, _, value in curves["tag_to_events"][series[name]]] for name in ("value", "lower", "upper")
            )
            assert middle == pytest.approx(np.mean(seeds, axis=0), rel=1e-5)
            assert np.subtract(upper, lower) / 2 == pytest.approx(np.std(seeds, axis=0, ddof=1), rel=1e-2, abs=1e-6)


def test_the_hparams_page_has_one_row_per_run_or_group_of_seeds_with_the_metrics_of_results_json(
    outputs: Path, ask: Ask
) -> None:
    page = ask("plugin/hparams/experiment", {"experimentName": ""})
    query = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS"],
        "colParams": [{"metric": info["name"]} for info in page["metricInfos"]],
        "sliceSize": 100,
    }
    rows = ask("plugin/hparams/session_groups", query)["sessionGroups"]

    assert {"data", "model", "head", "optim.lr", "seed"} <= {info["name"] for info in page["hparamInfos"]}
    assert sorted(len(row["sessions"]) for row in rows) == [1, 2, 2]
    assert sorted(session["name"] for row in rows for session in row["sessions"]) == sorted(results(outputs))
    for row in rows:
        names = [session["name"] for session in row["sessions"]]
        written = [results(outputs)[name] for name in names]
        shown = {value["name"]["tag"]: value["value"] for value in row["metricValues"]}
        best = f"val-and-test/val_best_{written[0]['best']['monitor'].removeprefix('val/')}"
        tested = {tag: value for tag, value in shown.items() if tag.startswith(("x_test/", "val-and-test/"))}
        assert best in tested
        assert len(tested) >= 5
        for tag, value in tested.items():
            key = tag.removeprefix("x_").replace("val-and-test/test_", "test/")
            expected = [each["best"]["value"] if tag == best else each["metrics"][key] for each in written]
            assert value == pytest.approx(np.mean(expected), rel=1e-6), (names, tag)
        if len(names) == 1:
            assert row["hparams"]["seed"] == str(written[0]["seed"])
        else:
            assert {name.partition("_seed")[0] for name in names} == {f"sweeps/s/lr-{row['hparams']['optim.lr']:g}"}
            assert "seed" not in row["hparams"]


def test_each_figure_is_logged_once_and_the_projector_has_labels_and_thumbnails(outputs: Path, ask: Ask) -> None:
    for run, tags in ask("plugin/images/tags").items():
        of_labels = "estimates" if "demo" in run else "confusion"  # of many ordered labels
        assert {f"x_report/{of_labels}", "x_report/curves"} <= set(tags)
        for tag in tags:
            assert len(ask(f"plugin/images/images?run={quote(run)}&tag={quote(tag)}&sample=0")) == 1

    assert sorted(ask("plugin/projector/runs")) == sorted(results(outputs))
    for run, written in results(outputs).items():
        (embedding,) = ask(f"plugin/projector/info?run={quote(run)}")["embeddings"]
        assert embedding["tensorShape"][0] == written["data"]["test"]
        assert (outputs / run / embedding["metadataPath"]).read_text().startswith("target\tpoint\tname\n")
        assert (outputs / run / embedding["sprite"]["imagePath"]).is_file()
