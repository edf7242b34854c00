"""agebench.api in one process, as a notebook uses it."""

import json
import logging
import signal
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from agebench.api import Run, Table, compare, load, train
from agebench.api.settings import to_overrides
from agebench.errors import UserError

SMALL = {"trainer": {"max_epochs": 1}, "report": False}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Run, Run]:
    """Return two runs of different seeds that one process trained."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return train("data=digits", "model=mlp", **SMALL), train(data="digits", model="mlp", seed=1, **SMALL)


def digits(count: int) -> np.ndarray:
    return (load_digits().images[:count] * 255 / 16).round().astype(np.uint8)


def test_a_run_has_the_metrics_and_intervals_of_its_results_file(runs) -> None:
    first, second = runs
    written = json.loads((first.folder / "results.json").read_text())

    assert first.status == "completed"
    assert first.metrics["accuracy"] == written["metrics"]["test/accuracy"]
    assert list(first.intervals["accuracy"]) == written["intervals"]["test/accuracy"]
    assert json.loads((second.folder / "results.json").read_text())["seed"] == 1
    assert len(first.history()) == 1
    assert len(first.test_predictions()) == 180


def test_training_leaves_signals_loggers_and_the_state_of_hydra_as_they_were(runs, tmp_path, monkeypatch) -> None:
    from hydra.core.global_hydra import GlobalHydra

    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    before = [signal.getsignal(n) for n in numbers], logging.getLogger().handlers[:], sys.argv[:]

    train("data=digits", trainer={"max_epochs": 1}, report=False)

    assert ([signal.getsignal(n) for n in numbers], logging.getLogger().handlers[:], sys.argv[:]) == before
    assert logging.getLogger("agebench").handlers == []
    assert not GlobalHydra.instance().is_initialized()


def test_messages_are_shown_and_logged(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)

    run = train("data=digits", "hydra.run.dir=here", **SMALL)

    assert run.folder == tmp_path / "here"
    assert "test/accuracy" in capsys.readouterr().out
    assert "test/accuracy" in (tmp_path / "here" / "train.log").read_text(encoding="utf-8")
    assert train("data=digits", "hydra.run.dir=here", **SMALL).metrics == run.metrics  # finished: not trained again


def test_arrays_pictures_and_files_of_the_same_image_have_the_same_prediction(runs, tmp_path) -> None:
    pixels = digits(3)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    paths = sorted(tmp_path.glob("*.png"))

    ways = [
        pixels[..., None].repeat(3, axis=3),
        list(pixels),
        [Image.fromarray(each) for each in pixels],
        paths,
        tmp_path,
    ]
    tables = [load(runs[0].folder).predict(each) for each in ways]

    probabilities = [[[row[f"p({d})"] for d in range(10)] for row in table] for table in tables]
    for found in probabilities[1:]:
        np.testing.assert_allclose(found, probabilities[0], atol=1e-6)
    np.testing.assert_allclose(np.sum(probabilities[0], axis=1), 1, atol=1e-4)
    assert tables[0].column("name") == ["image 0", "image 1", "image 2"]
    assert tables[-1].column("name") == ["0.png", "1.png", "2.png"]
    assert tables[0].column("label") == [str(np.argmax(row)) for row in probabilities[0]]


def test_the_predictions_are_those_of_the_network(runs) -> None:
    stored = torch.load(runs[0].folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    pixels = torch.from_numpy(digits(2)).float()[:, None] / 255

    table = runs[0].predict(digits(2)[0])

    hidden = ((pixels[:1] - stored["normalise.mean"]) / stored["normalise.std"]).flatten(1)
    for i in (1, 2):
        hidden = hidden @ stored[f"model.linear{i}.weight"].T + stored.get(f"model.linear{i}.bias", 0)
        scale = stored[f"model.norm{i}.weight"] / (stored[f"model.norm{i}.running_var"] + 1e-5).sqrt()
        hidden = ((hidden - stored[f"model.norm{i}.running_mean"]) * scale + stored[f"model.norm{i}.bias"]).relu()
    expected = (hidden @ stored["model.classifier.weight"].T + stored["model.classifier.bias"]).softmax(1)[0]
    np.testing.assert_allclose([table[0][f"p({d})"] for d in range(10)], expected, atol=1e-4)


def test_the_module_of_a_run_gives_the_probabilities_of_its_predictions(runs) -> None:
    pixels = torch.from_numpy(digits(3))[:, None]  # (3, 1, 8, 8)

    module = runs[0].module()
    with torch.no_grad():
        posterior = module.head.posterior(module(pixels))
        outputs = module.model(module.normalise(pixels))

    table = runs[0].predict(list(digits(3)))
    np.testing.assert_allclose(posterior, [[row[f"p({d})"] for d in range(10)] for row in table], atol=1e-5)
    np.testing.assert_allclose(outputs, module(pixels).detach(), atol=1e-6)


def test_a_change_of_the_module_does_not_change_the_predictions_of_the_run(runs) -> None:
    before = runs[0].predict(digits(1)[0]).rows

    with torch.no_grad():
        for parameter in runs[0].module().parameters():
            parameter.zero_()

    assert runs[0].predict(digits(1)[0]).rows == before


def test_a_run_that_has_predicted_keeps_to_the_settings_of_each_call(runs) -> None:
    image, run = digits(4)[3], load(runs[0].folder)

    plain, mirrored = run.predict([image, np.ascontiguousarray(image[:, ::-1])])
    (flipped,) = run.predict(image, tta="flip")

    labels = [f"p({digit})" for digit in range(10)]
    expected = [(plain[label] + mirrored[label]) / 2 for label in labels]
    np.testing.assert_allclose([flipped[label] for label in labels], expected, atol=1e-5)
    assert abs(flipped["p(3)"] - plain["p(3)"]) > 1e-3


def test_an_image_that_cannot_be_read_has_a_problem_and_no_prediction(runs, tmp_path) -> None:
    (tmp_path / "text.png").write_text("no image")

    table = runs[0].predict([digits(1)[0], tmp_path / "text.png", tmp_path / "absent.png"])

    assert [row["label"] is None for row in table] == [False, True, True]
    assert [row["p(0)"] is None for row in table] == [False, True, True]
    assert table[0]["point"] == table[0]["label"] == "0"  # the name of a class
    assert table[0]["problem"] is None
    assert "not an image" in table[1]["problem"]
    assert table[2]["problem"] == "there is no such file"


def test_a_comparison_pools_the_seeds_and_shows_the_command_s_table(runs, tmp_path) -> None:
    compared = compare(*runs)

    (row,) = compared.rows
    values = [run.metrics["accuracy"] for run in runs]
    assert row["metrics"]["test/accuracy"]["mean"] == pytest.approx(sum(values) / 2)
    assert sorted(row["seeds"]) == [0, 1]
    assert "| rank | run" in compared._repr_markdown_()
    assert compared._repr_html_().count("<tr>") == 3  # header, group, baseline
    assert compared.pictures()["curves"]._repr_png_()[0].startswith(b"\x89PNG")
    assert {path.name for path in compared.write(tmp_path)} >= {"compare.html", "compare.md", "compare.csv"}


def test_a_comparison_takes_several_names_in_one_text_as_the_command_does(runs) -> None:
    header = compare(*runs, columns="nll, ece")._repr_markdown_().splitlines()[2]

    names = [cell.strip() for cell in header.split("|")]
    assert names[names.index("n") + 2 : names.index("fit (s)")] == ["nll", "ece"]
    with pytest.raises(UserError, match="no run here has groups by 'sex'; groups: evaluate"):
        compare(*runs, gaps="sex,race")


def test_what_a_notebook_shows_is_escaped() -> None:
    table = Table(["<b>", "years"], [["<script>", 1.23456], ["x", None]], caption="a & b")

    html = table._repr_html_()

    assert "<script>" not in html
    assert "<th>&lt;b&gt;</th>" in html
    assert ">1.235</td>" in html
    assert "a &amp; b" in html


def test_a_long_table_shows_its_first_rows() -> None:
    table = Table(["n"], [[i] for i in range(1_000)])

    assert table._repr_html_().count("<tr>") == 21
    assert "980 more rows" in repr(table)
    assert "more rows" not in repr(Table(["n"], [[i] for i in range(20)]))
    assert len(table.rows) == 1_000


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"data": "mnist"}, ["data=mnist"]),
        ({"data": {"split": "kfold", "limit": 5}}, ["data/split=kfold", "data.limit=5"]),
        ({"trainer": {"max_epochs": 2}}, ["trainer.max_epochs=2"]),
        ({"optim": {"lr": 1e-5}, "augment": {"mixup": None}}, ["optim.lr=1e-05", "augment.mixup=null"]),
        ({"report": False, "sweep": "it's, here"}, ["report=false", "sweep='it\\'s, here'"]),
        ({"data": {"bins": (18, 30)}}, ["data.bins=[18,30]"]),
    ],
)
def test_settings_are_written_in_the_grammar_of_hydra(settings, expected) -> None:
    assert to_overrides("config", [], settings) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: train("model=mpl"), "did you mean 'mlp'"),
        (lambda run: train(optim={"lrr": 1}), "did you mean 'optim.lr'"),
        (lambda run: train("optim.lr=abc"), "optim.lr must be a number above 0, got abc"),
        (lambda run: train("-m", "seed=1,2"), "must be a text KEY=VALUE"),
        (lambda run: train("seed=1,2"), "seed has several values"),
        (lambda run: train(seed={1, 2}), "seed must be a number, a text"),
        (lambda run: train(config_dir="absent"), "there is no folder absent"),
        (lambda run: train("trainer.devices=2", "trainer.accelerator=cpu"), r"trainer.devices=2 .* needs the command"),
        (lambda run: train(resume="outputs/x"), "hydra.run.dir instead"),
        (lambda run: load("absent"), "absent is not a run"),
        (lambda run: compare(), "compare needs runs"),
        (lambda run: compare(run, metric="acuracy"), "did you mean 'accuracy'"),
        (lambda run: run.predict("absent"), "absent does not exist"),
        (lambda run: run.predict(np.zeros((8, 8))), r"must be uint8 .* got float64 of shape \(8, 8\)"),
        (lambda run: run.predict([]), "needs an image"),
        (lambda run: run.predict(3), "images must be a path"),
        (lambda run: run.predict(digits(1), accelerater="cpu"), "did you mean 'accelerator'"),
        (lambda run: run.history().column("loss"), "no column 'loss'; it has epoch"),
    ],
)
def test_a_mistake_is_a_user_error_with_the_sentence_of_the_command(runs, tmp_path, monkeypatch, call, message) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError, match=message):
        call(runs[0])

    assert list(tmp_path.iterdir()) == []


def test_an_interruption_is_a_keyboard_interrupt_and_the_same_call_resumes(tmp_path, monkeypatch) -> None:
    from agebench.module import ImageModule

    monkeypatch.chdir(tmp_path)
    ends = ImageModule.on_train_epoch_end

    def interrupt(self) -> None:
        ends(self)
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    call = {"data": "digits", "trainer": {"max_epochs": 3}, "report": False, "hydra": {"run": {"dir": "here"}}}
    with monkeypatch.context() as patch:
        patch.setattr(ImageModule, "on_train_epoch_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(**call)

    assert load("here").status == "interrupted"
    run = train(**call)
    assert run.status == "completed"
    assert run.results["resumed"] == 1


def test_pandas_is_named_if_it_is_missing(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(UserError, match="pip install pandas"):
        Table(["a"], [[1]]).to_pandas()


def test_the_import_does_not_load_torch() -> None:
    import subprocess

    code = "import sys, agebench.api; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
