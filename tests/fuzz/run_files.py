"""Cases of checkpoints and of the other files of a run."""

import json
import random
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import overrides
import torch
import yaml
from materials import SMALL, Case, line, use

Random = random.Random

RUN_LINES = (
    *["predict run=run images=images/img0.png"] * 3,
    *["evaluate run=run"] * 3,
    "evaluate run=run data=digits data/split=kfold allow_leak=true",
    "export run=run format=pt2",
    f"train resume=run {shlex.join(SMALL)} trainer.max_epochs=2",
    "calibrate run=run",
    "report run=run",
    "report run=run level=full",
    "score predictions=run/predictions.csv data=digits data.limit=30",
    *["compare run other_run"] * 2,
)


def _use_run() -> None:
    use("digits_run", "images")
    Path("digits_run").rename("run")


CHECKPOINT_LINES = (
    *RUN_LINES[:-2],
    "predict run=run images=images/img0.png checkpoint=last",
    f"train data=digits data.limit=24 model.checkpoint_path=run/checkpoints/best.ckpt {shlex.join(SMALL)}",
)


def _spoil_checkpoints(rng: Random, spoil: Callable[[Random, bytes], bytes]) -> None:
    seed = rng.randrange(2**32)
    for name in ("best", "last"):
        path = Path(f"run/checkpoints/{name}.ckpt")
        path.write_bytes(spoil(Random(seed), path.read_bytes()))


def _checkpoint_bytes(spoil: Callable[[Random, bytes], bytes]) -> Case:
    def case(rng: Random) -> list[str]:
        _use_run()
        _spoil_checkpoints(rng, spoil)
        return line(rng, *CHECKPOINT_LINES)

    return case


CHECKPOINTS = {name: _checkpoint_bytes(spoil) for name, spoil in damage.BYTES.items()}


def _change_checkpoints(change: Callable[[Any], None]) -> None:
    for name in ("best", "last"):
        path = Path(f"run/checkpoints/{name}.ckpt")
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)


def _checkpoint_field(value: Any) -> Case:
    def case(rng: Random) -> list[str]:
        def change(content: Any) -> None:
            rng = Random(seed)
            stamp = content["agebench"]
            tree = rng.choices((stamp, stamp["config"], content, content["state_dict"]), (5, 3, 2, 1))[0]
            damage.change_field(rng, tree, value)

        _use_run()
        seed = rng.randrange(2**32)
        _change_checkpoints(change)
        return line(rng, *CHECKPOINT_LINES)

    return case


CHANGE = re.compile(r"(\S+)\[(.*)\] = (\w+) ; (.+)")


def change_named_field(case: str) -> list[str]:
    """Change one field by name, such as `checkpoints[agebench|config|data] = one ; predict run=run`.

    Unlike a number, it stays the same case when fields and commands are added.

    Args:
        case: `checkpoints` or a file of the run, the keys of the field, the name of its value in damage.FIELDS, and
            the command.
    """
    found = CHANGE.fullmatch(case)
    assert found, f"not FILE[KEY|KEY] = VALUE ; COMMAND: {case}"
    file, keys, value, command = found.groups()

    def change(tree: Any) -> None:
        path: list[Any] = [int(key) if key.isdigit() else key for key in keys.split("|")]
        for key in path[:-1]:
            tree = tree[key]
        assert path[-1] in (tree if isinstance(tree, dict) else range(len(tree))), f"no such field: {case}"
        damage.set_field(tree, path[-1], damage.FIELDS[value])

    _use_run()
    if file == "checkpoints":
        _change_checkpoints(change)
    else:
        _change_file(Path("run", file), change)
    return shlex.split(command)


def odd_checkpoint(rng: Random) -> list[str]:
    """Put something else that torch.load accepts in place of the checkpoints."""
    content: Any = rng.choice(
        (None, 1, "text", [], {}, {"state_dict": {}}, {"agebench": {}}, {"agebench": {"config": {}}}, torch.zeros(3),
         {"agebench": {"config": {}}, "state_dict": {}}, {"agebench": {"config": {}, "started_in": 1}})
    )  # fmt: skip
    _use_run()
    for name in ("best", "last"):
        torch.save(content, f"run/checkpoints/{name}.ckpt")
    return line(rng, *CHECKPOINT_LINES)


STAMPS = {name: _checkpoint_field(value) for name, value in damage.FIELDS.items()} | damage.named(odd_checkpoint)

TEXT_FILES = ("metrics.csv", "predictions.csv", "split.csv", "per_class.csv")


def _change_file(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the content of a JSON or YAML file."""
    is_json = path.suffix == ".json"
    tree = json.loads(path.read_text()) if is_json else yaml.safe_load(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree) if is_json else yaml.safe_dump(tree, allow_unicode=True))


def _run_field(value: Any) -> Case:
    """Change one field of results.json or of a file in .hydra/."""

    def case(rng: Random) -> list[str]:
        _use_run()
        use("digits_run")
        Path("digits_run").rename("other_run")
        path = Path("run", rng.choice(("results.json", "results.json", ".hydra/config.yaml", ".hydra/hydra.yaml")))
        _change_file(path, lambda tree: damage.change_field(rng, tree, value))
        return line(rng, *RUN_LINES)

    return case


def _run_text(spoil: Callable[[Random, str], bytes], files: tuple[str, ...]) -> Case:
    def case(rng: Random) -> list[str]:
        _use_run()
        use("digits_run")
        Path("digits_run").rename("other_run")
        path = Path("run", rng.choice(files))
        path.write_bytes(spoil(rng, path.read_text(encoding="utf-8")))
        return line(rng, *RUN_LINES)

    return case


def odd_overrides(rng: Random) -> list[str]:
    _use_run()
    path = Path("run/.hydra/overrides.yaml")
    typed = yaml.safe_load(path.read_text())
    typed.insert(rng.randrange(len(typed)), rng.choice(overrides.VALUES + overrides.FLAGS))
    path.write_text(yaml.safe_dump(rng.choice((typed, typed, typed, {"a": typed}, "x", 1))))
    return line(rng, f"train resume=run {shlex.join(SMALL)} trainer.max_epochs=2", "evaluate run=run", "compare run")


def removed_file(rng: Random) -> list[str]:
    _use_run()
    use("digits_run")
    Path("digits_run").rename("other_run")
    path = rng.choice(sorted(Path("run").rglob("*")))
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if rng.random() < 0.4:
        path.mkdir(parents=True) if rng.random() < 0.5 else path.symlink_to(path.name)
    return line(rng, *RUN_LINES)


RUN_FIELDS = {name: _run_field(value) for name, value in damage.FIELDS.items()}
RUN_FILES = {name: _run_text(spoil, TEXT_FILES) for name, spoil in damage.TEXT.items()}
RUN_FILES |= {"odd_json": _run_text(damage.odd_json, ("results.json",))}
YAML_FILES = (".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml")
RUN_FILES |= {"odd_yaml": _run_text(damage.odd_yaml, YAML_FILES)}
RUN_FILES |= damage.named(odd_overrides, removed_file)
