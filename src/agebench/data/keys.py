"""The keys under `data` and their values. This file imports nothing heavy."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from agebench.schema import Count, Natural, Node, PartialNode, Range, Text

MAX_AGE = 200  # years
CropMode = Literal["squash", "center", "border"]  # as in timm
Filter = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
Residency = Literal["auto", "gpu", "ram", "mapped"]
TargetName = Literal["class", "decade", "age", "bins"]
# The path of a data set, an argument of sources.
DataPath = Annotated[str, bool, "the path of the data, given as data.root=PATH (a folder named 2024 is ./2024)"]


def _is_range(ages: Sequence[int] | None) -> bool:
    return ages is None or ages[0] < ages[1] <= MAX_AGE


def _differ(columns: list[Any]) -> bool:
    return len(set(map(str, columns))) == len(columns)


GroupColumns = Annotated[
    Annotated[list[Text | int], _differ] | None, "a list of different columns, such as [sex,race], or null"
]


class DataKeys(TypedDict):
    """The keys of conf/data. Those of `source` and `split` are the arguments of the objects that they name."""

    name: Text
    root: Any  # checked as an argument of the source
    target: TargetName
    bins: list[float] | None
    ages: NotRequired[Annotated[tuple[Natural, Natural] | None, _is_range, "an age and a higher one, such as [0,110]"]]
    groups: NotRequired[GroupColumns]  # runs of earlier versions have no such key
    image_size: Annotated[int, Range(least=1), "a side in px of 1 or more"]
    channels: Annotated[Literal[1, 3], "1 (grey) or 3 (colour)"]
    crop_mode: CropMode
    crop_pct: Annotated[float, Range(above=0, most=1), "a share above 0 and at most 1"]
    interpolation: Filter
    normalise: Literal["auto", "dataset", "none", "half", "imagenet"]
    batch_size: Count | Literal["full", "auto"]
    eval_batch_size: Count
    per_class: Count | None
    limit: Count | None
    require_all: bool
    residency: Residency
    num_workers: Natural
    source: Node
    split: Annotated[PartialNode, "chosen as a group: data/split=NAME"]
