"""The identity of a run: config hash and folder name; and the files that describe it."""

import json
import os

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from agebench.config import flatten
from agebench.errors import UserError
from agebench.files import write_csv, write_json
from agebench.runs.folder import is_first_process, read_results
from agebench.runs.identity import config_hash, has_effect, point_name, versions


@pytest.fixture
def hash_of(compose_config):
    def make(*overrides: str) -> str:
        return config_hash(OmegaConf.to_container(compose_config(*overrides), resolve=True))

    return make


@pytest.mark.parametrize(
    "override",
    [
        "optim.lr=2e-3",
        "optim.weight_decay=0.1",
        "optim=sgd",
        "seed=1",
        "trainer.max_epochs=11",
        "trainer.precision=bf16-mixed",
        "data.split.seed=1",
        "data.split.test_share=0.2",
        "data/split=kfold",
        "data.batch_size=64",
        "data.image_size=16",
        "data.limit=100",
        "data.per_class=5",
        "data.ages=[0,110]",
        "data=mnist",
        "model=lenet",
        "model.hidden=[64,64]",
        "head.label_smoothing=0.1",
        "scheduler=cosine",
        "augment=digits",
        "augment.flip=0.5",
        "test_checkpoint=last",
        "monitor=val/loss",
        "callbacks.early_stopping.patience=5",
        "trainer.limit_val_batches=1",
    ],
)
def test_the_hash_changes_with_a_setting_that_changes_the_result(hash_of, override) -> None:
    assert hash_of(override) != hash_of()


@pytest.mark.parametrize(
    "override",
    [
        "paths.data=elsewhere",
        "paths.output=elsewhere",
        "paths.cache=elsewhere",
        "data.num_workers=4",
        "data.eval_batch_size=7",
        "logger=csv",
        "logger=tensorboard_csv",
        "report=false",
        "sweep=named",
        "resume=false",
        "resume=outputs/there",
        "launcher.jobs=4",
        "launcher.timeout=60",
        "callbacks.progress=null",
        "callbacks.progress.refresh_rate=1",
        "callbacks.lr_monitor=null",
        "callbacks.early_stopping.verbose=false",
        "trainer.log_every_n_steps=1",
        "+trainer.profiler.filename=x",
        "+trainer.enable_progress_bar=false",
    ],
)
def test_the_hash_does_not_change_with_a_setting_without_effect(hash_of, override) -> None:
    assert hash_of(override) == hash_of()


WITHOUT_EFFECT = ["paths.data", "resume", "data.cache", "data.num_workers", "trainer.profiler", "callbacks.progress"]


@pytest.mark.parametrize("key", [*WITHOUT_EFFECT, "trainer.profiler.filename", "callbacks.progress.refresh_rate"])
def test_a_key_without_effect_and_the_keys_below_it_are_not_hashed(key) -> None:
    assert not has_effect(key)
    assert config_hash({key: 1}) == config_hash({key: 2})


@pytest.mark.parametrize(
    "key",
    [
        "data.cachet",
        "data.cache_size",
        "data.num_workers2",
        "data.source.urls",
        "reporter",
        "reports.depth",
        "resumed",
        "pathsome.data",
        "trainer.profilers.filename",
        "callbacks.progressive.rate",
        "my.report",
        "model.paths",
        "head.data.cache",
        "data",
        "trainer",
        "callbacks.early_stopping",
        "",
    ],
)
def test_a_key_that_only_contains_a_key_without_effect_is_hashed(key) -> None:
    assert has_effect(key)
    assert config_hash({key: 1}) != config_hash({key: 2})


def test_the_batch_size_of_evaluation_is_hashed_if_batches_are_limited(hash_of) -> None:
    limit = "trainer.limit_test_batches=1"

    assert hash_of(limit, "data.eval_batch_size=7") != hash_of(limit, "data.eval_batch_size=8")


def test_the_hash_does_not_depend_on_the_order_of_keys(compose_config) -> None:
    plain = {"seed": 0, "optim": {"lr": 0.001, "betas": [0.9, 0.999]}}
    reordered = {"optim": {"betas": [0.9, 0.999], "lr": 0.001}, "seed": 0}

    assert config_hash(plain) == config_hash(reordered)
    # SHA-256 of {"optim.betas": [0.9, 0.999], "optim.lr": 0.001, "seed": 0}, from sha256sum
    assert config_hash(plain) == "ee84fa8d1af8"


@pytest.mark.parametrize(("mode", "freeze"), [("head", "backbone"), ("none", None)])
def test_finetuning_the_head_or_nothing_has_the_hash_of_the_former_key(mode, freeze) -> None:
    before = {"seed": 0, "model": {"freeze": freeze}}

    for more in ({}, {"backbone_lr_ratio": None}):  # earlier versions did not have this key
        assert config_hash({"seed": 0, "model": {}, "finetune": {"mode": mode, **more}}) == config_hash(before)


def test_ways_of_finetuning_have_different_hashes(hash_of) -> None:
    lines = [("none",), ("head",), ("all",), ("gradual",), ("head_then_all",), ("head_then_all", "finetune.epochs=2")]

    assert len({hash_of(f"finetune={mode}", *more) for mode, *more in lines}) == len(lines)


def test_the_path_of_a_published_data_set_is_not_hashed(hash_of) -> None:
    assert hash_of("data=mnist", "data.root=/here") == hash_of("data=mnist", "data.root=/there")
    assert hash_of("data=mnist", "data.source.download=false") == hash_of("data=mnist")
    assert hash_of("data=hiragana73", "data.source.url=http://x/y.zip") == hash_of("data=hiragana73")


@pytest.mark.parametrize("data", ["folder", "table"])
def test_the_absolute_path_of_the_users_own_data_is_hashed(hash_of, data, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)

    here, there = hash_of(f"data={data}", "data.root=here"), hash_of(f"data={data}", "data.root=there")

    assert here != there
    assert hash_of(f"data={data}", f"data.root={tmp_path}/here") == here


@pytest.mark.parametrize("key", ["file", "train", "val", "test"])
def test_the_absolute_path_of_the_users_own_list_is_hashed(hash_of, key, monkeypatch, tmp_path) -> None:
    line = ("data=mnist", "data/split=column")

    monkeypatch.chdir(tmp_path)
    here, again = hash_of(*line, f"data.split.{key}=a.csv"), hash_of(*line, f"data.split.{key}={tmp_path}/a.csv")
    monkeypatch.chdir(tmp_path.parent)
    there = hash_of(*line, f"data.split.{key}=a.csv")

    assert here == again
    assert here != there


def test_flatten_joins_keys_and_keeps_lists() -> None:
    tree = {"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None, "g": {}}

    assert flatten(tree) == {"a.b.c": 1, "a.d": [1, {"e": 2}], "f": None}


DIFFERING = [
    "optim.lr-0.001_seed-0",
    "optim.lr-1e-05",
    "model-resnet18_optim.weight_decay-0.1",
    "data/split-random_data.split.seed-3",
    "model.hidden-[64,32]",
    "model.checkpoint_path-/data/a b/best=1.ckpt",
    "+model.extra-{a:1}",
    "callbacks.early_stopping.patience-null",
    "data.name-顔",
    "model.activation-relu,tanh",
    "x" * 300 + "-1",
    "",
]


@pytest.mark.parametrize("differs", DIFFERING)
def test_the_name_of_a_point_is_safe_in_a_path_and_on_a_command_line(differs) -> None:
    name = point_name(differs, {"seed": 0})

    assert not set(name) & set("=,/\\ []{}:'\"")
    assert len(name) <= 120
    for folder in (name, f"outputs/sweeps/x/{name}"):
        parsed = OverridesParser.create().parse_override(f"run={folder}")
        assert parsed.value() == folder
        assert not parsed.is_sweep_override()


def test_the_name_of_a_point_has_its_differing_keys_without_groups() -> None:
    config = {"optim": {"lr": 0.001}, "seed": 0}
    six = config_hash(config)[:6]

    assert point_name("optim.lr-0.001|seed-0", config) == f"lr-0.001_seed-0-{six}"
    assert point_name("model-small_cnn|optim.lr-1e-3", config) == f"model-small_cnn_lr-1e-3-{six}"
    assert point_name("optim.lr-0.0023456789012345|optim.weight_decay-1.2345678901e-06", config) == (
        f"lr-0.00235_weight_decay-1.23e-06-{six}"
    )
    assert point_name("optim.lr-0.00015", config) == f"lr-0.00015-{six}"
    assert point_name("data.split.seed-1|data.per_class-5", config) == f"seed-1_per_class-5-{six}"


def test_a_name_of_digits_is_not_parsed_as_a_number() -> None:
    config = next({"seed": i} for i in range(1_000) if config_hash({"seed": i})[:6].isdigit())

    name = point_name("", config)

    assert OverridesParser.create().parse_override(f"run={name}").value() == name


def test_different_points_have_different_names() -> None:
    # These values are shortened to the same text.
    values = ["[64,32]", "[64;32]", "a/b", "a,b", "顔", "猫"]

    names = {point_name(f"model.hidden-{v}", {"model": {"hidden": v}}) for v in values}

    assert len(names) == len(values)


def test_a_failed_write_keeps_the_old_json(tmp_path) -> None:
    file = tmp_path / "results.json"
    write_json(file, {"status": "running", "name": "あ"})

    with pytest.raises(TypeError):
        write_json(file, {"status": object()})

    assert json.loads(file.read_text(encoding="utf-8")) == {"status": "running", "name": "あ"}
    assert "あ" in file.read_text(encoding="utf-8")


def test_a_json_is_complete_until_it_is_replaced(tmp_path, monkeypatch) -> None:
    file = tmp_path / "results.json"
    write_json(file, {"epoch": 1})
    seen = []
    replace = os.replace

    def read_before(source, target):
        seen.append(json.loads(file.read_text()))
        replace(source, target)

    monkeypatch.setattr("pathlib.Path.replace", read_before)

    write_json(file, {"epoch": 2})

    assert seen == [{"epoch": 1}]  # the old content until the end
    assert json.loads(file.read_text()) == {"epoch": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_csv_has_its_header_and_no_temporary_file_is_left(tmp_path) -> None:
    write_csv(tmp_path / "split.csv", ("name", "part"), [("a,b", "train"), ("あ", "test")])

    assert (tmp_path / "split.csv").read_text(encoding="utf-8-sig").splitlines() == [
        "name,part",
        '"a,b",train',
        "あ,test",
    ]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_is_not_a_run_raises(tmp_path) -> None:
    with pytest.raises(UserError, match=r"is not a run.*give a folder that train wrote"):
        read_results(tmp_path)

    (tmp_path / "results.json").write_text('{"status": ')
    with pytest.raises(UserError, match="no readable"):
        read_results(tmp_path)


def test_results_are_read_back(tmp_path) -> None:
    write_json(tmp_path / "results.json", {"status": "completed", "metrics": {"test/accuracy": 0.1 + 0.2}})

    assert read_results(tmp_path)["metrics"]["test/accuracy"] == 0.1 + 0.2


def test_versions_contain_the_packages_that_compute() -> None:
    import torch

    found = versions()

    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert {"agebench", "lightning", "timm", "numpy"} <= set(found)


RANKS = ["RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK"]


@pytest.mark.parametrize("variable", RANKS)
def test_only_rank_0_is_the_first_process(monkeypatch, variable) -> None:
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)

    assert is_first_process()
    monkeypatch.setenv(variable, "0")
    assert is_first_process()
    monkeypatch.setenv(variable, "1")
    assert not is_first_process()


class Published:
    path_is_identity = False


class Private:
    """Does not say whether its path is its identity."""


@pytest.mark.parametrize(("source", "is_identity"), [("Published", False), ("Private", True), ("Unknown", True)])
def test_a_users_own_source_decides_whether_its_root_is_part_of_the_hash(source, is_identity) -> None:
    def hashed(root: str) -> str:
        return config_hash({"data": {"root": root, "source": {"_target_": f"{__name__}.{source}", "root": root}}})

    assert (hashed("/here") != hashed("/there")) == is_identity


def test_the_hash_is_that_of_versions_without_the_key_ages(compose_config) -> None:
    config = OmegaConf.to_container(compose_config(), resolve=True)
    before = config_hash({**config, "data": {key: value for key, value in config["data"].items() if key != "ages"}})

    assert config["data"]["ages"] is None
    assert config_hash(config) == before
