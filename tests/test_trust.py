"""A config from a file may name only agebench's parts and known kinds of classes of known libraries."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from agebench.cli.resume import expand_resume
from agebench.errors import UserError
from agebench.evaluate import with_own_data
from agebench.trust import check_trusted, find_foreign, find_foreign_overrides

CONF = Path(__file__).parents[1] / "conf"
CHOICES = [
    (path.parent.relative_to(CONF).as_posix(), path.stem)
    for path in sorted(CONF.rglob("*.yaml"))
    if path.parent != CONF and "hydra" not in path.relative_to(CONF).parts and not path.stem.startswith("_")
]
NEEDED = {
    ("data", "folder"): ["data.root=images"],
    ("data", "table"): ["data.root=images.csv"],
    ("model", "timm"): ["model.model_name=resnet10t"],
}


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=map("=".join, CHOICES))
def test_every_shipped_choice_needs_no_trust(compose_config, group, choice):
    if choice == "sweep_optuna" and find_spec("optuna") is None:
        pytest.skip("needs the extra: pip install agebench[optuna]")
    config = compose_config(f"{group}={choice}", *NEEDED.get((group, choice), []))

    found = find_foreign(OmegaConf.to_container(config, resolve=True))

    assert found == []


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"model": {"_target_": "mynets.Net"}}, "model._target_"),
        ({"model": {"_target_": "sympy.sympify"}}, "model._target_"),
        ({"model": {"_target_": "torch.load", "f": "x", "weights_only": False}}, "model._target_"),
        ({"model": {"_target_": "torch.hub.load"}}, "model._target_"),
        ({"model": {"_target_": "torch.nn.modules.module.os.system"}}, "model._target_"),
        ({"model": {"_target_": "torch.nn.Module.load_state_dict"}}, "model._target_"),
        ({"model": {"_target_": "timm.models.load_checkpoint"}}, "model._target_"),
        ({"model": {"_target_": "agebench.cli.main.main.os.system"}}, "model._target_"),
        ({"model": {"_target_": "agebench.train.main"}}, "model._target_"),
        ({"model": {"_target_": "agebench.runs.identity.write_json"}}, "model._target_"),
        ({"model": {"_target_": "agebench.heads.base.Head.__init__.__globals__"}}, "model._target_"),
        ({"model": {"_target_": {"_target_": "os.system"}}}, "model._target_"),
        ({"model": {"_target_": "timm.create_model", "model_name": "hf-hub:a/b"}}, "model.model_name"),
        ({"model": {"_target_": "timm.create_model", "model_name": "local-dir:a"}}, "model.model_name"),
        ({"model": {"_target_": "timm.create_model", "model_name": "a/b"}}, "model.model_name"),
        ({"model": {"pretrained_cfg_overlay": {"file": "weights.pth"}}}, "model.pretrained_cfg_overlay"),
        ({"model": {"pretrained_cfg": {"hf_hub_id": "a/b"}}}, "model.pretrained_cfg"),
        ({"model": {"cache_dir": "here"}}, "model.cache_dir"),
        ({"model": {"act_layer": {"_target_": "os.system"}}}, "model.act_layer._target_"),
        ({"model": {"layers": [1, [{"_target_": "os.system"}]]}}, "model.layers.1.0._target_"),
        ({"model": {"layer": {"_target_": "torch.nn.ReLU"}}}, "model.layer._target_"),
        ({"model": {"_target_": "timm.create_model", "_args_": ["hf-hub:a/b"]}}, "model._args_"),
        ({"model": {"_target_": "timm.create_model", "_partial_": True}}, "model._partial_"),
        ({"model": {"width": "${oc.create:'{_target_: os.system}'}"}}, "model.width"),
        ({"model": "${x}"}, "model"),
        ({"head": {"_target_": "torch.nn.Linear"}}, "head._target_"),
        ({"head": {"_target_": "timm.create_model"}}, "head._target_"),
        ({"augment": {"_target_": "torchvision.transforms.Lambda"}}, "augment._target_"),
        ({"optim": {"_target_": "torch.optim.lr_scheduler.StepLR"}}, "optim._target_"),
        ({"optim": {"_target_": "torch.optim.Adam", "_partial_": {"a": 1}}}, "optim._partial_"),
        ({"scheduler": {"_target_": "agebench.training.schedules.math.exp"}}, "scheduler._target_"),
        ({"data": {"source": {"_target_": "agebench.data.readers.download.fetch"}}}, "data.source._target_"),
        ({"data": {"split": {"_target_": "agebench.data.split.Path"}}}, "data.split._target_"),
        ({"data": {"target": {"_target_": "os.system"}}}, "data.target._target_"),
        ({"trainer": {"_target_": "lightning.pytorch.utilities.model_helpers.is_overridden"}}, "trainer._target_"),
        ({"trainer": {"plugins": [{"_target_": "os.system"}]}}, "trainer.plugins.0._target_"),
        ({"callbacks": {"mine": {"_target_": "mine.Callback"}}}, "callbacks.mine._target_"),
        ({"callbacks": {"mine": {"x": {"_target_": "lightning.Callback"}}}}, "callbacks.mine.x._target_"),
        ({"logger": {"mine": {"_target_": "lightning.pytorch.utilities.rank_zero_only"}}}, "logger.mine._target_"),
        ({"elsewhere": {"_target_": "torch.nn.ReLU"}}, "elsewhere._target_"),
        ({"_target_": "os.system"}, "_target_"),
    ],
)
def test_a_node_that_could_run_foreign_code_is_found(config, key):
    found = [name for name, _ in find_foreign(config)]

    assert key in found


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("model", "timm.models.create_model"),
        ("model", "timm.models.resnet.resnet18"),
        ("model", "torch.nn.Sequential"),
        ("optim", "timm.optim.Lion"),
        ("optim", "torch.optim.NAdam"),
        ("trainer", "lightning.pytorch.Trainer"),
        ("callbacks.timer", "lightning.pytorch.callbacks.Timer"),
        ("logger.wandb", "lightning.pytorch.loggers.WandbLogger"),
    ],
)
def test_known_kinds_in_known_libraries_need_no_trust(key, name):
    outer, _, inner = key.partition(".")
    node = {"_target_": name}

    assert find_foreign({outer: {inner: node} if inner else node}) == []


def test_resolving_a_name_imports_nothing_foreign(tmp_path, monkeypatch):
    (tmp_path / "evil_at_import.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    found = find_foreign({"model": {"_target_": "evil_at_import.Net"}})

    assert found == [("model._target_", "evil_at_import.Net")]
    assert not (tmp_path / "canary").exists()


def test_the_error_names_the_target_and_the_fix():
    with pytest.raises(UserError) as error:
        check_trusted([("model._target_", "mynets.Net")], "outputs/x/checkpoints/best.ckpt")

    assert str(error.value) == (
        "outputs/x/checkpoints/best.ckpt names model._target_=mynets.Net, which is not part of agebench: "
        "add trust=true to run it if you trust the file"
    )


@pytest.mark.parametrize(
    "override",
    [
        "--config-dir=/x",
        "-m",
        "hydra.searchpath=[file:///x]",
        "hydra.callbacks.x._target_=os.system",
        "+hydra.callbacks.x._target_=os.system",
        "hydra/launcher=ray",
        "+model@hydra.callbacks.x=mlp",
        "++trust=true",
        " trust=true",
        "model=../../x/model/mlp",
        "model=/x/mlp",
        "experiment=[demo,../x]",
        "+trainer.plugins=[{_target_: os.system}]",
        "model._target_=mynets.Net",
        "+callbacks.mine={_target_: mine.Callback}",
        "model.model_name=hf-hub:a/b",
        "model=[",
    ],
)
def test_an_override_that_could_run_foreign_code_is_found(override):
    assert len(find_foreign_overrides([override])) == 1


def test_ordinary_overrides_need_no_trust():
    line = ["data=demo", "monitor=val/mae", "data.root=/my/faces", "optim.lr=1e-3", "+model.width=${data.image_size}"]
    line += ["data/split=kfold", "~model.pretrained", "optim=[adam]", "sweep=a/b", "model._target_=timm.create_model"]
    line += ["+callbacks.swa._target_=lightning.pytorch.callbacks.StochasticWeightAveraging", "data.target=age"]

    assert find_foreign_overrides(line) == []


def test_a_stored_choice_of_data_must_not_be_a_path(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "results.json").write_text('{"status": "completed"}')
    hydra = {"hydra": {"runtime": {"choices": {"data": "../../evil/demo"}}}}
    (tmp_path / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))

    with pytest.raises(UserError, match="add data=NAME"):
        with_own_data([f"run={tmp_path}", "data/split=random"])


def test_the_working_directory_of_a_strangers_run_is_not_searched_for_modules(tmp_path, monkeypatch):
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    runtime = {"cwd": str(tmp_path / "run"), "config_sources": []}
    hydra = {"hydra": {"runtime": runtime, "overrides": {"hydra": [], "task": []}}}
    (tmp_path / "run" / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    (tmp_path / "run" / ".hydra" / "overrides.yaml").write_text("[data=digits]")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setenv("PYTHONSAFEPATH", "")

    expand_resume(["resume=../run"])

    assert Path.cwd() == tmp_path / "run"
    assert sys.path[0] == str(tmp_path / "here")
    assert "" not in sys.path
    assert os.environ["PYTHONSAFEPATH"] == "1"
