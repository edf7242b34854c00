"""A command writes only inside its folder, also if the folder contains links."""

import logging
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from agebench.errors import UserError
from agebench.files import write_json
from agebench.runs.folder import check_folder, write_config


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "results.json", {"status": "failed", "config": "0"})
    return tmp_path / "run"


@pytest.mark.parametrize("name", [".hydra", "checkpoints", "csv", "report", "report/projector"])
def test_a_link_in_place_of_a_folder_of_a_run_is_refused(run: Path, name: str) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).symlink_to(run.parent / "theirs")

    with pytest.raises(UserError, match=f"{name} is a link.*choose another hydra.run.dir"):
        check_folder(run, "run")


@pytest.mark.parametrize("name", [".lock", "train.log", "console.log", "evaluate.log", "audit.log"])
def test_a_link_in_place_of_a_log_or_a_lock_is_removed_and_its_target_kept(run: Path, name: str) -> None:
    (run / name).symlink_to(run.parent / "theirs" / "thesis.txt")

    check_folder(run, "run")

    assert not (run / name).is_symlink()
    assert (run.parent / "theirs" / "thesis.txt").read_text() == "mine"


def test_links_that_agebench_does_not_write_are_kept(run: Path) -> None:
    (run / "notes").symlink_to(run.parent / "theirs")

    check_folder(run, "run")

    assert (run / "notes" / "thesis.txt").read_text() == "mine"


def test_the_config_is_not_written_through_a_link(run: Path) -> None:
    (run / ".hydra").mkdir()
    (run / ".hydra" / "config.yaml").symlink_to(run.parent / "theirs" / "thesis.txt")

    write_config(run, OmegaConf.create({"seed": 3}))

    assert (run / ".hydra" / "config.yaml").read_text() == "seed: 3\n"
    assert (run.parent / "theirs" / "thesis.txt").read_text() == "mine"


def test_a_checkpoint_outside_of_the_run_is_not_removed(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    from agebench.training.checkpoints import AtomicCheckpointIO

    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "old.ckpt").write_text("old")
    remover = AtomicCheckpointIO(run)

    with caplog.at_level(logging.WARNING):
        remover.remove_checkpoint(str(run / "checkpoints" / ".." / ".." / "theirs" / "thesis.txt"))
    remover.remove_checkpoint(str(run / "checkpoints" / "old.ckpt"))

    assert (run.parent / "theirs" / "thesis.txt").read_text() == "mine"
    assert not (run / "checkpoints" / "old.ckpt").exists()
    assert "not inside the run" in caplog.text
