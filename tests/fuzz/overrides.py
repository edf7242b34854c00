"""Command lines with one or two hostile arguments; the keys are those of the composed configs."""

import random
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
from materials import AGES, SMALL, Case, use

Random = random.Random

VALUES = (
    "0", "1", "-1", "2.5", "99", "nan", "inf", "-inf", "1e308", "1e-308", "9" * 30, "null", "true", "false", "''",
    "' '", "あ", "'1'", "auto", "none", "nope", "x" * 5000, "[]", "[1,2]", "[a,b]", "[[1]]", "[null]", "{}", "{a:1}",
    "{_target_:builtins.print}", "{_target_:nope.X}", "some/file", "some/folder", "nowhere/at/all", "~", "..",
    "table.csv", "'a\tb'", "???", "${x}", "${seed}", "${oc.env:HOME}", "${oc.env:NOPE}", "${now:%Y}", "${", "'${x'",
    "1:2", "a=b", "'a=b'", "%", "'%(x)s'", "{{}}", "1,", "[1", "'", "a b", "\\", "choice(1,2)", "'\x1b[31m'", "",
)  # fmt: skip

TABLE = ["data=table", "data.root=table.csv", "data.image_size=8", "data.source.label=age"]
FACES = ["data.image_size=8", "data.batch_size=16"]
CLASSES = ["data=folder", "data.root=classes", "data.image_size=16"]
DIGITS = ["data=digits", "data.limit=24"]
BASES: dict[str, list[list[str]]] = {
    "train": [
        [*DIGITS, *SMALL],
        [*DIGITS, *SMALL, "optim=sgd", "scheduler=cosine", "augment=digits", "model=keras_cnn"],
        [*DIGITS, *SMALL, "optim=momentum", "scheduler=step", "data/split=subset", "data.limit=null",
         "data.split.train=30", "data.split.val=10", "data.split.test=10"],
        [*TABLE, *SMALL, "data.target=age", "head=regression", "optim=adamw", "scheduler=one_cycle",
         "augment=standard", "model=small_cnn"],
        [*TABLE, *SMALL, "data.target=decade", "head=coral", "optim=rmsprop", "scheduler=plateau", "augment=cacd",
         "model=small_cnn", "data/split=identity"],
        [*CLASSES, *SMALL, "model=small_cnn", "augment=randaugment", "optim=adagrad", "data/split=kfold"],
        [*AGES, *SMALL, "model=mlp", "head=dldl_v2"],
        [*AGES, *SMALL, "model=mlp", "head=mean_variance", "data/split=lecture"],
        ["data=mnist", "data.root=mnist", "data.source.download=false", *SMALL, "model=mlp", "head=unimodal"],
        [*AGES, *SMALL, "model=mlp", "head=orcnn", "logger=tensorboard", "optim=timm", "data/split=train80"],
    ],
    "evaluate": [["run=digits_run"], ["run=digits_run", *DIGITS], ["run=ages_run", *AGES, "allow_leak=true"]],
    "predict": [["run=ages_run", "images=images"], ["run=digits_run", "images=images/img0.png"]],
    "export": [["run=digits_run"], ["run=ages_run", "format=pt2"]],
    "prepare": [DIGITS, TABLE, CLASSES, AGES, [*CLASSES, "export=tree"], ["data=mnist", "data.source.download=false"]],
    "audit": [DIGITS, TABLE, [*TABLE, "data/split=identity"], CLASSES, AGES, [*AGES, "listed=true"],
              ["data=digits", "data/split=column", "data.split.file=list.csv"]],
}  # fmt: skip
GROUPS = ("data", "model", "head", "optim", "scheduler", "augment", "trainer", "callbacks", "logger", "paths", "debug",
          "experiment", "data/split", "hydra/launcher", "hydra/job_logging")  # fmt: skip
FLAGS = ("--resolve", "--cfg", "--cfg=job", "--cfg job --resolve", "--cfg hydra", "--cfg job -p data", "--package x",
         "--info", "--info nope", "--info defaults", "--config-name nope", "--config-dir some/file", "--nope", "-x",
         "--experimental-rerun some/file", "--help nope", "--version", "=", "a", "=1", "+=1", "~", "+", "++a=1",
         "a=1 a=2", "あ=1", "data", "data=", "data=[digits]", "data=digits data=table", "+data=table", "~data",
         "data@x=digits", "data.root", "--", "-c", "hydra.mode=nope", "hydra.verbose=nope", "hydra.verbose=true",
         "hydra.job.chdir=true", "hydra.output_subdir=x", "hydra.job.name=null", "hydra.run.dir=some/file",
         "hydra.run.dir=some/folder", "hydra.run.dir=digits_run", "hydra.run.dir=''", "hydra.run.dir=null",
         "hydra.run.dir=${x}", "hydra.run.dir=あ/い", "hydra.searchpath=[some/folder]",
         "hydra.callbacks=1")  # fmt: skip
COMPARE = ("--metric nope", "--metric", "--metric ''", "--metric accuracy", "--metric test/accuracy", "--metric=あ",
           "--format json", "--format nope", "--format ''", "--format md,csv", "--format html", "--output out",
           "--output some/file", "--output some/file/x", "--output ''", "--format md,html,csv,json --output o",
           "some/file", "some/folder", "nowhere", "''", "digits_run", "ages_run", ".", "--nope", "-h", "table.csv",
           "digits_run/results.json", "x" * 5000, "--output " + "y" * 5000)  # fmt: skip

keys: dict[str, list[list[str]]] = {}


def compose_keys(conf: Path) -> None:
    """Fill `keys` with the keys of each base, composed as Hydra does."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf), version_base="1.3"):
        for verb, bases in BASES.items():
            name = "config" if verb == "train" else verb
            composed = [compose(name, overrides=_quoted(base)) for base in bases]
            keys[verb] = [list(_flatten(OmegaConf.to_container(config, resolve=False))) for config in composed]


def _quoted(arguments: list[str]) -> list[str]:
    return [argument for argument in arguments if not argument.startswith("-")]


def _flatten(tree: Any, prefix: str = "") -> list[str]:
    found = []
    for key, value in tree.items():
        found.append(f"{prefix}{key}")
        if isinstance(value, dict):
            found += _flatten(value, f"{prefix}{key}.")
    return found


def value(rng: Random, verb: str, base: int) -> str:
    return f"{rng.choice(keys[verb][base])}={rng.choice(VALUES)}"


def deleted(rng: Random, verb: str, base: int) -> str:
    return f"~{rng.choice(keys[verb][base])}"


def added(rng: Random, verb: str, base: int) -> str:
    key = rng.choice(keys[verb][base])
    return f"{rng.choice(('+', '++'))}{key}{rng.choice(('', '.x', '._target_', '.0'))}={rng.choice(VALUES)}"


def group(rng: Random, verb: str, base: int) -> str:
    return f"{rng.choice(GROUPS)}={rng.choice(VALUES)}"


def flag(rng: Random, verb: str, base: int) -> str:
    return rng.choice(FLAGS)


def misspelt(rng: Random, verb: str, base: int) -> str:
    key = rng.choice(keys[verb][base])
    at = rng.randrange(len(key))
    return f"{key[:at]}{rng.choice(('', '.', '/', 'x', ' ', '=', 'あ'))}{key[at + 1 :]}=1"


def _override(make: Callable[[Random, str, int], str]) -> Case:
    def case(rng: Random) -> list[str]:
        verb = rng.choices(list(BASES), (10, 3, 3, 1, 4, 4))[0]
        number = rng.randrange(len(BASES[verb]))
        hostile = [make(rng, verb, number) for _ in range(rng.choice((1, 1, 1, 2)))]
        spaced = shlex.split(hostile[0]) if make is flag else hostile
        surround()
        return [verb, *BASES[verb][number], *spaced]

    return case


def compare(rng: Random) -> list[str]:
    surround()
    folders = rng.choice((["digits_run"], ["digits_run", "ages_run"], ["."], []))
    return ["compare", *folders, *shlex.split(rng.choice(COMPARE))]


def surround() -> None:
    """Make everything that the lines of overrides name."""
    use("table.csv", "list.csv", "images", "classes", "faces", "mnist", "digits_run", "ages_run")
    Path("some/folder").mkdir(parents=True)
    Path("some/folder/note.txt").write_text("a user's own file")
    Path("some/file").write_text("a user's own file")


OVERRIDES = {
    name: _override(make) for name, make in damage.named(value, deleted, added, group, flag, misspelt).items()
} | {"compare": compare}
