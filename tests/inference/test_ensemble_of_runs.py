"""Ensembles of trained runs of the digits: their folders, what is refused, and what compare reads."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from agebench.build.checkpoint import read_checkpoint
from agebench.cli.overrides import to_hydra
from agebench.comparison.tables import compare
from agebench.errors import UserError
from agebench.inference.evaluate import evaluate_run
from agebench.inference.export import export_run
from agebench.inference.predict import predict_images
from agebench.models.weights import hash_tensors
from agebench.runs.members import find_members
from agebench.runs.read import find_runs
from agebench.training.fit import fit

pytestmark = pytest.mark.ci

BASE = (
    "data=digits",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
    "report=false",
)
RUNS = {
    "seed0": ("model.hidden=[16]", "seed=0"),
    "seed1": ("model.hidden=[16]", "seed=1"),
    "wide": ("model.hidden=[24]", "seed=0"),
    "tanh": ("model.hidden=[16]", "seed=0", "model.activation=tanh"),
    "split1": ("model.hidden=[16]", "data.split.seed=1"),
    "split2": ("model.hidden=[16]", "data.split.seed=2"),
    "size": ("model.hidden=[16]", "data.image_size=10"),
    "plain": ("model.hidden=[16]", "model.batch_norm=false"),
    "smoothed": ("model.hidden=[16]", "seed=2", "head.label_smoothing=0.1"),
}


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig") as lines:
        return list(csv.DictReader(lines))


def posterior_of(file: Path) -> np.ndarray:
    return np.array([[float(row[f"p({digit})"]) for digit in range(10)] for row in rows(file)])


@pytest.fixture(scope="module")
def runs(compose_config, tmp_path_factory) -> Path:
    """Return the read-only folder of finished runs."""
    folder = tmp_path_factory.mktemp("ensemble") / "runs"
    for name, settings in RUNS.items():
        fit(compose_config(*BASE, *settings), folder / name)
    start = f"model.checkpoint_path={folder}/plain/checkpoints/best.ckpt"
    fit(compose_config(*BASE, *RUNS["plain"], "seed=3", "optim.lr=1e-7", start), folder / "tuned")
    return folder


@pytest.fixture
def evaluate(compose_config, tmp_path):
    """Return a function that tests runs and returns the folder of the results."""

    def start(members: list[Path], *overrides: str) -> Path:
        listed = ",".join(map(str, members))
        config = compose_config(f"run=[{listed}]", "accelerator=cpu", *overrides, name="evaluate")
        evaluate_run(config, tmp_path / "again")
        return tmp_path / "again"

    return start


def test_the_predictions_of_an_ensemble_are_the_means_of_those_of_its_members(runs, evaluate) -> None:
    members = [runs / "seed0", runs / "seed1", runs / "wide"]

    again = evaluate(members)

    expected = np.mean([posterior_of(member / "predictions.csv") for member in members], axis=0)
    tested = rows(again / "predictions.csv")
    np.testing.assert_allclose(posterior_of(again / "predictions.csv"), expected, atol=2e-6)
    share = np.mean([int(row["target"]) == best for row, best in zip(tested, expected.argmax(1), strict=True)])
    assert results(again)["metrics"]["test/accuracy"] == pytest.approx(share)
    assert results(again)["split_sha"] == results(members[0])["split_sha"]


def test_the_results_name_every_member_with_its_weights(runs, evaluate) -> None:
    again = evaluate([runs / "seed0", runs / "seed1"], "tta=flip")

    ensemble = results(again)["ensemble"]
    assert (ensemble["average"], ensemble["tta"]) == ("posteriors", "flip")
    assert [member["seed"] for member in ensemble["members"]] == [0, 1]
    for member, name in zip(ensemble["members"], ("seed0", "seed1"), strict=True):
        assert member["run"] == str(runs / name)
        assert member["weights_sha"] == results(runs / name)["weights_sha"]
    assert results(again)["params"]["total"] == 2 * results(runs / "seed0")["params"]["total"]


def test_a_soup_has_the_mean_weights_of_the_chosen_runs(runs, evaluate) -> None:
    again = evaluate([runs / "plain", runs / "tuned"], "average=weights")

    ensemble = results(again)["ensemble"]
    used = [Path(member["run"]) for member in ensemble["members"] if member["used"]]
    states = [read_checkpoint(each, "tested", results(each), trust=False)[1]["state_dict"] for each in used]
    mean = {name: sum(state[name].double() for state in states) / len(states) for name in states[0]}
    by_hand = hash_tensors({name: each.to(states[0][name].dtype) for name, each in mean.items()})
    assert ensemble["weights_sha"] == by_hand
    assert len(used) == 2
    assert ensemble["monitor"] == "val/accuracy"
    assert ensemble["val"] >= max(member["val"] for member in ensemble["members"])


def test_a_soup_of_runs_with_unrelated_weights_is_the_best_of_them(runs, evaluate) -> None:
    again = evaluate([runs / "seed0", runs / "seed1"], "average=weights")

    members = results(again)["ensemble"]["members"]
    best = max(members, key=lambda member: member["val"])
    assert members[0]["val"] != members[1]["val"]
    assert [member["run"] for member in members if member["used"]] == [best["run"]]


def test_an_ensemble_is_ranked_beside_its_members_and_belongs_to_no_seed(runs, evaluate) -> None:
    again = evaluate([runs / "seed0", runs / "seed1"])

    compared = compare(find_runs([runs / "seed0", runs / "seed1", again]))

    (table,) = compared.tables
    shown = {row.group.params["ensemble"]: len(row.group.runs) for row in table.rows}
    assert shown == {None: 2, "posteriors of 2": 1}
    assert all(row.rank is not None for row in table.rows)


def test_views_of_each_seed_form_a_group_of_seeds(runs, evaluate, tmp_path) -> None:
    for name in ("seed0", "seed1"):
        evaluate([runs / name], "tta=shift").rename(tmp_path / name)

    (table,) = compare(find_runs([runs / "seed0", runs / "seed1", tmp_path])).tables

    assert {row.group.params["tta"]: len(row.group.runs) for row in table.rows} == {None: 2, "shift": 2}


@pytest.mark.parametrize("average", ["posteriors", "weights"])
def test_predict_and_export_take_the_same_runs(runs, tmp_path, average) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pixels = np.random.default_rng(0).integers(256, size=(4, 8, 8), dtype=np.uint8)
    (tmp_path / "写真").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "写真" / f"{i}.png")
    common = {"run": [str(runs / "seed0"), str(runs / "seed1")], "checkpoint": "tested", "trust": False}
    common |= {"average": average, "tta": "flip", "calibration": True}
    given = {"images": str(tmp_path / "写真"), "batch_size": 3, "accelerator": "cpu", "precision": None}

    predict_images(OmegaConf.create(common | given | {"output": str(tmp_path / "p.csv")}))
    export_run(OmegaConf.create(common | {"output": str(tmp_path / "m.onnx"), "format": "onnx"}))

    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    posterior = session.run(["posterior"], {"images": pixels[:, None]})[0]
    np.testing.assert_allclose(posterior, posterior_of(tmp_path / "p.csv"), atol=1e-5)
    about = json.loads((tmp_path / "m.json").read_text())
    assert about["ensemble"]["average"] == average
    assert len(about["weights"]) == 2


def test_a_sweep_stands_for_its_completed_runs(runs, tmp_path) -> None:
    for name in ("seed0", "seed1"):
        shutil.copytree(runs / name, tmp_path / "sweep" / name)
    shutil.copytree(runs / "wide", tmp_path / "sweep" / "failed")
    edit(tmp_path / "sweep" / "failed", status="failed")
    (tmp_path / "sweep" / "sweep.csv").touch()

    assert find_members(str(tmp_path / "sweep")) == [tmp_path / "sweep" / "seed0", tmp_path / "sweep" / "seed1"]


def test_a_folder_of_runs_that_is_no_sweep_is_not_averaged(runs, tmp_path) -> None:
    shutil.copytree(runs / "seed0", tmp_path / "digits" / "seed0")

    assert find_members(str(tmp_path / "digits")) == [tmp_path / "digits" / "seed0"]

    shutil.copytree(runs / "seed1", tmp_path / "digits" / "seed1")
    with pytest.raises(UserError, match=r"is no sweep, and holds 2 runs: .* run=.*/digits/seed1, or run=\[a,b,c\]"):
        find_members(str(tmp_path / "digits"))


def test_a_point_of_a_sweep_with_the_weights_of_another_is_left_out(runs, evaluate, tmp_path, caplog) -> None:
    for name, copied in (("a", "seed0"), ("b", "seed0"), ("c", "seed1")):
        shutil.copytree(runs / copied, tmp_path / "sweep" / name)
    (tmp_path / "sweep" / "sweep.csv").touch()

    with caplog.at_level("INFO"):
        again = evaluate([tmp_path / "sweep"])

    assert [member["run"] for member in results(again)["ensemble"]["members"]] == [
        str(tmp_path / "sweep" / name) for name in ("a", "c")
    ]
    assert f"{tmp_path / 'sweep' / 'b'} is left out: it has the same weights as" in caplog.text


def edit(folder: Path, **entries: object) -> None:
    (folder / "results.json").write_text(json.dumps(results(folder) | entries))


@pytest.mark.parametrize(
    ("members", "overrides", "sentence"),
    [
        (["seed0", "seed0"], [], "twice"),
        (["seed0", "copy"], [], "have the same weights"),
        (["seed0", "unfinished"], [], r"needs completed runs, but .*unfinished is interrupted"),
        (["seed0", "empty"], [], r"empty is not a run"),
        (["seed0", "nowhere"], [], r"nowhere is not a run"),
        (["seed0", "size"], [], r"data.image_size is 8 in .*seed0, and 10 in .*size"),
        (["seed0", "named"], [], r"need the same labels, but label_names is 0, 1.*\(10\) in"),
        (["split1", "split2"], [], r"of the .* test images are images that the model was trained on"),
        (["seed0"], ["average=weights"], "average=weights needs several runs"),
        (["seed0", "wide"], ["average=weights"], r"same network for average=weights, but model.hidden is"),
        (["seed0", "tanh"], ["average=weights"], r"model.activation is"),
        (["seed0", "smoothed"], ["average=weights"], r"head.label_smoothing is"),
        (["split1", "split2"], ["average=weights"], "different splits"),
        (["seed0", "seed1"], ["checkpoint=last.ckpt"], "is a file of one run"),
        (["all_failed"], [], "none of the 1 runs"),
    ],
)
def test_runs_that_cannot_be_averaged_are_refused(runs, evaluate, tmp_path, members, overrides, sentence) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    shutil.copytree(runs / "seed0", tmp_path / "runs" / "copy")
    shutil.copytree(runs / "seed1", tmp_path / "runs" / "unfinished")
    edit(tmp_path / "runs" / "unfinished", status="interrupted")
    (tmp_path / "runs" / "empty").mkdir()
    shutil.copytree(runs / "seed1", tmp_path / "runs" / "all_failed" / "seed1")
    edit(tmp_path / "runs" / "all_failed" / "seed1", status="failed")
    shutil.copytree(runs / "seed1", tmp_path / "runs" / "named")
    checkpoint = tmp_path / "runs" / "named" / "checkpoints" / "best.ckpt"
    stored = torch.load(checkpoint, weights_only=True)
    stored["agebench"]["label_names"][3] = "three"
    torch.save(stored, checkpoint)

    with pytest.raises(UserError, match=sentence):
        evaluate([tmp_path / "runs" / name for name in members], *overrides)
    assert not (tmp_path / "again").exists()


def test_members_that_saw_test_images_are_tested_with_allow_leak_and_it_is_recorded(runs, evaluate) -> None:
    again = evaluate([runs / "split1", runs / "split2"], "allow_leak=true")

    shown = {row["name"] for row in rows(runs / "split1" / "split.csv") if row["part"] == "test"}
    trained = {row["name"] for row in rows(runs / "split2" / "split.csv") if row["part"] == "train"}
    assert results(again)["leak"]["images"] == len(shown & trained) > 0
    seen = results(again)["seen_in_training"]
    assert seen["identity"] == {"unknown": "the tested data has no identities"}
    assert seen["name"] == seen["file"]  # no two digits are identical
    assert seen["name"]["train"] == len(shown & trained)


def test_a_calibration_of_a_member_is_ignored(runs, evaluate, tmp_path, caplog) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "runs" / "seed0" / "calibration.json").write_text("{}")

    with caplog.at_level("INFO"):
        again = evaluate([tmp_path / "runs" / "seed0", tmp_path / "runs" / "seed1"])

    assert "calibration.json is ignored" in caplog.text
    assert "calibration" not in results(again)


def test_a_list_of_runs_is_typed_with_spaces_and_other_scripts() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    def typed(value: str) -> object:
        override = to_hydra(f"run={value}", is_text=lambda key: True, sweeps=False)
        return OverridesParser.create().parse_override(override).value()

    assert [str(each) for each in typed("[出力/a b, 2024,c (1)]")] == ["出力/a b", "2024", "c (1)"]
    assert str(typed("2024_11")) == "2024_11"
    assert str(typed("[2024] 顔")) == "[2024] 顔"


def test_runs_without_brackets_give_a_sentence_about_lists() -> None:
    with pytest.raises(UserError, match=r"no folder a,b: several runs are a list in brackets, run=\[a,b,c\]"):
        find_members("a,b")


def test_dark_digits_on_white_are_reported_and_predicted_like_the_bright_ones_when_inverted(
    runs, tmp_path, caplog
) -> None:
    # The digits of the data set are bright on black.
    pixels = np.zeros((3, 8, 8), dtype=np.uint8)
    pixels[0, 1:7, 3:5] = pixels[1, 1:7, 1:7] = pixels[2, 2, 2:6] = 255
    for name, images in (("bright", pixels), ("dark", 255 - pixels)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    given = {"run": str(runs / "seed0"), "checkpoint": "tested", "trust": False, "average": "posteriors", "tta": None}
    given |= {"calibration": True, "batch_size": 2, "accelerator": "cpu", "precision": None}

    said = {}
    for name, invert in (("bright", False), ("dark", False), ("dark", True)):
        caplog.clear()
        output = tmp_path / f"{name}-{invert}.csv"
        changes = {"images": str(tmp_path / name), "output": str(output), "invert": invert}
        predict_images(OmegaConf.create(given | changes))
        said[output.stem] = [each.message for each in caplog.records if each.levelname == "WARNING"]

    assert said["bright-False"] == said["dark-True"] == []
    assert len(said["dark-False"]) == 1
    assert "3 of 3 images have a bright background" in said["dark-False"][0]
    assert "set invert=true" in said["dark-False"][0]
    assert posterior_of(tmp_path / "dark-True.csv").tolist() == posterior_of(tmp_path / "bright-False.csv").tolist()
    assert posterior_of(tmp_path / "dark-False.csv").tolist() != posterior_of(tmp_path / "bright-False.csv").tolist()
