"""Runs whose own network has changed since the training: what predict and evaluate say."""

import logging
import shutil
import sys
from pathlib import Path

import pytest

from agebench.build.checkpoint import read_checkpoint
from agebench.build.module import build_trained
from agebench.errors import UserError
from agebench.inference.evaluate import evaluate_run
from agebench.runs.folder import read_results
from agebench.training.fit import fit

MODULE = "own_changing"
CODE = """
from torch import nn


class Net(nn.Module):
    def __init__(self, *, in_chans, num_classes):
        super().__init__()
        self.fc = nn.Linear(64 * in_chans, num_classes)

    def forward(self, x):
        return self.fc(x.flatten(1))
"""


@pytest.fixture(scope="module")
def trained(compose_config, tmp_path_factory) -> Path:
    """Return a read-only folder with own code, and a run in `run` that was trained with it."""
    folder = tmp_path_factory.mktemp("changing")
    (folder / f"{MODULE}.py").write_text(CODE)
    quick = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "callbacks.progress=null", "report=false")
    cfg = compose_config("data=digits", "data/split=random", *quick)
    cfg.model = {"_target_": f"{MODULE}.Net", "pretrained": False, "checkpoint_path": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        fit(cfg, folder / "run")
    sys.modules.pop(MODULE)
    return folder


@pytest.fixture
def changed(trained, tmp_path, monkeypatch):
    """Return a function that replaces text of the own code and returns the run, as if this were another process."""
    folder = tmp_path / "moved"
    shutil.copytree(trained / "run", folder / "run")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "path", [*sys.path])  # read_checkpoint adds the folder of the training
    monkeypatch.delitem(sys.modules, MODULE, raising=False)

    def change(old: str = "", new: str = "") -> Path:
        assert old in CODE
        (folder / f"{MODULE}.py").write_text(CODE.replace(old, new) if old else CODE)
        return folder / "run"

    yield change
    sys.modules.pop(MODULE, None)


def load(run: Path) -> None:
    _, stored, config = read_checkpoint(run, "tested", read_results(run), trust=True)
    build_trained(config, stored)


def test_a_run_whose_code_is_the_same_is_read_without_a_warning(changed, caplog) -> None:
    load(changed())

    assert not caplog.records


def test_a_run_whose_code_has_changed_is_read_with_one_warning_that_names_the_class(changed, caplog) -> None:
    load(changed("self.fc(x.flatten(1))", "-self.fc(x.flatten(1))"))

    assert len(caplog.messages) == 1
    assert f"run was trained with other code ({MODULE}.Net was " in caplog.messages[0]


def test_weights_that_do_not_fit_changed_code_do_not_blame_the_file(changed) -> None:
    run = changed("self.fc", "self.classifier")

    with pytest.raises(UserError, match=rf"^the weights do not fit {MODULE}.Net, whose code has changed .*Missing"):
        load(run)


@pytest.mark.parametrize(("old", "new"), [("class Net", "class Renamed"), ("num_classes)", "num_classes, width)")])
def test_a_config_that_does_not_fit_changed_code_does_not_blame_the_file(changed, old, new) -> None:
    run = changed(old, new)

    with pytest.raises(UserError, match=rf"does not fit the code of {MODULE}.Net as it is now: ") as raised:
        load(run)

    assert "restore it" not in str(raised.value)


def test_code_that_is_not_found_is_to_be_on_the_path_of_python(changed, trained, monkeypatch) -> None:
    run = changed()
    (run.parent / f"{MODULE}.py").unlink()
    monkeypatch.setattr("agebench.build.checkpoint.sys.path", [each for each in sys.path if each != str(trained)])
    hidden = (trained / f"{MODULE}.py").rename(trained / "hidden")

    try:
        with pytest.raises(UserError, match=rf"No module named '{MODULE}'.*add that folder to PYTHONPATH$") as raised:
            load(run)
    finally:
        hidden.rename(trained / f"{MODULE}.py")

    assert "restore it" not in str(raised.value)


def test_an_evaluation_with_other_metrics_names_the_changed_class(changed, compose_config, caplog, tmp_path) -> None:
    run = changed("self.fc(x.flatten(1))", "-self.fc(x.flatten(1))")

    with caplog.at_level(logging.WARNING):
        evaluate_run(compose_config(f"run={run}", "accelerator=cpu", "trust=true", name="evaluate"), tmp_path / "again")

    (found,) = [message for message in caplog.messages if "differ from those that train reported" in message]
    assert f"the code has changed since then ({MODULE}.Net was " in found
