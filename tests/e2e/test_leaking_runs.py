"""Commands on a split that leaks identities."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from agebench.pages.material import Material

PEOPLE = 12
QUICK = ("data=table", "data.source.label=age", "data.image_size=8", "trainer.max_epochs=1", "data.target=age")
OTHER = ("data=table", "data.source.label=age", "accelerator=cpu")


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def write_people(folder: Path, *, names: str = "p", first: int = 0, shade: int = 0) -> None:
    """Write uniform images and faces.csv: ten images of each person, at ten consecutive ages.

    No image is identical to one of another shade, 0 to 9.
    """
    folder.mkdir()
    rows = ["path,label,identity,split"]
    for i in range(10 * PEOPLE):
        who, year = i % PEOPLE, i // PEOPLE
        part = "val" if who < 2 else "test" if who < 4 else "train"
        rows.append(f"{i}.png,{20 + 3 * who + year},{names}{first + who},{part}")
        pixels = np.full((8, 8), i, np.uint8)
        pixels[0, 0] = shade
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "faces.csv").write_text("\n".join(rows))


def lookup_mae(folder: Path) -> float:
    """Compute the MAE of an identity lookup from split.csv."""
    with (folder / "split.csv").open(encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    ages: dict[str, list[int]] = {}
    for row in rows:
        if row["part"] == "train":
            ages.setdefault(row["identity"], []).append(int(row["target"]))
    errors = [abs(np.median(ages[row["identity"]]) - int(row["target"])) for row in rows if row["part"] == "test"]
    return float(np.mean(errors))


@pytest.fixture(scope="module")
def leaky_run(train_once, tmp_path_factory):
    """Return a read-only folder with images, `faces`, and a run whose split leaks, `run`."""
    folder = tmp_path_factory.mktemp("leaky")
    write_people(folder / "faces")
    train_once(folder, " ".join([*QUICK, "data.root=faces/faces.csv"]))
    return folder


@pytest.fixture
def leaky(command, leaky_run, tmp_path):
    """Return a copy of the run whose split leaks, as if it had been started beside a copy of its images."""
    shutil.copytree(leaky_run, tmp_path, dirs_exist_ok=True)
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        stored = torch.load(file, weights_only=True)
        stored["agebench"]["started_in"] = str(tmp_path)
        torch.save(stored, file)
    return tmp_path / "run"


def test_a_leak_is_in_the_log_the_results_the_report_and_the_predictions(command, tmp_path, capsys):
    write_people(tmp_path / "faces")

    command("train", *QUICK, "data.root=faces/faces.csv", "hydra.run.dir=run", "report=false")
    stderr = capsys.readouterr().err

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    found = results(tmp_path / "run")
    assert found["protocol"] == "table/random/age"
    assert found["leak"]["lookup_mae"] == pytest.approx(lookup_mae(tmp_path / "run"))
    assert found["leak"]["test_identity_in_train"] == 1
    assert "data/split=random leaks: 100% of the test images" in stderr
    assert f"scores MAE {lookup_mae(tmp_path / 'run'):.2f} years" in stderr.partition("test/mae")[2]
    outcome = Material.of(tmp_path / "run").outcome
    assert outcome is not None
    assert (outcome.lookup_mae, outcome.note[:14]) == (found["leak"]["lookup_mae"], "for comparison")
    with (tmp_path / "run" / "predictions.csv").open(encoding="utf-8-sig") as lines:
        header, *rows = csv.reader(lines)
    assert header[:5] == ["name", "identity", "target", "point", "p(20)"]
    assert header[-1] == "protocol"
    assert {row[-1] for row in rows} == {"table/random/age"}
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    params = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert params["protocol"].string_value == "table/random/age"


def test_a_split_without_a_leak_logs_nothing_about_leaks(command, tmp_path, capsys):
    write_people(tmp_path / "faces")

    command("train", *QUICK, "data.root=faces/faces.csv", "data/split=column", "hydra.run.dir=run", "report=false")
    stderr = capsys.readouterr().err

    assert results(tmp_path / "run")["leak"] is None
    assert "leaks" not in stderr
    assert "for comparison" not in stderr


def test_evaluate_repeats_the_leak_of_a_runs_own_split(command, leaky, tmp_path, capsys):
    capsys.readouterr()
    command("evaluate", "run=run", "accelerator=cpu", "hydra.run.dir=own")
    command("evaluate", "run=run", *OTHER, "data.root=faces/faces.csv", "hydra.run.dir=named")
    stderr = capsys.readouterr().err

    assert results(tmp_path / "own")["leak"] == results(leaky)["leak"]
    assert results(tmp_path / "named")["leak"] == results(leaky)["leak"]
    assert stderr.count(f"scores MAE {results(leaky)['leak']['lookup_mae']:.2f} years") == 2


def test_the_same_test_images_with_another_train_part_do_not_hide_the_leak(command, leaky, tmp_path):
    with (leaky / "split.csv").open(encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    tested = [row["name"] for row in rows if row["part"] == "test"]
    other = [row["name"] for row in rows if row["part"] == "val"]
    (tmp_path / "test.txt").write_text("\n".join(tested))
    (tmp_path / "train.txt").write_text("\n".join(other))
    command("evaluate", "run=run", *OTHER, "data.root=faces/faces.csv", "data/split=column",
            "data.split.train=train.txt", "data.split.test=test.txt", "hydra.run.dir=again")  # fmt: skip

    assert results(tmp_path / "again")["leak"] == results(leaky)["leak"]


def test_evaluate_uses_the_runs_own_data_for_another_split(command, leaky, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path / "faces")
    line = ("evaluate", "run=../run", "accelerator=cpu", "data/split=column")
    with pytest.raises(SystemExit) as end:
        command(*line, "hydra.run.dir=refused")
    stderr = capsys.readouterr().err
    command(*line, "allow_leak=true", "hydra.run.dir=allowed")
    command("evaluate", "run=../run", "accelerator=cpu", "data=table", "data/split=random", "hydra.run.dir=own")

    assert end.value.code == 2
    assert "20 of the 20 test images show people (2 of them) that the model was trained on" in stderr
    assert results(tmp_path / "faces" / "allowed")["protocol"] == "table/column/age"
    assert results(tmp_path / "faces" / "own")["split_sha"] == results(leaky)["split_sha"]
    assert results(tmp_path / "faces" / "own")["metrics"] == pytest.approx(results(leaky)["metrics"], abs=1e-4)


def test_evaluate_warns_if_the_runs_data_root_no_longer_exists(command, leaky, tmp_path, capsys):
    (tmp_path / "faces").rename(tmp_path / "moved")

    with pytest.raises(SystemExit):
        command("evaluate", "run=run", "accelerator=cpu", "data/split=random")
    stderr = capsys.readouterr().err
    command("evaluate", "run=run", *OTHER, "data/split=random",
            "data.root=moved/faces.csv", "allow_leak=true", "hydra.run.dir=again")  # fmt: skip

    assert "the run's data.root=faces/faces.csv no longer exists: using data.root=" in stderr
    assert results(tmp_path / "again")["protocol"] == "table/random/age"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("data.split.seed=1", "data.split.seed needs a data set and a split: add data=table data/split=NAME"),
        ("run=empty data/split=random", "data/split needs a data set: add data=NAME"),
        ("run=nowhere", "nowhere is not a run: it does not exist; give a folder that train wrote"),
    ],
)
def test_evaluate_names_the_missing_argument(command, leaky, tmp_path, capsys, given, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "results.json").write_text('{"status": "completed"}')

    with pytest.raises(SystemExit) as end:
        command("evaluate", "run=run", *given.split())

    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_evaluate_raises_for_people_of_train_unless_allow_leak_is_true(command, leaky, tmp_path, capsys):
    line = ("evaluate", "run=run", *OTHER, "data.root=faces/faces.csv", "data/split=column")

    with pytest.raises(SystemExit) as end:
        command(*line, "hydra.run.dir=refused")
    stderr = capsys.readouterr().err
    command(*line, "allow_leak=true", "hydra.run.dir=allowed")

    with pytest.raises(SystemExit):
        command(*line)

    assert end.value.code == 2
    assert "20 of the 20 test images show people (2 of them) that the model was trained on" in stderr
    assert "allow_leak=true" in stderr
    assert not (tmp_path / "refused").exists()
    assert not (leaky / "evaluate").exists()
    found = results(tmp_path / "allowed")
    assert found["protocol"] == "table/column/age"
    assert (found["leak"]["images"], found["leak"]["identities"]) == (20, 2)
    assert 0 < found["leak"]["lookup_mae"] < found["leak"]["median_mae"]


def test_a_name_is_the_same_person_in_another_table_and_a_number_is_not(command, leaky, tmp_path, capsys):
    write_people(tmp_path / "named")
    write_people(tmp_path / "strangers", names="q", shade=1)

    with pytest.raises(SystemExit):
        command("evaluate", "run=run", *OTHER, "data.root=named/faces.csv", "hydra.run.dir=named_out")
    command("evaluate", "run=run", *OTHER, "data.root=strangers/faces.csv", "hydra.run.dir=strangers_out")

    assert "12 of the 12 test images show people" in capsys.readouterr().err
    assert results(tmp_path / "strangers_out")["leak"] is None
    assert results(tmp_path / "strangers_out")["leak_checked"] is True


def test_a_run_without_split_csv_cannot_be_checked_and_logs_it_once(command, leaky, tmp_path, capsys):
    (leaky / "split.csv").unlink()
    line = ("evaluate", "run=run", *OTHER, "data.root=faces/faces.csv", "data/split=column", "hydra.run.dir=other")

    with pytest.raises(SystemExit) as end:
        command(*line)
    refused = capsys.readouterr().err
    command(*line, "allow_leak=true")

    assert end.value.code == 2
    assert "run has no readable split.csv, so it is unknown which people the model was trained on" in refused
    assert "restore the file, or set allow_leak=true" in refused
    assert capsys.readouterr().err.count("has no readable split.csv") == 1
    found = results(tmp_path / "other")
    assert (found["leak"], found["leak_checked"]) == (None, False)


def test_evaluate_warns_of_file_names_of_train_images_in_another_data_set(command, leaky, tmp_path, capsys):
    write_people(tmp_path / "unnamed", shade=1)
    table = tmp_path / "unnamed" / "faces.csv"
    table.write_text("\n".join(",".join(line.split(",")[:2]) for line in table.read_text().splitlines()))

    command(
        "evaluate",
        "run=run",
        *OTHER,
        "data.root=unnamed/faces.csv",
        "data/split=random",
        "data.split.seed=1",
        "hydra.run.dir=out",
    )

    with (leaky / "split.csv").open(encoding="utf-8-sig") as lines:
        trained = {row["name"] for row in csv.DictReader(lines) if row["part"] == "train"}
    with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8-sig") as lines:
        tested = [row["name"] for row in csv.DictReader(lines)]
    same = sum(name in trained for name in tested)
    stderr = capsys.readouterr().err
    assert (
        f"{same} of the {len(tested)} test images have the file names of images that the model was trained on" in stderr
    )
    assert "unknown whether the run was trained on these identities: the tested data has no identities" in stderr
    found = results(tmp_path / "out")
    assert (found["leak"], found["leak_checked"]) == (None, False)
    assert found["seen_in_training"]["identity"] == {"unknown": "the tested data has no identities"}
    assert found["seen_in_training"]["name"]["train"] == same
    assert found["seen_in_training"]["file"] == {"train": 0, "val": 0}


def test_images_cropped_in_another_way_than_those_of_the_run_raise(command, leaky, capsys):
    with pytest.raises(SystemExit) as end:
        command("evaluate", "run=run", *OTHER, "data.root=faces/faces.csv", "data.crop_mode=center")

    assert end.value.code == 2
    assert (
        "trained with data.crop_mode=squash and must be tested with it: remove data.crop_mode"
        in capsys.readouterr().err
    )


def test_allow_leak_is_true_or_false(command, leaky, capsys):
    with pytest.raises(SystemExit) as end:
        command("evaluate", "run=run", "allow_leak=1")

    assert end.value.code == 2
    assert "allow_leak must be true or false, got 1" in capsys.readouterr().err


def test_evaluate_finds_the_users_lists_from_another_folder(command, tmp_path, monkeypatch):
    write_people(tmp_path / "faces")
    (tmp_path / "train.csv").write_text(",file,age\n" + "\n".join(f"{i},{i}.png,0" for i in range(60)))
    (tmp_path / "test.txt").write_text("\n".join(f"{i}.png" for i in range(60, 100)))
    command("train", *QUICK, "data.root=faces/faces.csv", "data/split=column", "data.split.train=train.csv",
            "data.split.test=test.txt", "hydra.run.dir=run", "report=false")  # fmt: skip
    monkeypatch.chdir(tmp_path / "faces")
    command("evaluate", "run=../run", "accelerator=cpu", "hydra.run.dir=again")

    first, again = results(tmp_path / "run"), results(tmp_path / "faces" / "again")
    assert first["protocol"] == "table/column-train-test/age"
    assert [first["data"][part] for part in ("train", "val", "test")] == [54, 6, 40]
    assert again["metrics"] == first["metrics"]
    assert again["split_sha"] == first["split_sha"]


def test_evaluate_uses_the_runs_test_images_if_other_images_were_removed(command, leaky, tmp_path):
    before = results(leaky)
    for i in range(30, 50):
        (tmp_path / "faces" / f"{i}.png").unlink()

    command("evaluate", f"run={leaky}", "accelerator=cpu", "hydra.run.dir=again")

    with (leaky / "split.csv").open(encoding="utf-8-sig") as rows:
        part = {row["name"]: row["part"] for row in csv.DictReader(rows)}
    with (tmp_path / "again" / "predictions.csv").open(encoding="utf-8-sig") as rows:
        tested = [row["name"] for row in csv.DictReader(rows)]
    assert tested
    assert {part[name] for name in tested} == {"test"}
    assert results(tmp_path / "again")["protocol"] == before["protocol"]


@pytest.mark.parametrize("change", ["an image removed", "another label"])
def test_a_finished_run_of_changed_data_raises(command, tmp_path, capsys, change):
    write_people(tmp_path / "faces")
    line = ("train", *QUICK, "data.root=faces/faces.csv", "data/split=column", "hydra.run.dir=run", "report=false")
    command(*line)
    before = results(tmp_path / "run")
    command(*line)
    again = capsys.readouterr().err

    if change == "an image removed":
        (tmp_path / "faces" / "5.png").unlink()
    else:
        text = (tmp_path / "faces" / "faces.csv").read_text()
        (tmp_path / "faces" / "faces.csv").write_text(text.replace("\n5.png,35,", "\n5.png,36,"))
    with pytest.raises(SystemExit) as stopped:
        command(*line)

    assert "nothing to do" in again
    assert stopped.value.code == 2
    assert "but the images or labels have changed since" in capsys.readouterr().err
    assert results(tmp_path / "run") == before
