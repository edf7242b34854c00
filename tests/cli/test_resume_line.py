"""`resume=FOLDER` expands to the command line of that run."""

from pathlib import Path

import pytest
import yaml

from agebench.cli.resume import expand_resume
from agebench.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Return the folder of a run that was started in `began`, with the files that Hydra writes."""
    made = tmp_path / "a run=1"
    (made / ".hydra").mkdir(parents=True)
    (tmp_path / "began").mkdir()
    sources = [{"path": "hydra.conf", "provider": "hydra"}, {"path": "/my conf", "provider": "command-line"}]
    runtime = {"cwd": str(tmp_path / "began"), "config_sources": sources}
    hydra = ["hydra.run.dir=elsewhere", "hydra.mode=RUN", "hydra.searchpath=[file:///x]"]
    task = ["data=digits", "+model.width=4", "resume=false", "trust=false", "optim.lr=1e-3"]
    (made / ".hydra" / "hydra.yaml").write_text(
        yaml.safe_dump({"hydra": {"runtime": runtime, "overrides": {"hydra": hydra, "task": task}}})
    )
    (made / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(task))
    monkeypatch.chdir(tmp_path)
    return made


@pytest.mark.parametrize(
    "line",
    [
        ["data=digits", "model=mlp"],
        ["resume=auto", "-m", "seed=0,1"],
        ["resume=false"],
        ["resume=False", "data=mnist"],
        ["resume=nowhere", "--help"],
        [],
    ],
)
def test_any_other_line_is_unchanged(line) -> None:
    assert expand_resume(line) == line


def test_a_folder_expands_to_the_overrides_and_working_directory_of_its_run(folder, tmp_path) -> None:
    line = expand_resume(["resume=a run=1", "report=false", "trust=true"])

    own = f"'{folder}'"
    assert line == [
        "--config-dir=/my conf",
        "data=digits",
        "+model.width=4",
        "optim.lr=1e-3",
        "hydra.searchpath=[file:///x]",
        "report=false",
        "trust=true",
        f"resume={own}",
        f"hydra.run.dir={own}",
    ]
    assert Path.cwd() == tmp_path / "began"
    assert expand_resume(line) == line  # a DDP rank is started with the expanded line


def test_the_trust_of_an_earlier_command_is_not_repeated(folder) -> None:
    hydra = yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text())
    hydra["hydra"]["runtime"]["config_sources"], hydra["hydra"]["overrides"]["hydra"] = [], []
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(["data=digits", "trust=true"]))

    line = expand_resume(["resume=a run=1"])

    assert line == ["data=digits", f"resume='{folder}'", f"hydra.run.dir='{folder}'"]


def test_a_folder_of_configs_needs_trust(folder, tmp_path) -> None:
    with pytest.raises(UserError, match=r"\.hydra names --config-dir=/my conf, hydra.searchpath=.*add trust=true"):
        expand_resume(["resume=a run=1", "report=false"])

    assert Path.cwd() == tmp_path


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["resume=nowhere"], r"resume=nowhere is not a run.*give a folder that train wrote"),
        (["resume=runs"], r"not a run .*: give a folder that train wrote, such as .*/runs/torn, auto or false"),
        (["resume=a run=1", "-m", "seed=0,1"], "remove -m"),
        (["resume=a run=1", "hydra.run.dir=there"], "remove hydra.run.dir"),
        (["resume=swept"], "is a sweep: repeat the command of the sweep"),
        (["resume=runs/torn"], r"overrides.yaml cannot be read|hydra.yaml cannot be read"),
    ],
)
def test_a_folder_that_is_not_a_run_is_refused_in_one_sentence(folder, tmp_path, line, sentence) -> None:
    (tmp_path / "swept").mkdir()
    (tmp_path / "swept" / "multirun.yaml").touch()
    (tmp_path / "runs" / "torn" / ".hydra").mkdir(parents=True)
    (tmp_path / "runs" / "torn" / ".hydra" / "overrides.yaml").write_text("[")

    with pytest.raises(UserError, match=sentence):
        expand_resume(line)
