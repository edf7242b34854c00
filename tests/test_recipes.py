"""recipe=: an abbreviation of keys, which the user and an experiment can replace, for every network and head."""

import csv
import importlib.util
import re
import sys
from itertools import cycle
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from agebench.api import train
from agebench.build import build_model
from agebench.build.keys import NETWORK, TRAINING, check_nodes
from agebench.cli.messages import explain, known_names
from agebench.cli.overrides import to_hydra
from agebench.cli.rules import check_config
from agebench.errors import UserError
from agebench.runs.identity import config_hash

REPOSITORY = Path(__file__).parents[1]
CONF = REPOSITORY / "conf"
PAGE = (REPOSITORY / "docs" / "recipes.md").read_text(encoding="utf-8")
# The commands of the page in which the keys of a recipe are typed, by the name of the recipe.
COMMANDS = re.findall(r"^python -m agebench\.train (.*?) +# recipe=(\w+)$", PAGE, re.MULTILINE)
TYPED = {recipe: keys for keys, recipe in COMMANDS}
RECIPES = sorted(path.stem for path in (CONF / "recipe").glob("[a-z]*.yaml") if path.stem != "none")
NEEDED = {
    "timm": ["model.model_name=resnet10t"],
    "binary": ["data.target=bins", "data.bins=[30]"],
}


def plain(config):
    """Return a config as plain data without the name of a sweep, which has the time."""
    return {key: value for key, value in OmegaConf.to_container(config, resolve=True).items() if key != "sweep"}


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("[a-z]*.yaml"))


def test_the_page_lists_the_keys_of_each_recipe() -> None:
    assert sorted(TYPED) == RECIPES
    assert {"plain", "finetune", "scratch", "strong"} <= set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_the_same_as_its_keys_typed(compose_config, recipe) -> None:
    typed = [to_hydra(each, is_text=lambda key: False, sweeps=False) for each in TYPED[recipe].split()]

    config, same = plain(compose_config(f"recipe={recipe}")), plain(compose_config(*typed))

    assert config == same
    assert config_hash(config) == config_hash(same)
    assert config != plain(compose_config())


def test_no_recipe_is_the_default(compose_config) -> None:
    assert plain(compose_config("recipe=none")) == plain(compose_config())


@pytest.mark.ci
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_fits_every_network_head_and_augmentation(compose_config, recipe) -> None:
    heads, augmentations = cycle(choices("head")), cycle(choices("augment"))

    for model in choices("model"):
        head, augment = next(heads), next(augmentations)
        needed = [*NEEDED.get(model, []), *NEEDED.get(head, [])]
        config = compose_config(
            f"recipe={recipe}", f"model={model}", f"head={head}", f"augment={augment}", "data=demo", *needed
        )

        check_config(config)
        check_nodes(plain(config), (*NETWORK, *TRAINING))


def test_keys_of_the_user_replace_those_of_a_recipe(compose_config) -> None:
    config = compose_config("recipe=strong", "optim.lr=0.5", "scheduler.warmup_epochs=7", "trainer.max_epochs=3")

    assert (config.optim.lr, config.scheduler.warmup_epochs, config.trainer.max_epochs) == (0.5, 7, 3)


@pytest.mark.parametrize("recipe", RECIPES)
def test_another_optimizer_and_schedule_keep_their_own_rate_and_keys(compose_config, recipe) -> None:
    own = compose_config("optim=sgd", "scheduler=plateau")

    config = compose_config(f"recipe={recipe}", "optim=sgd", "scheduler=plateau")

    assert (config.optim, config.scheduler) == (own.optim, own.scheduler)


def test_keys_of_an_experiment_replace_those_of_a_recipe(compose_config) -> None:
    tuned = compose_config("experiment=demo", "recipe=strong")
    partly = compose_config("experiment=hiragana73_cnn", "recipe=strong")

    # Those of conf/experiment/demo.yaml: AdamW, with a rate of its own, and a warm-up of one epoch.
    assert plain(tuned) == plain(compose_config("experiment=demo"))
    # This one sets a single epoch, and leaves the optimizer and the schedule open.
    assert (partly.trainer.max_epochs, partly.model._target_) == (1, "agebench.models.SmallCNN")
    assert (partly.optim.lr, partly.scheduler.warmup_epochs) == (4e-3, 2)


def test_an_experiment_can_choose_a_recipe(compose_config, tmp_path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n# Mine\ndefaults:\n  - override /recipe: plain\noptim:\n  lr: 0.25\n"
    )

    config = compose_config("experiment=mine", f"hydra.searchpath=[file://{tmp_path}]")

    assert config.optim == {**compose_config("recipe=plain").optim, "lr": 0.25}
    assert config.scheduler == compose_config("recipe=plain").scheduler


def test_a_mistyped_recipe_is_explained_in_one_sentence(compose_config, conf) -> None:
    with pytest.raises(Exception, match="strogn") as raised:
        compose_config("recipe=strogn")

    assert explain(raised.value, conf) == (
        "recipe=strogn does not exist (did you mean 'strong'?); choose one of finetune, none, plain, scratch, strong"
    )


def test_the_parts_of_a_recipe_are_no_keys_of_their_own(conf) -> None:
    names = known_names(conf)

    assert "recipe" in names
    assert not [name for name in names if name.startswith("recipe.") or name in ("lr", "warmup_epochs")]


@pytest.mark.ci
@pytest.mark.parametrize("model", ["mlp", "small_cnn"])
def test_a_network_is_trained_by_each_recipe(tmp_path, monkeypatch, model) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"data": "digits", "model": model, "report": False}
    first = train(recipe="plain", trainer={"max_epochs": 1}, **settings)
    weights = str(first.folder / "checkpoints" / "best.ckpt")

    runs = [
        train(recipe=recipe, trainer={"max_epochs": 2}, **settings, **{"model.checkpoint_path": weights})
        for recipe in RECIPES
    ]

    assert [run.status for run in runs] == ["completed"] * len(RECIPES)
    assert all(run.metrics["accuracy"] > 0.2 for run in runs)  # chance is 0.1


def test_finetuning_without_weights_ends_in_one_sentence(compose_config) -> None:
    config = compose_config("recipe=finetune", "model=mlp", "data=digits")

    with pytest.raises(UserError, match=r"MLP has no published weights: .* model\.checkpoint_path to a file"):
        build_model(config, channels=1, num_outputs=10, image_size=8)


def test_the_tables_of_the_page_are_those_of_the_results() -> None:
    path = REPOSITORY / "experiments" / "recipes" / "study.py"
    spec = importlib.util.spec_from_file_location("recipes_study", path)
    study = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = study  # its dataclasses look it up
    spec.loader.exec_module(study)
    with (REPOSITORY / "experiments" / "recipes" / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    assert study.draw(PAGE, rows) == PAGE
    assert set(study.STUDIES) == set(RECIPES)
