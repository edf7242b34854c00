"""The schema of a config: its keys with their values, and the objects that its nodes name. Nothing heavy is imported.

Keys under a node with a `_target_` need no entry: they are checked against the signature of the object. An entry here
adds what a signature does not say, such as a range, for classes of other libraries.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Required, TypedDict

from agebench.build.nodes import find_target
from agebench.data.keys import DataKeys, GroupColumns
from agebench.errors import UserError
from agebench.schema import (
    INSTRUCTIONS,
    Count,
    InnerShare,
    Natural,
    Node,
    NonNegative,
    PartialNode,
    Positive,
    Range,
    Seed,
    Share,
    Text,
    check,
    check_call,
    show,
)

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "64-true", "bf16-true", "16-true", "32", "64")
Precision = Annotated[str | int, lambda v: str(v) in PRECISIONS, f"one of {', '.join(PRECISIONS[:3])}"]
DeviceList = Annotated[str, re.compile(r"auto|-1|\d+(, *\d+)*,?").fullmatch, "auto or a text such as '0,1'"]
Devices = Annotated[int, lambda v: v == -1 or v > 0, "an integer of 1 or more"] | list[Natural] | DeviceList
Mode = Literal["min", "max"]
Duration = Annotated[str, re.compile(r"\d+(:\d\d){3}").fullmatch, "a time as DD:HH:MM:SS"]
Epochs = Annotated[int, Range(least=-1)]


def _is_share(value: int | float) -> bool:
    return isinstance(value, int) or value <= 1  # Lightning reads an integer as a number of batches


BatchLimit = Annotated[int | float, Range(least=0), _is_share, "a number of batches, or a share from 0.0 to 1.0"]
Interval = Annotated[int | float, Range(above=0), _is_share, "a number of steps, or a share of an epoch up to 1.0"]

MAX_AGE = 150  # years
Age = Annotated[float, Range(above=0, most=MAX_AGE)]
AgeLimit = Annotated[
    Annotated[int, Range(least=1, most=MAX_AGE)] | None, f"a whole number of years from 1 to {MAX_AGE}, or null"
]


def _is_filled(value: list[Any] | None) -> bool:
    return value is None or len(value) > 0


def _is_sweep_name(value: str) -> bool:
    return bool(value.strip("/. ")) and ".." not in Path(value).parts and not Path(value).is_absolute()


class PathKeys(TypedDict):
    """The keys of conf/paths."""

    data: Text
    cache: Annotated[str, bool, "a folder for packed pixels"]
    output: Text


class LauncherKeys(TypedDict):
    """The keys of `launcher`."""

    jobs: Literal["auto"] | Count
    gpus_per_job: Natural
    timeout: Annotated[Positive | None, "seconds above 0, or null"]
    fail_fast: bool


class ModelKeys(Node):
    """The keys of conf/model that every network has."""

    pretrained: bool
    checkpoint_path: Text | None
    freeze: NotRequired[Literal["backbone"] | None]  # of runs from before `finetune=head`


class OptimKeys(PartialNode, total=False):
    """The keys of parameter groups, and ranges of the arguments of PyTorch's optimizers."""

    decay_norms: bool
    layer_decay: Annotated[float, Range(above=0, most=1)] | None

    lr: Positive
    weight_decay: NonNegative
    betas: tuple[Annotated[float, Range(least=0, below=1)], Annotated[float, Range(least=0, below=1)]]
    eps: NonNegative
    momentum: NonNegative
    alpha: NonNegative


class AugmentKeys(Node):
    """The keys of mixing, which every augmentation has."""

    mixup: Positive | None
    cutmix: Positive | None
    mix_probability: Share


class SchedulerKeys(Node, total=False):
    """The arguments of schedules that agebench passes unless the config does."""

    monitor: Text
    mode: Mode


class TrainerKeys(Node, total=False):
    """Ranges of the arguments of Lightning's Trainer."""

    accelerator: Required[Text]
    devices: Required[Devices]
    strategy: Required[Text | Node]
    num_nodes: Count
    precision: Required[Precision]
    max_epochs: Required[Annotated[Epochs | None, "an integer number of epochs, or -1 for no limit"]]
    min_epochs: Natural | None
    max_steps: Required[Annotated[int, Range(least=-1)]]
    min_steps: Natural | None
    max_time: Duration | dict[str, int] | None
    limit_train_batches: Required[BatchLimit | None]
    limit_val_batches: Required[BatchLimit | None]
    limit_test_batches: Required[BatchLimit | None]
    overfit_batches: BatchLimit
    val_check_interval: Interval | Duration | dict[str, int] | None
    check_val_every_n_epoch: Required[Count | None]
    num_sanity_val_steps: Annotated[int, Range(least=-1)]
    log_every_n_steps: Natural
    accumulate_grad_batches: Required[Count]
    gradient_clip_val: Required[NonNegative | None]
    gradient_clip_algorithm: Literal["norm", "value"] | None
    reload_dataloaders_every_n_epochs: Natural


class EarlyStoppingKeys(Node, total=False):
    """Ranges of the arguments of Lightning's EarlyStopping."""

    monitor: Required[Text]
    patience: Required[Annotated[Natural | None, "a number of epochs, or null to switch it off"]]
    min_delta: NonNegative
    mode: Mode


class CheckpointKeys(Node, total=False):
    """Ranges of the arguments of Lightning's ModelCheckpoint."""

    monitor: Text | None
    filename: Text
    save_top_k: Annotated[int, Range(least=-1)]
    mode: Mode
    every_n_epochs: Count | None
    every_n_train_steps: Count | None


class ProgressKeys(TypedDict):
    """The keys of callbacks.progress."""

    refresh_rate: Natural


class CallbackKeys(TypedDict, total=False):
    """The keys of conf/callbacks that have a meaning for agebench. Others are nodes of callbacks."""

    checkpoint: CheckpointKeys | None
    early_stopping: Annotated[
        EarlyStoppingKeys | None, "null or a group of keys, such as callbacks.early_stopping.patience=5"
    ]
    progress: ProgressKeys | None


class DecisionKeys(TypedDict):
    """The keys of decisions at an age limit; null is the default or, for a trained run, the value of the run."""

    age_limit: AgeLimit
    challenge_ages: Annotated[list[Age] | None, _is_filled, "a list of ages in years, such as [18,21,25,30]"]
    acceptable: InnerShare | None
    priors: Annotated[list[InnerShare] | None, _is_filled, "a list of shares, such as [0.1,0.2,0.3]"]


class FinetuneKeys(TypedDict, total=False):
    """The keys of conf/finetune."""

    mode: Required[Literal["none", "head", "head_then_all", "gradual", "all"]]
    epochs: Count
    backbone_lr_ratio: Annotated[float, Range(above=0, most=1), "a share above 0 and up to 1, such as 0.1"] | None


class EmaKeys(TypedDict):
    """The keys of the moving average of the weights."""

    decay: Annotated[float, Range(above=0, below=1), "a share above 0 and below 1, such as 0.999"] | None


class SwaKeys(TypedDict):
    """The keys of the average of the weights at the ends of epochs."""

    start: Annotated[float, Range(least=0, below=1), "a share of the epochs from 0 to below 1, such as 0.75"] | None


class TeacherKeys(TypedDict):
    """The keys of distillation."""

    run: Annotated[Text | int | None, "the folder of a trained run, or null"]  # it may be called 2024
    weight: Share
    temperature: Positive


class TrainKeys(DecisionKeys):
    """The keys of a training run."""

    seed: Seed
    monitor: Text
    test_checkpoint: Literal["best", "last"]
    report: Annotated[bool | Literal["light", "full"], "false, light (or true) or full"]
    matmul_precision: Literal["highest", "high", "medium"]
    channels_last: bool
    compile: Annotated[
        bool | Literal["default", "reduce-overhead", "max-autotune"],
        "false, true (or default), reduce-overhead or max-autotune",
    ]
    ema: EmaKeys
    swa: SwaKeys
    teacher: TeacherKeys
    lr_find: bool
    on_nan: Literal["stop", "skip"]
    sweep: Annotated[str, _is_sweep_name, "the name of a folder below paths.output/sweeps"]
    resume: Annotated[Literal[False] | Text, "auto, false or the folder of a run"]
    trust: bool
    launcher: LauncherKeys
    paths: PathKeys
    data: DataKeys
    model: ModelKeys
    head: Node
    optim: OptimKeys
    finetune: FinetuneKeys
    scheduler: SchedulerKeys
    augment: AugmentKeys
    trainer: TrainerKeys
    callbacks: CallbackKeys
    logger: Annotated[dict[str, Node | None] | None, "null or a group of loggers"]


class TrainedKeys(DecisionKeys):
    """The keys of a run's config that the commands for trained runs read."""

    seed: Seed
    matmul_precision: Literal["highest", "high", "medium"]
    channels_last: bool
    paths: PathKeys
    data: DataKeys
    model: ModelKeys
    head: Node
    augment: Node
    trainer: TrainerKeys


class AuditKeys(TypedDict):
    """The keys of an audit."""

    seed: Seed
    listed: bool
    duplicates: bool
    paths: PathKeys
    data: DataKeys


class PrepareKeys(TypedDict):
    """The keys of a preparation."""

    seed: Seed
    export: Text | None
    paths: PathKeys
    data: DataKeys


RunFolder = Annotated[Text | int, "the folder of a trained run: run=outputs/..."]  # it may be called 2024


class RunKeys(TypedDict):
    """The keys of all commands that take a trained run."""

    checkpoint: Annotated[Text | int, "tested, best, last, or a file"]
    trust: bool


class CalibrateKeys(RunKeys):
    """The keys of a calibration."""

    run: RunFolder
    coverage: Annotated[float, Range(above=0, below=1), "a share above 0 and below 1"]
    accelerator: Text
    precision: Annotated[Precision | None, f"null for the run's, or {', '.join(PRECISIONS[:3])}"]


SeveralRuns = Annotated[
    RunFolder | Annotated[list[RunFolder], _is_filled],
    "the folder of a trained run or of a sweep, or a list of runs: run=[outputs/...,outputs/...]",
]
Views = Literal["flip", "shift", "flip+shift"] | None


class ReportKeys(TypedDict):
    """The keys of a report."""

    run: SeveralRuns
    level: Literal["light", "full"]
    accelerator: Text
    trust: bool


class RunsKeys(RunKeys):
    """The keys of all commands that take one run or several, which are averaged."""

    run: SeveralRuns
    average: Literal["posteriors", "weights"]
    tta: Views


class ExportKeys(RunsKeys):
    """The keys of an export."""

    calibration: bool
    format: Literal["onnx", "pt2", "safetensors"]
    output: Annotated[Text | int, "a file to write"]


class PredictKeys(RunsKeys):
    """The keys of a prediction."""

    calibration: bool
    images: Annotated[Text | int, "a folder of images, a zip or tar of one, a CSV file with a column path, or an image"]
    invert: bool
    output: Annotated[Text | int, "a file to write"]
    age_limit: AgeLimit
    batch_size: Count
    accelerator: Text
    precision: Annotated[Precision | None, f"null for the run's, or {', '.join(PRECISIONS[:3])}"]


class AppKeys(RunKeys):
    """The keys of the local page."""

    run: SeveralRuns
    port: Annotated[int, Range(0, 65_535), "a port from 0 to 65535"]
    examples: Natural
    calibration: bool
    tta: Views
    age_limit: AgeLimit
    accelerator: Text
    precision: Annotated[Precision | None, f"null for the run's, or {', '.join(PRECISIONS[:3])}"]


class EvaluateKeys(RunsKeys, DecisionKeys):
    """The keys of an evaluation."""

    calibration: bool
    data: NotRequired[DataKeys | None]
    paths: PathKeys
    devices: Devices
    accelerator: Text
    precision: Annotated[Precision | None, f"null for the run's, or {', '.join(PRECISIONS[:3])}"]
    groups: GroupColumns
    allow_leak: bool


class ScoreKeys(DecisionKeys):
    """The keys of scoring a file of predictions. It may be called 2024."""

    predictions: Annotated[Text | int, "a CSV file of predictions"]
    name: Annotated[Text | int | float | None, "the name of the model"]
    listed: bool
    paths: PathKeys
    data: DataKeys


class Place(NamedTuple):
    """A node of the config and what agebench passes to the object that it names.

    Args:
        key: The dotted key; `*` stands for any single part.
        keys: The keys that are checked by an annotation instead of the signature.
        positional: Number of positional arguments that agebench passes.
        given: Keyword arguments that agebench passes.
    """

    key: str
    keys: Any = Node
    positional: int = 0
    given: tuple[str, ...] = ()


LIGHT = (Place("data.source"), Place("data.split", positional=2))  # need no torch
IN_TRAINER = (
    "callbacks",
    "logger",
    "default_root_dir",
    "enable_progress_bar",
    "enable_model_summary",
    "use_distributed_sampler",
)
NETWORK = (
    Place("model", ModelKeys, given=("in_chans", "num_classes")),
    Place("head", positional=2, given=("ordered",)),
    Place("augment", AugmentKeys),
)
TRAINING = (
    Place("optim", OptimKeys, positional=1),
    Place("scheduler", SchedulerKeys, positional=1, given=("epochs", "steps_per_epoch", "val_every_epochs")),
    Place("trainer", TrainerKeys, given=IN_TRAINER),
    Place("callbacks.checkpoint", CheckpointKeys),
    Place("callbacks.early_stopping", EarlyStoppingKeys),
    Place("callbacks.*"),
    Place("logger.*"),
)


def check_nodes(config: Mapping[str, Any], places: Sequence[Place]) -> None:
    """Check the nodes of a config against the signatures of the objects that they name, which are imported.

    Args:
        config: The config as plain data.
        places: The nodes to check.

    Raises:
        UserError: If an object does not exist, or an argument is unknown, missing, or has an invalid value.
    """
    checked: set[str] = set()
    for place in places:
        for key, node in _find(config, place.key.split(".")):
            if key not in checked and node is not None and key != "callbacks.progress":
                checked.add(key)
                _check_node(key, node, place)


def _find(node: Any, parts: Sequence[str], key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of everything at a place."""
    if not parts:
        yield key, node
    elif isinstance(node, Mapping):
        for name in list(node) if parts[0] == "*" else [parts[0]] if parts[0] in node else []:
            yield from _find(node[name], parts[1:], f"{key}.{name}".lstrip("."))


def _check_node(key: str, node: Any, place: Place) -> None:
    if not isinstance(node, Mapping):
        raise UserError(f"{key} must be null or a group of keys with a _target_, got {show(node)}")
    check(key, node, place.keys)
    checked = place.keys.__annotations__
    arguments = {name: value for name, value in node.items() if name not in (*checked, *INSTRUCTIONS)}
    target = find_target(key, node["_target_"])
    check_call(key, arguments, target, positional=place.positional, given=place.given, checked=checked)
    for name, value in arguments.items():
        for inner, each in _inner(f"{key}.{name}", value):
            _check_node(inner, each, Place(inner))


def _inner(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the outermost nodes with a `_target_` inside a value."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield key, value
        else:
            for name, each in value.items():
                yield from _inner(f"{key}.{name}", each)
    elif isinstance(value, list | tuple):
        for i, each in enumerate(value):
            yield from _inner(f"{key}[{i}]", each)
