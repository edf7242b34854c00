"""The report command, and the reports that train and a sweep leave."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agebench.files import read_csv

TINY = ("data=digits", "model=mlp", "data.limit=60", "trainer.max_epochs=1", "callbacks.progress=null", "logger=csv")


@pytest.mark.ci
def test_train_makes_the_page_that_the_command_makes_again(command, tmp_path, capsys) -> None:
    command("train", *TINY, "hydra.run.dir=run")
    page = tmp_path / "run" / "report" / "index.html"
    of_train = page.read_text(encoding="utf-8")
    page.unlink()

    command("report.__main__", "run=run")

    assert page.read_text(encoding="utf-8") == of_train
    assert page.as_uri() in (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    assert page.as_uri() in "".join(capsys.readouterr())
    assert {"images.npz"} == {path.name for path in page.parent.glob("*.npz")}
    total = sum(int(row["parameters"]) for row in read_csv(tmp_path / "run" / "layers.csv"))
    assert total == json.loads((tmp_path / "run" / "results.json").read_text())["params"]["total"]

    command("report.__main__", "run=run", "level=full")

    assert {f"features_{part}.npz" for part in ("train", "val", "test")} <= {
        path.name for path in page.parent.iterdir()
    }
    assert (page.parent / "tsne_train.png").is_file()
    assert page.stat().st_size > len(of_train)


def test_a_folder_that_is_no_run_is_one_sentence(command, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(SystemExit) as end:
        command("report.__main__", "run=empty")

    assert end.value.code == 2
    assert "agebench report: empty is not a run: it has no readable results.json" in capsys.readouterr().err


@pytest.mark.ci
def test_a_sweep_has_a_page_for_itself_and_one_for_each_point(tmp_path) -> None:
    line = [sys.executable, "-m", "agebench.train", *TINY, "sweep=s", "-m", "seed=0,1"]
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)

    sweep = tmp_path / "outputs" / "sweeps" / "s"
    pages = sorted(sweep.glob("*/report/index.html"))
    links = (sweep / "sweep.html").read_text(encoding="utf-8")
    assert len(pages) == 2
    for page in pages:
        assert f'href="{Path(page).relative_to(sweep).as_posix()}"' in links
