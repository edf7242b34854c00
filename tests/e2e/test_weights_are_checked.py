"""The results describe the weights in the checkpoint that they name, and damaged weights raise an error."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

QUICK = ("data=digits", "trainer.max_epochs=2", "report=false", "callbacks.progress=null", "hydra.run.dir=out")
EMA = "+callbacks.ema._target_=lightning.pytorch.callbacks.EMAWeightAveraging"


def results(folder: str) -> dict:
    return json.loads(Path(folder, "results.json").read_text())


def exit_code(command, *line: str) -> int:
    with pytest.raises(SystemExit) as ended:
        command(*line)
    return ended.value.code


def damage(file: Path, change) -> None:
    """Change only the weights in a checkpoint."""
    held = torch.load(file, weights_only=True)
    change(next(iter(held["state_dict"].values())))
    torch.save(held, file)


def flip_one_bit(weight: torch.Tensor) -> None:
    weight.view(torch.int32)[(0,) * weight.ndim] ^= 1


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def test_with_weight_averaging_the_test_is_that_of_the_checkpoint(command):
    command("train", *QUICK, EMA)

    command("evaluate", "run=out", "hydra.run.dir=again")
    trained, again = results("out"), results("again")
    assert again["metrics"] == pytest.approx(trained["metrics"], abs=1e-6)
    # An average from the first step on is nearly untrained after two epochs.
    assert trained["metrics"]["test/accuracy"] < 0.5


def test_a_callback_that_changes_the_weights_for_the_test_fails_the_run(command, monkeypatch, capsys):
    Path("own.py").write_text(
        "import lightning, torch\n"
        "class Meddle(lightning.Callback):\n"
        "    def on_test_start(self, trainer, module):\n"
        "        with torch.no_grad():\n"
        "            next(module.parameters()).zero_()\n"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))

    code = exit_code(command, "train", *QUICK, "+callbacks.meddle._target_=own.Meddle")

    assert code == 1
    assert results("out")["status"] == "failed"
    assert "a callback changed the weights for the test" in capsys.readouterr().err


def test_a_diverged_training_fails_with_an_error(command, capsys):
    code = exit_code(command, "train", *QUICK, "optim=sgd", "optim.lr=1e30", "model.batch_norm=false")

    found = results("out")
    assert code == 1
    assert found["status"] == "failed"
    assert re.match(
        r"(the loss|the norm of the gradients) is (nan|inf) at step \d+ \(epoch 1, rate 1e\+30\)", found["error"]
    )
    assert "metrics" not in found
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["predict", "evaluate", "export"])
def test_one_flipped_bit_in_a_weight_raises(command, copy, trained, capsys, verb):
    damage(copy / "checkpoints" / "best.ckpt", flip_one_bit)

    more = {"predict": [f"images={trained}/data/demo/CACD2000"], "evaluate": [], "export": []}[verb]
    code = exit_code(command, verb, f"run={copy}", *more)

    assert code == 2
    assert "is damaged: its weights differ from those that were saved" in capsys.readouterr().err


def test_weights_that_are_not_finite_raise(command, copy, trained, capsys):
    file = copy / "checkpoints" / "best.ckpt"
    damage(file, lambda weight: weight.fill_(torch.nan))
    held = torch.load(file, weights_only=True)
    from agebench.models.weights import hash_tensors

    held["agebench"]["weights_sha"] = hash_tensors(held["state_dict"])  # as a training would
    torch.save(held, file)

    code = exit_code(command, "predict", f"run={copy}", "checkpoint=best", f"images={trained}/data/demo/CACD2000")

    assert code == 2
    assert "weights that are not finite" in capsys.readouterr().err


def test_the_weights_of_another_training_raise(command, copy, capsys):
    shutil.copy(copy / "checkpoints" / "best.ckpt", "kept.ckpt")
    about = json.loads((copy / "results.json").read_text())
    (copy / "results.json").write_text(json.dumps({**about, "weights_sha": "0" * 16}))

    code = exit_code(command, "export", f"run={copy}")

    assert code == 2
    assert "does not hold the weights that results.json describes" in capsys.readouterr().err


def test_a_folder_without_a_run_raises_and_is_not_changed(command, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.ckpt").write_text("mine")
    project = tmp_path / "proj"
    (project / "report").mkdir(parents=True)
    (project / "weights").symlink_to(elsewhere)
    for name in ("report/figure.png", "predictions.csv", "draft.part", ".hydra"):
        (project / name).write_text("mine")
    before = {path: path.read_text() for path in project.rglob("*") if path.is_file()}

    for verb in ("train", "audit"):
        code = exit_code(command, verb, "data=digits", "hydra.run.dir=proj")

        assert code == 2
        assert "is not empty and holds no " in capsys.readouterr().err
    assert {path: path.read_text() for path in project.rglob("*") if path.is_file()} == before
    assert (elsewhere / "thesis.ckpt").read_text() == "mine"


def test_a_linked_folder_of_a_run_is_refused_and_not_changed(command, tmp_path, capsys):
    command("train", *QUICK)
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (out / "checkpoints").rename(elsewhere)
    (out / "checkpoints").symlink_to(elsewhere)
    before = {path: path.read_bytes() for path in elsewhere.iterdir()}

    code = exit_code(command, "train", *QUICK, "resume=false")

    assert code == 2
    assert "checkpoints is a link" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in elsewhere.iterdir()} == before


def test_starting_over_removes_only_files_of_a_run_and_follows_no_link(command, tmp_path):
    command("train", *QUICK)
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.ckpt").write_text("mine")
    (out / "checkpoints" / "best.ckpt").unlink()
    (out / "checkpoints" / "best.ckpt").symlink_to(elsewhere / "thesis.ckpt")
    (out / "report").mkdir()
    (out / "report" / "notes.txt").write_text("mine")
    (out / "draft.part").write_text("mine")
    about = json.loads((out / "results.json").read_text())
    (out / "results.json").write_text(json.dumps({**about, "status": "interrupted"}))

    command("train", *QUICK, "resume=false")

    for kept in (elsewhere / "thesis.ckpt", out / "report" / "notes.txt", out / "draft.part"):
        assert kept.read_text() == "mine"
