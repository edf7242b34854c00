"""No command runs code from a tampered checkpoint or run folder, unless the user sets trust=true."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image

VERBS = {"predict": ("images=new.png", "output=out.csv"), "evaluate": (), "export": ("output=out.onnx",)}
OPENS = {"_target_": "builtins.open", "file": "canary", "mode": "w"}  # writes an empty file
NODE = "{_target_: builtins.open, file: canary, mode: w}"  # the same as an override
NET = """
from torch import nn
open("canary", "w")
class Net(nn.Sequential):
    def __init__(self, *, in_chans, num_classes):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_chans, num_classes))
"""


@pytest.fixture(autouse=True)
def own_path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONSAFEPATH", "")  # train resume= sets it
    yield
    for name in ("evil_net", "honest_net"):
        sys.modules.pop(name, None)


@pytest.fixture
def tampered(trained, command):
    """Return a function that changes the configs in the checkpoints of `run`, a copy of the trained run."""
    shutil.copytree(trained / "run", "run")
    Path("evil").mkdir()
    Path("evil/evil_net.py").write_text(NET)
    Image.new("RGB", (32, 32)).save("new.png")

    def tamper(change) -> None:
        for file in Path("run/checkpoints").glob("*.ckpt"):
            stored = torch.load(file, weights_only=True)
            change(stored["agebench"])
            torch.save(stored, file)

    return tamper


def own_module(stamp) -> None:
    stamp["started_in"] = str(Path("evil").absolute())
    stamp["config"]["model"] = {"_target_": "evil_net.Net", "pretrained": False, "checkpoint_path": None}


def nested(stamp) -> None:
    stamp["config"]["augment"]["hook"] = OPENS


def interpolated(stamp) -> None:
    stamp["config"]["augment"]["hook"] = '${oc.create:${oc.decode:"{_target_: builtins.open, file: canary, mode: w}"}}'


ATTACKS = {
    own_module: "names model._target_=evil_net.Net, which is not part of agebench: add trust=true",
    nested: "names augment.hook._target_=builtins.open, which is not part of agebench: add trust=true",
    interpolated: "names augment.hook=${oc.create:",
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("attack", "sentence"), ATTACKS.items(), ids=[each.__name__ for each in ATTACKS])
def test_a_tampered_checkpoint_runs_nothing(command, tampered, capsys, verb, attack, sentence):
    tampered(attack)

    with pytest.raises(SystemExit) as end:
        command(verb, "run=run", *VERBS[verb])

    error = capsys.readouterr().err
    assert end.value.code == 2
    assert sentence in error
    assert "Traceback" not in error
    assert not Path("canary").exists()
    assert "evil_net" not in sys.modules
    assert str(Path("evil").absolute()) not in sys.path


# Every command that reads a checkpoint: its arguments, where the run is `run`.
STUDENT = "data=demo data.root=TRAINED/data/demo data.source.images=320 data.source.people=40 data.target=age"
STUDENT += " data.image_size=32 data.limit=300 model=small_cnn head=corn report=false hydra.run.dir=student"
READERS = {verb: ("run=run", *arguments) for verb, arguments in VERBS.items()}
READERS |= {"calibrate": ("run=run",), "app": ("run=run",), "report.__main__": ("run=run", "level=full")}
READERS |= {"train": ("teacher.run=run", *STUDENT.split())}
# What a stranger puts at a key of the stored config, and what the sentence names.
NODES = {
    "model": ({"_target_": "torch.load", "f": "evil.pt", "weights_only": False}, "model._target_=torch.load"),
    "model.model_name": ("hf-hub:stranger/net", "model.model_name=hf-hub:stranger/net"),
    "model.pretrained_cfg": ({"hf_hub_id": "stranger/net"}, "model.pretrained_cfg={'hf_hub_id': 'stranger/net'}"),
    "head._target_": ("sympy.sympify", "head._target_=sympy.sympify"),
    "head.values": (OPENS, "head.values._target_=builtins.open"),
    "optim._target_": ("builtins.exec", "optim._target_=builtins.exec"),
    "scheduler._target_": ("agebench.runs.writer.write_json", "scheduler._target_=agebench.runs.writer.write_json"),
    "data.source._target_": ("os.system", "data.source._target_=os.system"),
    "data.split": (OPENS, "data.split._target_=builtins.open"),
    "callbacks.mine": (OPENS, "callbacks.mine._target_=builtins.open"),
    "logger.mine": (OPENS, "logger.mine._target_=builtins.open"),
    "trainer.plugins": ([OPENS], "trainer.plugins.0._target_=builtins.open"),
}


@pytest.mark.ci
@pytest.mark.parametrize("verb", READERS)
@pytest.mark.parametrize("key", NODES)
def test_a_foreign_node_at_any_key_of_a_stored_config_runs_nothing(command, trained, tampered, capsys, verb, key):
    def tamper(stamp) -> None:
        config = OmegaConf.create(stamp["config"])
        OmegaConf.update(config, key, NODES[key][0], merge=False, force_add=True)
        stamp["config"] = OmegaConf.to_container(config)

    tampered(tamper)

    with pytest.raises(SystemExit) as end:
        command(verb, *(each.replace("TRAINED", str(trained)) for each in READERS[verb]))

    error = capsys.readouterr().err
    assert end.value.code == 2
    assert f"names {NODES[key][1]}, which is not part of agebench: add trust=true" in error
    assert "Traceback" not in error
    assert not list(Path.cwd().rglob("canary"))


def test_the_attack_with_an_own_module_succeeds_with_trust(command, tampered):
    tampered(own_module)

    with pytest.raises((SystemExit, RuntimeError)):  # it is no network of this run
        command("predict", "run=run", *VERBS["predict"], "trust=true")

    assert Path("canary").exists()


@pytest.mark.parametrize("attack", [nested, interpolated])
def test_a_node_that_is_no_argument_is_refused_also_with_trust(command, tampered, capsys, attack):
    tampered(attack)

    with pytest.raises(SystemExit) as end:
        command("predict", "run=run", *VERBS["predict"], "trust=true")

    assert end.value.code == 2
    assert "holds a config that does not work" in capsys.readouterr().err
    assert not Path("canary").exists()


OVERRIDES = {
    "a class in the folder": ["model._target_=evil_net.Net"],
    "a nested node": ["+augment.hook=" + NODE],
    "a node in a resolver": [
        "+augment.hook='${oc.create:${oc.decode:\"{_target_: builtins.open, file: canary, mode: w}\"}}'"
    ],
    "a callback of Hydra": ["+hydra.callbacks.x=" + NODE],
    "a flag": ["--config-dir=evil/conf", "model=evil"],
    "a path for a choice": ["model=../../../../../../../../../../..PATH/evil/conf/model/evil"],
    "an own trust": ["trust=true", "+augment.hook=" + NODE],
}


@pytest.mark.parametrize("overrides", [*OVERRIDES.values(), "--config-dir", "searchpath"],
                         ids=[*OVERRIDES, "a folder of configs", "a search path"])  # fmt: skip
def test_a_tampered_run_folder_resumes_nothing(command, tmp_path, capsys, overrides):
    conf = tmp_path / "evil" / "conf"
    (conf / "model").mkdir(parents=True)
    (conf / "model" / "evil.yaml").write_text("_target_: evil_net.Net\n")
    (tmp_path / "evil" / "evil_net.py").write_text(NET)
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    sources = [{"path": str(conf), "provider": "command-line"}] if overrides == "--config-dir" else []
    searched = [f"hydra.searchpath=[file://{conf}]"] if overrides == "searchpath" else []
    task = ["model=evil"] if isinstance(overrides, str) else [each.replace("PATH", str(tmp_path)) for each in overrides]
    runtime = {"cwd": str(tmp_path / "evil"), "config_sources": sources}
    hydra = {"hydra": {"runtime": runtime, "overrides": {"hydra": searched, "task": task}}}
    Path("run/.hydra/hydra.yaml").write_text(yaml.safe_dump(hydra))
    Path("run/.hydra/overrides.yaml").write_text(yaml.safe_dump(task))

    with pytest.raises(SystemExit) as end:
        command("train", "resume=run")

    error = capsys.readouterr().err
    assert end.value.code == 2
    assert "which is not part of agebench: add trust=true to run it if you trust the file" in error
    assert "Traceback" not in error
    assert not list(tmp_path.rglob("canary"))
    assert "evil_net" not in sys.modules
    assert not Path(tmp_path, "run", "results.json").exists()


@pytest.mark.ci
def test_the_users_own_network_is_used_with_trust(command, tmp_path, capsys):
    Path("honest_net.py").write_text(NET)
    Image.new("L", (8, 8)).save("new.png")
    line = ("data=digits", "data.limit=100", "trainer.max_epochs=1", "report=false", "trainer.accelerator=cpu")
    line += ("model._target_=honest_net.Net", "~model.image_size", "~model.hidden", "~model.batch_norm")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        command("train", *line, "~model.activation", "hydra.run.dir=run")

    for verb, arguments in (*VERBS.items(), ("train", ())):
        sys.modules.pop("honest_net", None)
        given = (f"{'resume' if verb == 'train' else 'run'}=run", *arguments)
        with pytest.raises(SystemExit) as end:
            command(verb, *given)
        assert end.value.code == 2
        assert "names model._target_=honest_net.Net, which is not part of agebench" in capsys.readouterr().err
        command(verb, *given, "trust=true")

    assert Path("out.csv").is_file()
    assert Path("out.onnx").is_file()
    assert list(Path("run").glob("evaluate/*/results.json"))
