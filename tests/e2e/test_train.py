"""The command train: the files of a run, reproducibility, and user errors."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

QUICK = ("data=digits", "trainer.max_epochs=2", "report=false")


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_a_run_writes_every_promised_file_and_key(command, tmp_path):
    command("train", "data=digits", "trainer.max_epochs=2", "hydra.run.dir=out")

    out = tmp_path / "out"
    found = results(out)
    assert found["status"] == "completed"
    assert found["protocol"] == "digits/random/class"
    assert found["params"] == {"total": 6762, "trainable": 6762}  # 64*64+64 + 2*64 + 64*32+32 + 2*32 + 32*10+10
    assert found["data"] == {"train": 1437, "val": 180, "test": 180, "val_is_test": False, "missing": 0, "broken": 0}
    assert found["best"]["monitor"] == "val/accuracy"
    assert found["best"]["mode"] == "max"
    names = ("loss", "accuracy", "top5", "balanced_accuracy", "macro_f1", "nll", "ece")
    assert set(found["metrics"]) == set(found["intervals"]) == {f"test/{name}" for name in names}
    for name in ("accuracy", "loss", "macro_f1"):
        low, high = found["intervals"][f"test/{name}"]
        assert low < found["metrics"][f"test/{name}"] < high
    assert found["bootstrap"] == {
        "over": "image",
        "groups": 180,
        "resamples": 10_000,
        "seed": 0,
        "method": "expanded percentile",
    }
    assert set(found["timing"]) == {"fit_s", "train_images_per_s", "data_wait_share"}
    assert {"split_sha", "seed", "leak", "config", "versions", "git"} <= set(found)
    for name in (
        ".hydra/config.yaml",
        "metrics.csv",
        "per_class.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "train.log",
    ):
        assert (out / name).is_file(), name
    assert list(out.glob("events.out.tfevents*"))
    assert (out / "report" / "confusion.png").stat().st_size > 10_000
    assert not (out / "hparams.yaml").exists()


@pytest.mark.ci
def test_the_report_shows_every_epoch_even_if_the_first_is_the_best(command, tmp_path):
    command("train", "data=digits", "optim=sgd", "optim.lr=1e-12", "model.batch_norm=false", "trainer.max_epochs=4",
            "hydra.run.dir=out")  # fmt: skip

    curves = (tmp_path / "out" / "report" / "curves.csv").read_text(encoding="utf-8-sig").splitlines()
    assert results(tmp_path / "out")["best"]["epoch"] == 0
    assert len(curves) == 1 + 4


def test_predictions_and_split_list_every_test_image_once_and_agree_with_the_accuracy(digits_run):
    with (digits_run / "predictions.csv").open(encoding="utf-8-sig") as lines:
        predictions = list(csv.DictReader(lines))
    with (digits_run / "split.csv").open(encoding="utf-8-sig") as lines:
        tested = {row["name"] for row in csv.DictReader(lines) if row["part"] == "test"}
    assert {row["name"] for row in predictions} == tested
    assert len(predictions) == len(tested) == 180
    right = sum(row["target"] == row["point"] for row in predictions) / len(predictions)
    assert right == pytest.approx(results(digits_run)["metrics"]["test/accuracy"], abs=1e-12)
    row = predictions[0]
    assert sum(float(row[f"p({digit})"]) for digit in range(10)) == pytest.approx(1, abs=1e-4)


def epochs_of(folder: Path, key: str) -> list[float]:
    """Return a metric of each epoch from metrics.csv."""
    with (folder / "metrics.csv").open(encoding="utf-8-sig") as lines:
        return [float(row[key]) for row in csv.DictReader(lines)]


def test_a_checkpoint_with_another_metric_keeps_the_best_epoch_of_that_metric(command, tmp_path):
    command("train", "data=digits", "trainer.max_epochs=3", "report=false", "monitor=val/loss",
            "callbacks.checkpoint.monitor=val/accuracy", "hydra.run.dir=out")  # fmt: skip

    accuracies = epochs_of(tmp_path / "out", "val/accuracy")
    kept = torch.load(tmp_path / "out" / "checkpoints" / "best.ckpt", weights_only=True)
    assert kept["epoch"] == accuracies.index(max(accuracies)) != accuracies.index(min(accuracies))


@pytest.mark.ci
def test_the_best_epoch_of_a_bias_is_the_one_closest_to_zero(command, tmp_path):
    command("train", "data=demo", "data.source.images=300", "data.source.people=40", "data.target=age",
            "data.limit=60", "data.image_size=16", "model=mlp",
            "head=regression", "trainer.max_epochs=4", "report=false", "monitor=val/bias", "seed=2", "optim.lr=1e-1",
            "hydra.run.dir=out")  # fmt: skip

    biases = epochs_of(tmp_path / "out", "val/bias")
    nearest = min(range(4), key=lambda epoch: abs(biases[epoch]))
    kept = torch.load(tmp_path / "out" / "checkpoints" / "best.ckpt", weights_only=True)
    best = results(tmp_path / "out")["best"]
    assert nearest != biases.index(max(biases))  # otherwise the test would pass for the maximum too
    assert kept["epoch"] == best["epoch"] == nearest
    assert best["value"] == pytest.approx(abs(biases[nearest]), rel=1e-6)
    assert (best["monitor"], best["mode"]) == ("val/abs_bias", "min")


def test_metrics_csv_has_one_row_per_epoch(digits_run):
    with (digits_run / "metrics.csv").open(encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert all(0 < float(row["train/loss"]) < 5 and 0 < float(row["val/accuracy"]) <= 1 for row in rows)


@pytest.mark.ci
def test_the_same_seed_gives_the_same_metrics_and_another_seed_does_not(command, tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        command("train", *QUICK, "data.limit=400", "model=small_cnn", "augment=digits", f"seed={seed}",
                f"hydra.run.dir={folder}")  # fmt: skip

    a, b, c = (results(tmp_path / folder)["metrics"] for folder in "abc")
    assert a == b
    assert a != c


def test_a_finished_run_is_neither_repeated_nor_overwritten(command, digits_run, tmp_path, capsys):
    shutil.copytree(digits_run, "out")
    before = (tmp_path / "out" / "results.json").read_bytes()
    command("train", *QUICK, "data.num_workers=1", "hydra.run.dir=out")
    with pytest.raises(SystemExit) as end:
        command("train", *QUICK, "seed=7", "hydra.run.dir=out")

    assert end.value.code == 2
    assert "finished run of another config" in capsys.readouterr().err
    assert (tmp_path / "out" / "results.json").read_bytes() == before


@pytest.mark.ci
def test_the_number_of_workers_does_not_change_the_metrics(command, tmp_path):
    command("train", *QUICK, "augment=digits", "hydra.run.dir=a")
    command("train", *QUICK, "augment=digits", "data.num_workers=1", "hydra.run.dir=b")

    a, b = results(tmp_path / "a"), results(tmp_path / "b")
    assert a["metrics"] == b["metrics"]
    assert a["config"] == b["config"]


def test_evaluate_reproduces_the_metrics_of_the_run(command, digits_run, tmp_path):
    command("evaluate", f"run={digits_run}", "hydra.run.dir=again")

    assert results(tmp_path / "again")["metrics"] == results(digits_run)["metrics"]


def test_evaluate_accepts_another_data_set_with_the_same_labels(command, digits_run, tmp_path):
    other = ("data=digits", "data/split=subset", "data.name=again", "allow_leak=true")  # the same images again
    command("evaluate", f"run={digits_run}", *other, "hydra.run.dir=again")

    found = results(tmp_path / "again")
    assert found["protocol"] == "again/subset/class"
    assert found["trained_protocol"] == "digits/random/class"
    assert found["metrics"]["test/accuracy"] > 0.5


@pytest.mark.ci
def test_a_sweep_with_its_flag_in_the_middle_runs_each_point_in_its_own_folder(command, tmp_path):
    command("train", "data=digits", "-m", "optim.lr=1e-2,1e-3", "trainer.max_epochs=1", "report=false", "sweep=lr")

    folders = sorted(p.parent.name for p in tmp_path.glob("outputs/sweeps/lr/*/results.json"))
    assert [name.rpartition("-")[0] for name in folders] == ["lr-0.001", "lr-0.01"]
    assert all(results(tmp_path / "outputs/sweeps/lr" / name)["status"] == "completed" for name in folders)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("head=softmax,binary", "head=binary needs a target with two labels, but this target has 10"),
        ("head=softmax,coral", "needs labels with an order"),
        ("data/split=random,identity", "needs the identity of each image"),
        ("head._target_=agebench.heads.Softmax,mine.Head", "head._target_=mine.Head cannot be imported"),
        ("launcher.jobs=0 seed=0,1", "launcher.jobs must be auto, or an integer of 1 or more, got 0"),
    ],
)
def test_an_invalid_point_stops_the_sweep_before_the_first_point(command, tmp_path, capsys, wrong, sentence):
    with pytest.raises(SystemExit) as end:
        command("train", *QUICK, "-m", *wrong.split(), "sweep=heads")

    stderr = capsys.readouterr().err
    assert end.value.code == 2
    assert sentence in stderr
    assert "Traceback" not in stderr
    assert not list(tmp_path.glob("**/results.json"))


@pytest.mark.ci
def test_an_invalid_value_in_a_point_stops_the_sweep_before_the_first_point(command, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        command("train", *QUICK, "-m", "optim.lr=1e-3,-1")

    assert end.value.code == 2
    assert "optim.lr must be a number above 0, got -1" in capsys.readouterr().err
    assert not list(tmp_path.glob("**/results.json"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("optim.lrr=1",), "did you mean 'optim.lr'?"),
        (("model=convnxt",), "did you mean 'convnext'?"),
        (("data=cacd",), "no CACD images under"),
        (("data=digits", "data.target=age"), "set data.target=class"),
        (("data=digits", "head=binary"), "two labels"),
        (("data=digits", "model=alexnet"), "set data.image_size=63"),
        (("data=digits", "data.batch_size=1"), "batch norm"),
        (("data=digits", "trainer.precision=16-mixed", "trainer.accelerator=cpu"), "bf16-mixed"),
        (("data=table",), "data.root"),
        (("optim=timm", "optim.opt=lionx"), "lionx"),
        (("trainer.limit_train_batches=0.001",), "leaves no batch"),
        (("callbacks.checkpoint.monitor=val/foo",), "callbacks.checkpoint.monitor must be"),
        (("model._target_=nowhere.Net",), "cannot be imported"),
        (("model._target_=agebench.models.MPL",), "agebench.models has no 'MPL' (did you mean 'MLP'?)"),
        (("-m", "data=digits", "sweep=x,y"), "sweep must be one name for all points"),
        (("-m", "data=cacd,digits"), "no CACD images under"),
        (("data=digits", "model=mlp", "model.pretrained=true"), "no published weights"),
        (("data=digits", "data/split=identity"), "needs the identity of each image"),
    ],
)
def test_a_user_error_is_one_sentence_with_exit_code_2_and_leaves_no_folder(
    command, tmp_path, capsys, arguments, sentence
):
    with pytest.raises(SystemExit) as end:
        command("train", "report=false", *arguments)

    stderr = capsys.readouterr().err
    assert end.value.code == 2
    assert sentence in stderr
    assert "Traceback" not in stderr
    assert "Error executing job" not in stderr
    assert list(tmp_path.glob("outputs/*/*/*")) == []


@pytest.mark.parametrize(
    "line",
    [
        "audit data=table data.root=none.csv",
        "score predictions=none.csv data=digits",
        "evaluate run={run} data=table data.root=none.csv data.target=age",
        "train data=table data.root=none.csv",
        "train -m data=table data.root=none.csv seed=0,1",
    ],
)
def test_a_command_that_wrote_nothing_leaves_no_folder(command, digits_run, tmp_path, line):
    shutil.copytree(digits_run, "run")
    with pytest.raises(SystemExit):
        command(*line.format(run=tmp_path / "run").split())

    folders = (path for path in tmp_path.rglob("[!.]*") if path.is_dir())
    assert [str(path) for path in folders if not any(path.iterdir()) and path != tmp_path / "outputs"] == []
    assert list(tmp_path.rglob("20??-??-??_*")) == []  # the name of a new folder is the time


def test_a_user_error_keeps_an_earlier_run_and_is_recorded_in_it(command, digits_run, tmp_path, capsys):
    shutil.copytree(digits_run, "out")
    kept = json.loads((digits_run / "results.json").read_text()) | {"status": "interrupted"}
    (tmp_path / "out" / "results.json").write_text(json.dumps(kept))
    with pytest.raises(SystemExit) as end:
        command("train", *QUICK, "model.checkpoint_path=none.pt", "hydra.run.dir=out")

    found = results(tmp_path / "out")
    assert end.value.code == 2
    assert (found["status"], found["error"]) == ("failed", "model.checkpoint_path=none.pt does not exist: give a .pth, "
                                                 ".pt, .ckpt or .safetensors file")  # fmt: skip
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "metrics.csv", "predictions.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (digits_run / name).read_bytes()


def test_a_user_error_in_the_first_epoch_leaves_the_users_own_files(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "refusing.py").write_text(
        "from pathlib import Path\n"
        "from lightning.pytorch.callbacks import Callback\n"
        "from agebench.errors import UserError\n"
        "class Refuse(Callback):\n"
        "    def on_train_start(self, trainer, module):\n"
        "        Path('out/notes.txt').write_text('mine')\n"
        "        raise UserError('no')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit) as end:
        command("train", *QUICK, "logger=tensorboard_csv", "+callbacks.mine._target_=refusing.Refuse",
                "hydra.run.dir=out")  # fmt: skip

    assert end.value.code == 2
    assert capsys.readouterr().err.endswith("agebench train: no\n")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["notes.txt"]


@pytest.mark.ci
def test_full_batch_and_online_training_work(command, tmp_path):
    command("train", *QUICK, "model.batch_norm=false", "data.batch_size=full", "hydra.run.dir=full")
    command("train", *QUICK, "model.batch_norm=false", "data.batch_size=1", "data.limit=40", "hydra.run.dir=online")

    with (tmp_path / "full" / "metrics.csv").open(encoding="utf-8-sig") as lines:
        assert [int(row["step"]) for row in csv.DictReader(lines)] == [1, 2]
    with (tmp_path / "online" / "metrics.csv").open(encoding="utf-8-sig") as lines:
        assert [int(row["step"]) for row in csv.DictReader(lines)] == [40, 80]


@pytest.mark.ci
def test_debug_overfit_fits_all_its_images(command, tmp_path):
    command("train", "debug=overfit", "optim.lr=0.01", "trainer.max_epochs=100", "report=false", "hydra.run.dir=out")

    with (tmp_path / "out" / "metrics.csv").open(encoding="utf-8-sig") as lines:
        last = list(csv.DictReader(lines))[-1]
    assert float(last["train/loss"]) < 0.05
    assert float(last["train/accuracy"]) == 1


def test_early_stopping_stops_after_its_patience(command, tmp_path):
    command(
        "train", "data=digits", "model.batch_norm=false", "optim=sgd", "optim.lr=1e-12", "trainer.max_epochs=30",
        "report=false", "callbacks.early_stopping.patience=2", "hydra.run.dir=out",
    )  # fmt: skip

    assert results(tmp_path / "out")["epochs"] == 3


@pytest.mark.ci
def test_the_users_own_backbone_trains(command, tmp_path, monkeypatch):
    (tmp_path / "ownnet.py").write_text(
        "from torch import nn\n"
        "class TinyNet(nn.Sequential):\n"
        "    def __init__(self, *, in_chans, num_classes, width=16):\n"
        "        layers = nn.Conv2d(in_chans, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, num_classes)\n"
        "        super().__init__(*layers)\n"
    )
    (tmp_path / "myconf" / "model").mkdir(parents=True)
    (tmp_path / "myconf" / "model" / "tinynet.yaml").write_text("# mine\n_target_: ownnet.TinyNet\nwidth: 4\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    command("train", *QUICK, "--config-dir", str(tmp_path / "myconf"), "model=tinynet", "hydra.run.dir=yaml")
    command("train", *QUICK, "model._target_=ownnet.TinyNet", "~model.image_size", "~model.hidden", "~model.batch_norm",
            "~model.activation", "+model.width=4", "hydra.run.dir=target")  # fmt: skip

    parameters = 1 * 4 * 9 + 4 + 36 * 4 * 10 + 10
    assert results(tmp_path / "yaml")["params"]["total"] == parameters
    assert results(tmp_path / "target")["params"]["total"] == parameters


@pytest.mark.slow
def test_two_processes_train_and_test_every_image_once(tmp_path):
    train = [sys.executable, "-m", "agebench.train", *QUICK, "hydra.run.dir=out", "trainer.accelerator=cpu"]
    subprocess.run([*train, "trainer.devices=2", "trainer.strategy=ddp"], cwd=tmp_path, check=True)
    for devices in ("1", "2"):
        evaluate = [sys.executable, "-m", "agebench.evaluate", "run=out", f"devices={devices}", "accelerator=cpu"]
        subprocess.run([*evaluate, f"hydra.run.dir=on{devices}"], cwd=tmp_path, check=True)

    trained, one, two = (results(tmp_path / name)["metrics"] for name in ("out", "on1", "on2"))
    for name, value in one.items():
        assert two[name] == pytest.approx(value, abs=1e-6)
        assert trained[name] == pytest.approx(value, abs=1e-6)
    with (tmp_path / "on2" / "predictions.csv").open(encoding="utf-8-sig") as lines:
        names = [row["name"] for row in csv.DictReader(lines)]
    assert len(names) == len(set(names)) == 180


@pytest.mark.slow
def test_after_ctrl_c_the_run_is_interrupted_and_has_its_last_checkpoint(tmp_path):
    import signal
    import time

    line = [sys.executable, "-m", "agebench.train", "data=digits", "trainer.max_epochs=5000", "hydra.run.dir=out"]
    process = subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]

    assert process.returncode == 1
    assert results(tmp_path / "out")["status"] == "interrupted"
    assert (tmp_path / "out" / "checkpoints" / "last.ckpt").exists()
    assert "Traceback" not in stderr


def test_a_user_error_does_not_change_a_finished_run(command, digits_run, tmp_path):
    shutil.copytree(digits_run, "out")
    before = (tmp_path / "out" / ".hydra" / "config.yaml").read_bytes()
    with pytest.raises(SystemExit):
        command("train", *QUICK, "hydra.run.dir=out", "data.split.seed=5", "monitor=val/acuracy")
    command("evaluate", "run=out", "hydra.run.dir=again")

    assert (tmp_path / "out" / ".hydra" / "config.yaml").read_bytes() == before
    assert results(tmp_path / "again")["metrics"] == results(tmp_path / "out")["metrics"]


def test_evaluate_reads_the_data_of_the_run_from_any_folder(command, tmp_path, monkeypatch):
    import numpy as np
    from PIL import Image

    for place, shade in (("here", 0), ("there", 255)):
        for name in ("cat", "dog"):
            for number in range(20):
                folder = tmp_path / place / "pets" / name
                folder.mkdir(parents=True, exist_ok=True)
                value = shade if name == "cat" else 255 - shade
                Image.fromarray(np.full((8, 8), value, np.uint8)).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path / "here")
    command("train", "data=folder", "data.root=pets", "data.image_size=8", "optim.lr=0.02", "trainer.max_epochs=8",
            "report=false", "hydra.run.dir=run")  # fmt: skip
    monkeypatch.chdir(tmp_path / "there")
    command("evaluate", "run=../here/run", "hydra.run.dir=again")

    assert results(tmp_path / "here" / "run")["metrics"]["test/accuracy"] == 1
    assert results(tmp_path / "there" / "again")["metrics"]["test/accuracy"] == 1


def test_with_several_validations_per_epoch_the_best_value_is_that_of_the_tested_checkpoint(command, tmp_path):
    import torch

    command("train", *QUICK, "optim.lr=0.05", "trainer.val_check_interval=5", "hydra.run.dir=out")

    saved = torch.load(tmp_path / "out" / "checkpoints" / "best.ckpt", weights_only=True)
    score = next(v["best_model_score"] for k, v in saved["callbacks"].items() if k.startswith("ModelCheckpoint"))
    assert results(tmp_path / "out")["best"]["value"] == pytest.approx(float(score))


@pytest.mark.ci
def test_a_checkpoint_of_a_run_is_loaded_with_its_statistics(command, tmp_path):
    line = ("data=digits", "report=false", "model=timm", "model.model_name=test_resnet", "data.image_size=32")
    command("train", *line, "trainer.max_epochs=1", "data.limit=60", "hydra.run.dir=first")
    path = "model.checkpoint_path=first/checkpoints/best.ckpt"
    command("train", *line, path, "trainer.max_epochs=1", "data.limit=60", "optim=sgd", "optim.lr=1e-12",
            "hydra.run.dir=second")  # fmt: skip

    import torch

    first, second = (
        torch.load(tmp_path / name / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for name in ("first", "second")
    )
    assert torch.equal(first["normalise.mean"], second["normalise.mean"])
    assert torch.equal(first["normalise.std"], second["normalise.std"])


def test_a_limited_test_has_another_split_sha_than_a_complete_one(command, digits_run, tmp_path):
    command("train", *QUICK, "trainer.limit_test_batches=1", "data.eval_batch_size=50", "hydra.run.dir=part")
    command("evaluate", "run=part", "hydra.run.dir=again")

    complete, part, again = map(results, (digits_run, tmp_path / "part", tmp_path / "again"))
    assert part["data"]["test"] == 45  # the first of 4 equal batches of 180 images
    assert part["split_sha"] != complete["split_sha"]
    assert again["metrics"] == part["metrics"]
