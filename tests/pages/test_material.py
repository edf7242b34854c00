"""What a page reads from a folder, and from the folder of the run that was evaluated."""

import json
from pathlib import Path

import pytest

from agebench.pages.material import Material

SPLIT = """name,identity,target,part
a.png,ann,20,train
b.png,ann,21,train
c.png,,21,train
d.png,bob,20,val
e.png,,20,test
"""


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """Return the folder of the evaluation of a run that has the tables of its training."""
    run, folder = tmp_path / "run", tmp_path / "evaluation"
    for each, results in ((run, {}), (folder, {"run": str(run)})):
        each.mkdir()
        (each / "results.json").write_text(json.dumps({"status": "completed", **results}))
    (run / "metrics.csv").write_text("epoch,val/mae\n0,5.5\n1,\n")
    (run / "split.csv").write_text(SPLIT)
    return folder


def test_an_evaluation_shows_the_training_of_its_run(evaluation: Path) -> None:
    material = Material.of(evaluation)

    assert material.history == [{"epoch": 0.0, "val/mae": 5.5}, {"epoch": 1.0}]
    assert material.counts == {"train": {"20": 1, "21": 2}, "val": {"20": 1}, "test": {"20": 1}}


def test_an_unknown_identity_is_no_person(evaluation: Path) -> None:
    assert Material.of(evaluation).identities == {"train": 1, "val": 1, "test": 0}
