"""A sweep over any key of the training names its points, and shows its values in HPARAMS and in comparisons."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from agebench.comparison.groups import group_runs
from agebench.comparison.parameters import differing, short_names
from agebench.runs.identity import point_name
from agebench.runs.read import read_run
from agebench.sweep.seed_means import write_seed_means
from agebench.training.hparams import hparams

# A key, two values as they are typed, the values in a table, and the header of the column.
VARIED: list[tuple[str, tuple[str, str], tuple[Any, Any], str]] = [
    ("ema.decay", ("null", "0.99"), (None, 0.99), "ema.decay"),
    ("swa.start", ("0.5", "0.75"), (0.5, 0.75), "swa.start"),
    ("augment.mixup", ("null", "0.2"), (None, 0.2), "mixup"),
    ("augment.cutmix", ("null", "1.0"), (None, 1.0), "cutmix"),
    ("optim.layer_decay", ("null", "0.75"), (None, 0.75), "layer_decay"),
    ("optim.decay_norms", ("false", "true"), (False, True), "decay_norms"),
    ("finetune", ("none", "head"), ("none", "head"), "finetune"),
    ("on_nan", ("stop", "skip"), ("stop", "skip"), "on_nan"),
    ("teacher.temperature", ("2.0", "4.0"), (2.0, 4.0), "teacher.temperature"),
    ("trainer.max_time", ("null", "00:00:01:00"), (None, "00:00:01:00"), "max_time"),
    ("data.batch_size", ("32", "64"), (32, 64), "batch_size"),
    ("compile", ("false", "reduce-overhead"), (False, "reduce-overhead"), "compile"),
    ("scheduler", ("constant", "plateau"), ("constant", "plateau"), "scheduler"),
    ("trainer.precision", ("32-true", "bf16-mixed"), ("32-true", "bf16-mixed"), "precision"),
]


def write_point(folder: Path, config: dict[str, Any], line: list[str]) -> Path:
    """Write what a completed point of a sweep leaves behind."""
    choices = dict(HydraConfig.get().runtime.choices)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": choices}}}))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(line))
    results = {"status": "completed", "seed": config["seed"], "metrics": {"test/accuracy": 0.5}}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "metrics.csv").write_text("epoch,step,lr\n0,10,0.5\n")
    (folder / "events.out.tfevents.1.host").touch()
    return folder


@pytest.mark.ci
@pytest.mark.parametrize(("key", "typed", "values", "header"), VARIED, ids=[key for key, *_ in VARIED])
def test_a_varied_key_is_in_the_names_of_points_and_in_the_tables(
    compose_config, tmp_path, key, typed, values, header
) -> None:
    fixed = ["optim=adamw", "teacher.run=outputs/teacher", "sweep=mine"]
    names, rows, runs = [], [], []
    for value in typed:
        excluded = "hydra.job.config.override_dirname.exclude_keys=[optim,teacher.run,sweep,paths.cache]"
        composed = compose_config(*fixed, f"{key}={value}", excluded, "hydra.job.num=0")
        config: Any = OmegaConf.to_container(composed, resolve=True)
        names.append(point_name(f"{key}-{value}", config))
        rows.append(hparams(composed, config, "digits/random/class")[0])
        runs.append(read_run(write_point(tmp_path / names[-1], config, [*fixed, f"{key}={value}"])))

    write_seed_means(tmp_path)

    assert [row[key] for row in rows] == list(values)
    assert [each[key] for each in differing(runs)] == list(values)
    assert list(short_names(list(differing(runs)[0])).values()) == [header]
    assert len(group_runs(runs)[0]) == 2
    assert not list(tmp_path.glob("* (mean of *)"))
    for name, value in zip(names, typed, strict=True):
        assert name.startswith(f"{header}-{value.replace(':', '-')}-")


def test_seeds_stay_one_group_if_one_of_them_was_resumed_with_skip(compose_config, tmp_path) -> None:
    runs = []
    for seed, action in ((0, "stop"), (1, "skip"), (2, "stop")):
        config: Any = OmegaConf.to_container(compose_config(f"seed={seed}", f"on_nan={action}"), resolve=True)
        runs.append(read_run(write_point(tmp_path / f"seed{seed}", config, [f"seed={seed}"])))

    (group,), notes = group_runs(runs)

    assert [run.seed for run in group] == [0, 1, 2]
    assert notes == []
