"""Train each recipe, and each recipe without one of its lines, on four sets of images, and draw the tables of the docs.

python experiments/recipes/study.py train FOLDER [RECIPE]   trains what is missing in a folder
python experiments/recipes/study.py compare FOLDER          writes results.csv from these runs
python experiments/recipes/study.py draw                    writes the tables of docs/recipes.md from results.csv

`train` reads the environment variables FACES (a CSV file with the columns path and age), MNIST, HIRAGANA and DEMO
(folders of the data), and WEIGHTS (the ImageNet weights of timm's mobilenetv2_100).
"""

import csv
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from agebench.api import train
from agebench.comparison.groups import Group
from agebench.comparison.paired_differences import compare_with_best
from agebench.files import csv_text
from agebench.runs.read import read_run

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "recipes.md"
RESULTS = HERE / "results.csv"
COLUMNS = (
    *("recipe", "images", "variant", "epochs", "seeds", "mean", "std", "val"),
    *("gain", "low", "high", "p_holm", "over", "tested"),
)
SEEDS = (0, 1, 2)
EPOCHS = 12
COMMON = ("trainer.accelerator=cpu", "report=false", "callbacks.progress=null", "trainer.check_val_every_n_epoch=3")
TINY_RESNET = (
    *("model=timm", "model.model_name=resnet18", "+model.layers=[1,1,1,1]", "+model.channels=[16,32,64,128]"),
    "data.image_size=32",
)
SMALL_CNN = ("model=small_cnn", "model.widths=[16,32]")
MOBILENET = (
    *("model=timm", "model.model_name=mobilenetv2_100", "model.checkpoint_path=$WEIGHTS", "data.normalise=half"),
    *("data.image_size=32", "data.channels=3"),
)


@dataclass(frozen=True)
class Images:
    """A set of images, and the network that learns it from random weights.

    Args:
        title: For the tables.
        keys: Overrides of the data, the head and the augmentation.
        network: Overrides of the network for the recipes that start from random weights.
        metric: The test metric.
        unit: Of the target, empty for classes.
    """

    title: str
    keys: Sequence[str]
    network: Sequence[str]
    metric: str
    unit: str = ""


SETS = {
    "demo": Images(
        "demo faces, MAE in decades",
        ("data=demo", "data.root=$DEMO", "data.limit=500", "augment=cacd", "monitor=val/mae"),
        TINY_RESNET,
        "test/mae",
        "decades",
    ),
    "faces": Images(
        "real faces, MAE in years",
        (
            *("data=table", "data.root=$FACES", "data.target=age", "data.limit=400", "head=dldl_v2", "augment=cacd"),
            *("data.split.val_share=0.2", "data.split.test_share=0.3"),
        ),
        TINY_RESNET,
        "test/mae",
        "years",
    ),
    "mnist": Images(
        "MNIST, accuracy in %",
        ("data=mnist", "data.root=$MNIST", "data.limit=600", "augment=digits"),
        SMALL_CNN,
        "test/accuracy",
    ),
    "hiragana": Images(
        "hiragana, accuracy in %",
        (
            *("data=hiragana73", "data.root=$HIRAGANA", "data/split=identity", "data.image_size=32", "augment=digits"),
            *("data.split.val_share=0.15", "data.split.test_share=0.2"),
        ),
        SMALL_CNN,
        "test/accuracy",
    ),
}


@dataclass(frozen=True)
class Study:
    """What is trained for one recipe.

    Args:
        lines: For each line that was tried, the overrides that undo it.
        rejected: The lines that were tried and are not in the recipe, with the overrides that add them.
        epochs: The length of each training; None: that of the recipe.
        against: The recipe with which this one is compared, in trainings of EPOCHS epochs unless `epochs` is a number.
        from_weights: Whether the network is mobilenetv2 with its ImageNet weights.
    """

    lines: Mapping[str, Sequence[str]]
    rejected: Mapping[str, Sequence[str]] = field(default_factory=dict)
    epochs: int | None = EPOCHS
    against: str = "none"
    from_weights: bool = False


ADAM = ("optim=adam", "optim.lr=2e-3", "optim.weight_decay=0.0")
STUDIES = {
    "plain": Study(
        {
            "rate 2e-3": ("optim.lr=1e-3",),
            "cosine": ("scheduler=constant", "scheduler.warmup_epochs=1"),
            "AdamW with weight decay 0.05": ADAM,
            "warm-up": ("scheduler.warmup_epochs=0",),
            "clipping": ("trainer.gradient_clip_val=null",),
        },
        rejected={
            "AdamW with weight decay 0.05": ("optim=adamw", "optim.lr=2e-3", "optim.weight_decay=0.05"),
            "warm-up": ("scheduler.warmup_epochs=1",),
            "clipping": ("trainer.gradient_clip_val=1.0",),
        },
    ),
    "scratch": Study(
        {
            "rate 4e-3": ("optim.lr=2e-3",),
            "warm-up": ("scheduler.warmup_epochs=0",),
            "cosine": ("scheduler=constant", "scheduler.warmup_epochs=2"),
        },
    ),
    "strong": Study(
        {
            "moving average": ("ema.decay=null",),
            "CutMix": ("augment.cutmix=null", "augment.mix_probability=1.0"),
        },
        rejected={
            "moving average": ("ema.decay=0.99",),
            "CutMix": ("augment.cutmix=1.0", "augment.mix_probability=0.5"),
        },
        epochs=None,
        against="scratch",
    ),
    "finetune": Study(
        {
            "pretrained weights": ("model.checkpoint_path=null", "model.pretrained=false"),
            "AdamW with weight decay 0.05": ADAM,
            "rate 2e-3": ("optim.lr=1e-3",),
            "cosine": ("scheduler=constant", "scheduler.warmup_epochs=1"),
            "warm-up": ("scheduler.warmup_epochs=0",),
            "clipping": ("trainer.gradient_clip_val=null",),
        },
        epochs=9,
        from_weights=True,
    ),
}


def variants(recipe: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the set, the name and the overrides of each training of a recipe, without the seed."""
    study = STUDIES[recipe]
    for name, images in SETS.items():
        network = MOBILENET if study.from_weights else images.network
        keys = [*COMMON, *images.keys, *network]
        epochs = [] if study.epochs is None else [f"trainer.max_epochs={study.epochs}"]
        yield name, study.against, [*keys, f"trainer.max_epochs={study.epochs or EPOCHS}", f"recipe={study.against}"]
        yield name, "recipe", [*keys, *epochs, f"recipe={recipe}"]
        tried = [*keys, *epochs, f"recipe={recipe}", *chain.from_iterable(study.rejected.values())]
        if study.rejected:
            yield name, "all lines", tried
        for line, undo in study.lines.items():
            keys_of_line = {each.partition("=")[0] for each in undo}
            yield name, f"without {line}", [*(k for k in tried if k.partition("=")[0] not in keys_of_line), *undo]


def train_all(folder: Path, recipes: Sequence[str]) -> None:
    """Train all variants of recipes with all seeds. Finished runs are kept."""
    for recipe in recipes:
        for images, variant, keys in variants(recipe):
            for seed in SEEDS:
                run = folder / recipe / images / slug(variant) / f"seed{seed}"
                expanded = [os.path.expandvars(each) for each in keys]
                train(*expanded, f"seed={seed}", f"paths.cache={folder / 'cache'}", f"hydra.run.dir={run}")


def compare_all(folder: Path) -> None:
    """Write results.csv: a row for each variant, with its difference to the recipe, paired over the test images."""
    rows = [row for recipe in STUDIES for name in SETS for row in _compare(folder / recipe / name, recipe, name)]
    RESULTS.write_text(csv_text(COLUMNS, rows), encoding="utf-8")


def _compare(folder: Path, recipe: str, name: str) -> Iterator[tuple[object, ...]]:
    found = {variant: _group(folder, variant) for at, variant, _ in variants(recipe) if at == name}
    groups = {variant: group for variant, group in found.items() if all(r.status == "completed" for r in group.runs)}
    if len(groups) < len(found):
        print(f"{recipe} on {name}: not trained: {', '.join(sorted(set(found) - set(groups)))}")
    other = STUDIES[recipe].against
    if {"recipe", other} <= groups.keys():
        yield from _rows(recipe, name, {"recipe": groups["recipe"], other: groups[other]})
    full = "all lines" if "all lines" in found else "recipe"
    without = {variant: group for variant, group in groups.items() if variant.startswith("without")}
    if without and full in groups:
        yield from islice(_rows(recipe, name, {full: groups[full]} | without), 0 if full == "all lines" else 1, None)


def _rows(recipe: str, name: str, groups: Mapping[str, Group]) -> Iterator[tuple[object, ...]]:
    """Yield a row for each group; the first is the reference. A positive gain says that the reference is better."""
    images = SETS[name]
    paired = compare_with_best(list(groups.values()), 0, metric=images.metric, unit=images.unit)
    if paired is None or len(paired.differences) < len(groups) - 1:
        raise SystemExit(f"{recipe} on {name} cannot be compared: {paired and paired.notes}")
    for i, (variant, group) in enumerate(groups.items()):
        value, deviation = group.mean(images.metric), group.std(images.metric)
        val = sum(run.result("best", "value") for run in group.runs) / len(group.runs)
        epochs = group.runs[0].config["trainer.max_epochs"]
        row = (recipe, name, variant, epochs, len(group.runs), value, deviation, val)
        if i == 0:
            yield (*row, "", "", "", "", paired.over, paired.drawn)
            continue
        found = paired.differences[i]
        sign = 1 if images.unit else -1
        low, high = sorted((sign * found.low, sign * found.high))
        yield (*row, sign * found.value, low, high, paired.adjusted[i], paired.over, paired.drawn)


def _group(folder: Path, variant: str) -> Group:
    return Group(tuple(read_run(folder / slug(variant) / f"seed{seed}") for seed in SEEDS), {})


def slug(variant: str) -> str:
    """Return the folder name of a variant."""
    return re.sub(r"\W+", "-", variant)


def draw(page: str, rows: Sequence[Mapping[str, str]]) -> str:
    """Return a page with its tables replaced by those of results.csv.

    A table stands between the comments `<!-- table: NAME -->` and `<!-- end -->`. NAME is `recipes`, or a recipe.
    """

    def table(match: re.Match[str]) -> str:
        lines = _table_of_recipes(rows) if match[1] == "recipes" else _table_of_lines(rows, match[1])
        return f"<!-- table: {match[1]} -->\n\n" + "\n".join(lines) + "\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", table, page, flags=re.DOTALL)


def _table_of_recipes(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    yield f"| recipe | {' | '.join(images.title for images in SETS.values())} |"
    yield "|---|" + "---|" * len(SETS)
    for recipe, study in STUDIES.items():
        cells = []
        for name in SETS:
            other, full = (_find(rows, recipe, name, variant) for variant in (study.against, "recipe"))
            cells.append(f"{_value(other)} → {_value(full)}<br>{_gain(other)}" if other else "not trained")
        yield f"| `{study.against}` → `{recipe}` | {' | '.join(cells)} |"


def _table_of_lines(rows: Sequence[Mapping[str, str]], recipe: str) -> Iterator[str]:
    study = STUDIES[recipe]
    yield f"| line | {' | '.join(f'gain on {images.title}' for images in SETS.values())} | in the recipe |"
    yield "|---|" + "---|" * (len(SETS) + 1)
    for line in study.lines:
        found = [_find(rows, recipe, name, f"without {line}") for name in SETS]
        yield f"| {line} | {' | '.join(map(_gain, found))} | {'no' if line in study.rejected else 'yes'} |"


def _find(rows: Sequence[Mapping[str, str]], recipe: str, name: str, variant: str) -> Mapping[str, str]:
    wanted = {"recipe": recipe, "images": name, "variant": variant}
    return next((row for row in rows if wanted.items() <= row.items()), {})


def _value(row: Mapping[str, str]) -> str:
    return _number(row, "mean").lstrip("+") + f" ± {_number(row, 'std').lstrip('+')}"


def _gain(row: Mapping[str, str]) -> str:
    """Return a gain with its interval, bold if the interval excludes zero, and the p-value of Holm."""
    if not row:
        return "not trained"
    text = f"{_number(row, 'gain')} [{_number(row, 'low')}, {_number(row, 'high')}]"
    p = float(row["p_holm"])
    bold = "**" if float(row["low"]) > 0 or float(row["high"]) < 0 else ""
    return f"{bold}{text}{bold}, p {'< 0.001' if p < 0.001 else f'= {p:.2g}'}"


def _number(row: Mapping[str, str], column: str) -> str:
    percent = not SETS[row["images"]].unit
    return f"{100 * float(row[column]):+.1f}" if percent else f"{float(row[column]):+.2f}"


def main(command: str, *arguments: str) -> None:
    """Run a command of this file."""
    if command == "train":
        train_all(Path(arguments[0]), arguments[1:] or list(STUDIES))
    elif command == "compare":
        compare_all(Path(arguments[0]))
    elif command == "draw":
        with RESULTS.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        PAGE.write_text(draw(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["help"]))
