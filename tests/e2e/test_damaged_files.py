"""A checkpoint or a file of a run with one wrong field gives one sentence, never a traceback."""

import contextlib
import copy
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image

from agebench.build.checkpoint import read_checkpoint
from agebench.build.module import build_trained
from agebench.cli.resume import expand_resume
from agebench.comparison.render import RENDERERS
from agebench.comparison.tables import compare
from agebench.config import config_folder
from agebench.errors import UserError
from agebench.inference import evaluate
from agebench.inference.export import describe
from agebench.inference.predict import predict_images
from agebench.runs.folder import read_results
from agebench.runs.read import find_runs
from agebench.training.callbacks import Speed
from agebench.training.resume import Start, find_start, finished

WRONG = (None, True, -1, 1.5, "あ", [], ["a", 1], {}, {"a": 1})
ABSENT = object()


def mutations(
    tree: Any, path: tuple[Any, ...] = (), wrong: tuple[Any, ...] = WRONG
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every path in nested data with each wrong value that has another type, and with ABSENT."""
    if path:
        yield path, ABSENT
        inside = tree
        yield from ((path, value) for value in wrong if type(value) is not type(inside))
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from mutations(value, (*path, key), wrong)


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    tree = copy.deepcopy(tree)
    *parents, last = path
    inside = tree
    for key in parents:
        inside = inside[key]
    if value is ABSENT:
        del inside[last]
    else:
        inside[last] = value
    return tree


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """Return a copy of a trained run, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGEBENCH_DATA", str(trained / "data"))
    shutil.copytree(trained / "run", "run")
    Path("photos").mkdir()
    Image.new("RGB", (32, 32)).save("photos/new.png")
    logging.disable()
    yield Path("run")
    logging.disable(logging.NOTSET)


@pytest.fixture
def stored(run):
    return torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)


def save(stored: dict[str, Any], run: Path) -> None:
    for name in ("best", "last"):
        torch.save(stored, run / "checkpoints" / f"{name}.ckpt")


def command_config(run: Path, **more: Any) -> Any:
    defaults = yaml.safe_load((config_folder() / "predict.yaml").read_text())
    own = {key: value for key, value in defaults.items() if key not in ("defaults", "hydra")}
    return OmegaConf.create({**own, "run": str(run), "accelerator": "cpu", **more})


def predict(run: Path) -> None:
    Path("out.csv").unlink(missing_ok=True)
    predict_images(command_config(run, output="out.csv", images="photos", batch_size=4))


def export(run: Path) -> None:
    path, stored, config = read_checkpoint(run, "tested", read_results(run), trust=False)
    build_trained(config, stored)
    describe(stored["agebench"], config, weights=str(path), calibration=None)


def test_again(run: Path) -> None:
    _, stored, config = read_checkpoint(run, "tested", read_results(run), trust=False)
    build_trained(config, stored)
    command = command_config(run, devices=1, allow_leak=False)
    evaluate.prepare(command, config, stored["agebench"], run_dir=run, user_keys=())


test_again.__test__ = False
READ = ("seed", "data", "model", "head", "augment")  # keys of the stored config that predict reads


@pytest.mark.ci
@pytest.mark.parametrize("use", [predict, export, test_again])
def test_a_wrong_field_of_the_stamp_gives_one_sentence(run, stored, use) -> None:
    use(run)  # the unchanged run works
    accepted = []

    for path, value in mutations({**stored["agebench"], "config": {}}):
        save({**stored, "agebench": changed(stored["agebench"], path, value)}, run)
        with contextlib.suppress(UserError):
            use(run)
            accepted.append((path, value))

    assert accepted == [(("background",), ABSENT)]  # as in checkpoints of older versions


@pytest.mark.ci
def test_a_wrong_key_of_the_stored_config_gives_one_sentence_or_no_error(run, stored) -> None:
    refused = set()
    config = {key: stored["agebench"]["config"][key] for key in READ}

    for path, value in mutations(config, wrong=(["あ"],)):
        stamp = {**stored["agebench"], "config": changed(stored["agebench"]["config"], path, value)}
        save({**stored, "agebench": stamp}, run)
        try:
            _, read, loaded = read_checkpoint(run, "tested", {"status": "completed"}, trust=False)
            build_trained(loaded, read)
        except UserError:
            refused.add(path)

    assert {("seed",), ("data",), ("data", "image_size"), ("model",), ("head", "decode")} <= refused


@pytest.mark.parametrize("value", [ABSENT, None, [], {}, "あ", {"model.x": 1}])
@pytest.mark.parametrize("key", ["agebench", "state_dict"])
def test_a_checkpoint_without_a_part_gives_one_sentence(run, stored, key, value) -> None:
    save(changed(stored, (key,), value), run)

    with pytest.raises(UserError, match=r"checkpoint of agebench|is damaged"):
        predict(run)


def test_a_run_with_a_wrong_hash_in_the_stamp_starts_over(run) -> None:
    last = run / "checkpoints" / "last.ckpt"
    stored = torch.load(last, weights_only=True)
    stamp, results = stored["agebench"], read_results(run)
    options = {"config": stamp["config"], "sha": stamp["data_sha"], "resume": "auto"}
    assert find_start(run, results, **options).epochs == 1

    for path, value in mutations({**stamp, "config": {}}):
        torch.save({**stored, "agebench": changed(stamp, path, value)}, last)

        start = find_start(run, results, **options)  # never raises
        assert start == Start() or path[0] not in ("config_hash", "data_sha", "weights_sha")


def test_a_wrong_field_of_results_json_gives_one_sentence(run) -> None:
    file = run / "results.json"
    results = json.loads(file.read_text())
    for key in ("metrics", "intervals"):  # two metrics stand for all
        results[key] = {name: results[key][name] for name in ("test/loss", "test/mae")}
    refused = set()

    for path, value in mutations(results, wrong=(None, -1, "あ", ["a", 1], {"a": 1})):
        file.write_text(json.dumps(changed(results, path, value)))
        try:
            read = read_results(run)
            finished(run, read, config=results["config"], sha=lambda: results["data_sha"])
        except UserError:
            refused.add(path)
        tables = compare(find_runs([run]), None)  # compare does not trust a folder, and lists it
        for render in RENDERERS.values():
            render(tables)

    assert {("status",), ("best",), ("best", "tested"), ("metrics", "test/loss"), ("weights_sha",)} <= refused


@pytest.mark.parametrize("text", ["[", "- 1", "a: 1", "hydra: {runtime: {cwd: 3}}", "\0", "\xff"])
@pytest.mark.parametrize("name", ["hydra", "overrides"])
def test_a_damaged_yaml_of_a_run_gives_one_sentence(run, monkeypatch, name, text) -> None:
    (run / ".hydra" / f"{name}.yaml").write_bytes(text.encode("latin-1"))

    with pytest.raises(UserError, match=rf"{name}.yaml cannot be read"):
        expand_resume(["resume=run"])


def test_compare_lists_a_run_with_a_damaged_config(run) -> None:
    config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())

    for path, value in mutations({key: config[key] for key in READ}, wrong=(["あ"],)):
        (run / ".hydra" / "config.yaml").write_text(yaml.safe_dump(changed(config, path, value)))

        assert "run" in RENDERERS["md"](compare(find_runs([run]), None))


@pytest.fixture
def interrupted(command, monkeypatch, tmp_path) -> Path:
    """Return a run of two epochs that was interrupted in the second one."""

    def stop(self: Speed, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, contextlib.suppress(SystemExit):
        patch.setattr(Speed, "on_train_epoch_start", stop)
        command("train", *["data=digits", "model=mlp", "trainer.max_epochs=2", "report=false", "hydra.run.dir=run"])
    assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == "interrupted"
    return tmp_path / "run"


def test_a_damaged_training_state_gives_one_sentence(interrupted, command, capsys) -> None:
    last = interrupted / "checkpoints" / "last.ckpt"
    stored = torch.load(last, weights_only=True)

    for damage in ({"optimizer_states": [{}]}, {"optimizer_states": [1]}, {"loops": {}}, {"loops": 1}):
        torch.save({**stored, **damage}, last)
        with pytest.raises(SystemExit) as end:
            command("train", "resume=run")

        error = capsys.readouterr().err
        assert end.value.code == 2, damage
        assert "cannot resume from " in error
        assert "Traceback" not in error


def test_a_run_without_the_state_of_its_optimizer_starts_over(interrupted, command, capsys) -> None:
    last = interrupted / "checkpoints" / "last.ckpt"
    stored = torch.load(last, weights_only=True)
    torch.save({**stored, "optimizer_states": []}, last)

    command("train", "resume=run")

    assert json.loads((interrupted / "results.json").read_text())["resumed"] == 0
