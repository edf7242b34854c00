"""The hyperparameters of a run on TensorBoard's HPARAMS page."""

import pytest
from omegaconf import OmegaConf

from agebench.training.hparams import hparams

ALWAYS = {"data", "head", "model", "optim", "optim.lr", "protocol", "seed"}


def row_of(compose_config, *overrides: str) -> dict[str, object]:
    config = compose_config(*overrides)
    params, group = hparams(config, OmegaConf.to_container(config, resolve=True), "digits/random/class")
    assert group == ""
    return params


def test_a_row_has_the_choices_that_name_a_run_and_the_overrides_that_affect_the_result(compose_config) -> None:
    config = compose_config("model=lenet", "data.batch_size=64", "launcher.jobs=2", "data.num_workers=1", "seed=3")

    row, _ = hparams(config, OmegaConf.to_container(config, resolve=True), "digits/random/class")

    assert row == {
        "data": "digits",
        "data.batch_size": 64,
        "head": "softmax",
        "model": "lenet",
        "optim": "adam",
        "optim.lr": 0.001,
        "protocol": "digits/random/class",
        "seed": "3",
    }


def test_a_row_without_overrides_has_the_choices_that_name_a_run(compose_config) -> None:
    assert row_of(compose_config) == {
        "data": "digits",
        "head": "softmax",
        "model": "mlp",
        "optim": "adam",
        "optim.lr": 0.001,
        "protocol": "digits/random/class",
        "seed": "0",
    }


def test_an_overridden_config_group_is_one_column_with_its_choice(compose_config) -> None:
    row = row_of(compose_config, "augment=digits", "data/split=kfold", "scheduler=cosine")

    assert {key: row[key] for key in row.keys() - ALWAYS} == {
        "augment": "digits",
        "data/split": "kfold",
        "scheduler": "cosine",
    }


def test_an_overridden_key_is_a_column_with_its_value(compose_config) -> None:
    row = row_of(compose_config, "optim.weight_decay=0.25", "data.limit=7", "model.hidden=[8,4]", "++head.decode=auto")

    assert {key: row[key] for key in row.keys() - ALWAYS} == {
        "optim.weight_decay": 0.25,
        "data.limit": 7,
        "model.hidden": [8, 4],
        "head.decode": "auto",
    }


@pytest.mark.parametrize(
    "override",
    [
        "data.root=elsewhere",
        "data.num_workers=3",
        "data.residency=ram",
        "paths.output=elsewhere",
        "launcher.jobs=2",
        "report=false",
        "sweep=named",
        "callbacks.progress.refresh_rate=3",
        "callbacks.progress=null",
        "+trainer.enable_progress_bar=false",
        "trainer.log_every_n_steps=1",
    ],
)
def test_the_data_folder_and_keys_without_effect_are_no_columns(compose_config, override) -> None:
    data = ["data=mnist"] if override.startswith("data.root") else []

    assert set(row_of(compose_config, *data, override)) == ALWAYS


def point_of(compose_config, fixed: list[str], varied: list[str]) -> tuple[dict[str, object], str]:
    """Return the row of a point of a sweep, and its group."""
    keys = [override.partition("=")[0] for override in fixed]
    excluded = f"hydra.job.config.override_dirname.exclude_keys=[sweep,paths.cache,{','.join(keys)}]"
    config = compose_config(*fixed, *varied, "sweep=mine", excluded, "hydra.job.num=3")
    return hparams(config, OmegaConf.to_container(config, resolve=True), "digits/random/class")


def test_a_point_has_a_column_for_each_key_that_the_sweep_varies_and_one_for_all_others(compose_config) -> None:
    row, group = point_of(compose_config, ["data=digits", "seed=3"], ["model=lenet", "data.batch_size=64"])

    assert group == ""
    assert row == {
        "model": "lenet",
        "data.batch_size": 64,
        "protocol": "digits/random/class",
        "fixed": "digits softmax adam optim.lr=0.001 seed=3",
    }


def test_points_that_differ_only_in_the_seed_are_a_group_without_a_column_for_the_seed(compose_config) -> None:
    rows = [
        point_of(compose_config, ["data=digits"], [f"optim.lr={lr}", f"seed={s}"])
        for lr in ("0.5", "0.25")
        for s in (0, 1)
    ]

    columns, groups = zip(*rows, strict=True)
    assert groups == ("optim.lr=0.5 of mine",) * 2 + ("optim.lr=0.25 of mine",) * 2
    assert columns[0] == columns[1]
    assert columns[0]["optim.lr"] == 0.5
    assert not any("seed" in row or "seed" in row["fixed"] for row in columns)
