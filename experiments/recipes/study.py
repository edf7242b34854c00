"""Train each recipe, and each recipe without one of its lines, on four sets of images, and draw the tables of the docs.

python experiments/recipes/study.py train runs       trains what is missing in the folder `runs`
python experiments/recipes/study.py compare runs     writes experiments/recipes/results.csv from these runs
python experiments/recipes/study.py draw             writes the tables into docs/recipes.md from results.csv

`train` reads the data from the environment variables FACES (a table of images with ages), MNIST, HIRAGANA and DEMO
(folders), and WEIGHTS (the ImageNet weights of timm's mobilenetv2_100).
"""

import csv
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "recipes.md"
RESULTS = HERE / "results.csv"
SEEDS = (0, 1, 2)
NONE, FULL = "none", "full"


@dataclass(frozen=True)
class Images:
    """A set of images, and the network that learns it from random weights.

    Args:
        title: For the tables.
        keys: Overrides of the data, the head and the augmentation.
        network: Overrides of the network for the recipes that start from random weights.
        pretrained: Overrides of the image size and the normalisation for the recipe that starts from weights.
        metric: The test metric.
        unit: Of the target, empty for classes.
        scale: Factor of the metric in the tables, and its sign: +1 if a larger value is better.
    """

    title: str
    keys: Sequence[str]
    network: Sequence[str]
    pretrained: Sequence[str]
    metric: str
    unit: str
    scale: float


RESNET = (
    "model=timm",
    "model.model_name=resnet18",
    "model.layers=[1,1,1,1]",
    "model.channels=[32,64,128,256]",
    "data.image_size=32",
)
SETS = {
    "demo": Images(
        "demo faces",
        ("data=demo", "data.root={DEMO}", "data.limit=600", "augment=cacd"),
        RESNET,
        ("data.image_size=48",),
        "test/mae",
        "decades",
        -1,
    ),
    "faces": Images(
        "real faces",
        (
            *("data=table", "data.root={FACES}", "data.target=age", "head=dldl_v2", "augment=cacd", "data.limit=500"),
            *("data.split.val_share=0.2", "data.split.test_share=0.3"),
        ),
        RESNET,
        ("data.image_size=48",),
        "test/mae",
        "years",
        -1,
    ),
    "mnist": Images(
        "MNIST",
        ("data=mnist", "data.root={MNIST}", "data.limit=750", "augment=digits"),
        ("model=small_cnn",),
        ("data.image_size=48", "data.channels=3"),
        "test/accuracy",
        "",
        100,
    ),
    "hiragana": Images(
        "hiragana",
        (
            *("data=hiragana73", "data.root={HIRAGANA}", "data/split=identity", "augment=digits"),
            *("data.split.val_share=0.15", "data.split.test_share=0.2"),
        ),
        ("model=small_cnn",),
        ("data.image_size=48", "data.channels=3"),
        "test/accuracy",
        "",
        100,
    ),
}
PRETRAINED = ("model=timm", "model.model_name=mobilenetv2_100", "model.checkpoint_path={WEIGHTS}", "data.normalise=half")


@dataclass(frozen=True)
class Recipe:
    """A recipe, and for each of its lines the overrides that undo it.

    Args:
        epochs: The length of its trainings.
        lines: Overrides that set the keys of a line to their defaults, by the name of the line.
        sets: The sets of images on which its lines are left out, one at a time.
        starts: Overrides of the network, in addition to those of the images.
    """

    epochs: int
    lines: Mapping[str, Sequence[str]]
    sets: Sequence[str] = tuple(SETS)
    from_weights: bool = False
    without: Mapping[str, Sequence[str]] = field(default_factory=dict)


RECIPES: dict[str, Recipe] = {}
