"""Checks of a composed config before a run starts. A rule is a key, a test and a description of valid values."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agebench.errors import UserError, did_you_mean

log = logging.getLogger(__name__)

MAX_SEED = 2**32 - 1  # NumPy's
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "64-true", "bf16-true", "16-true", "32", "64")
CROP_MODES = ("squash", "center", "border")
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
RESIDENCIES = ("auto", "gpu", "ram", "mapped")
Rule = tuple[str, Callable[[Any], bool], str]


def _is_int(value: Any, low: int, high: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: Any, low: float, *, open_end: bool = False) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return False
    return value > low if open_end else value >= low


def _is_path(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""  # a folder may be called 2024


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_node(value: Any) -> bool:
    return isinstance(value, Mapping | DictConfig)


RULES: tuple[Rule, ...] = (
    ("seed", lambda v: _is_int(v, 0, MAX_SEED), f"an integer from 0 to {MAX_SEED}"),
    ("report", lambda v: isinstance(v, bool), "true or false"),
    ("resume", lambda v: v is False or (isinstance(v, str) and v != ""), "auto, false or the folder of a run"),
    ("trust", lambda v: isinstance(v, bool), "true or false"),
    ("channels_last", lambda v: isinstance(v, bool), "true or false"),
    ("compile", lambda v: isinstance(v, bool), "true or false"),
    ("matmul_precision", lambda v: v in ("highest", "high", "medium"), "one of highest, high, medium"),
    ("test_checkpoint", lambda v: v in ("best", "last"), "best or last"),
    ("optim.lr", lambda v: _is_number(v, 0, open_end=True), "a number above 0"),
    ("optim.weight_decay", lambda v: _is_number(v, 0), "a number of 0 or more"),
    ("paths.cache", _is_text, "a folder for packed pixels"),
    ("data.source.root", _is_text, "the path of the data, given as data.root=PATH (a folder named 2024 is ./2024)"),
    ("data.batch_size", lambda v: v == "full" or _is_int(v, 1), "an integer of 1 or more, or full"),
    ("data.eval_batch_size", lambda v: _is_int(v, 1), "an integer of 1 or more"),
    ("data.image_size", lambda v: _is_int(v, 1), "a side in px of 1 or more"),
    ("data.channels", lambda v: v in (1, 3) and _is_int(v, 1), "1 (grey) or 3 (colour)"),
    ("data.crop_mode", lambda v: v in CROP_MODES, f"one of {', '.join(CROP_MODES)}"),
    ("data.crop_pct", lambda v: _is_number(v, 0, open_end=True) and v <= 1, "a share above 0 and at most 1"),
    ("data.interpolation", lambda v: v in FILTERS, f"one of {', '.join(FILTERS)}"),
    ("data.require_all", lambda v: isinstance(v, bool), "true or false"),
    ("data.residency", lambda v: v in RESIDENCIES, f"one of {', '.join(RESIDENCIES)}"),
    ("data.num_workers", lambda v: _is_int(v, 0), "an integer of 0 or more"),
    ("data.per_class", lambda v: v is None or _is_int(v, 1), "an integer of 1 or more, or null"),
    ("data.limit", lambda v: v is None or _is_int(v, 1), "an integer of 1 or more, or null"),
    ("data.target", lambda v: v in ("class", "decade", "age", "bins"), "one of class, decade, age, bins"),
    ("data.split", _is_node, "chosen as a group: data/split=NAME"),
    ("data.split.seed", lambda v: _is_int(v, 0, MAX_SEED), f"an integer from 0 to {MAX_SEED}"),
    ("data.split.fold", lambda v: _is_int(v, 0), "an integer of 0 or more"),
    (
        "sweep",
        lambda v: bool(str(v or "").strip("/. ")) and ".." not in Path(str(v)).parts and not Path(str(v)).is_absolute(),
        "the name of a folder below paths.output/sweeps",
    ),
    ("launcher.jobs", lambda v: v == "auto" or _is_int(v, 1), "auto, or an integer of 1 or more"),
    ("launcher.gpus_per_job", lambda v: _is_int(v, 0), "an integer of 0 or more"),
    ("launcher.timeout", lambda v: v is None or _is_number(v, 0, open_end=True), "seconds above 0, or null"),
    ("launcher.fail_fast", lambda v: isinstance(v, bool), "true or false"),
    ("trainer.max_epochs", lambda v: v is None or _is_int(v, -1), "an integer number of epochs"),
    ("trainer.precision", lambda v: str(v) in PRECISIONS, f"one of {', '.join(PRECISIONS[:3])}"),
    (
        "callbacks.early_stopping",
        lambda v: v is None or _is_node(v),
        "null or a group of keys, such as callbacks.early_stopping.patience=5",
    ),
    (
        "callbacks.early_stopping.patience",
        lambda v: v is None or _is_int(v, 0),
        "a number of epochs, or null to switch it off",
    ),
)

# Rules of the commands that take a trained run.
RUN_RULES: tuple[Rule, ...] = (
    ("run", _is_path, "the folder of a trained run: run=outputs/..."),
    ("images", _is_path, "a folder of images, a zip or tar of one, or an image"),
    ("output", _is_path, "a file to write"),
    ("checkpoint", _is_path, "tested, best, last, or a file"),
    ("format", lambda v: v in ("onnx", "pt2"), "one of onnx, pt2"),
    ("batch_size", lambda v: _is_int(v, 1), "an integer of 1 or more"),
    ("precision", lambda v: v is None or str(v) in PRECISIONS, f"null for the run's, or {', '.join(PRECISIONS[:3])}"),
    ("coverage", lambda v: _is_number(v, 0, open_end=True) and v < 1, "a share above 0 and below 1"),
    ("calibration", lambda v: isinstance(v, bool), "true or false"),
    ("allow_leak", lambda v: isinstance(v, bool), "true or false"),
    ("trust", lambda v: isinstance(v, bool), "true or false"),
)


def check_config(cfg: DictConfig, rules: Sequence[Rule] = RULES) -> None:
    """Raise UserError for the first invalid value of a composed config.

    Missing values (`???`) and interpolations of keys that do not exist raise an error too.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UserError(f"{missing[0]} has no default: set {missing[0]}=VALUE")
    OmegaConf.to_container(cfg, resolve=True)
    check_rules(cfg, rules)
    _check_target(cfg)
    _check_monitor(cfg)
    _check_precision(cfg)


def check_rules(cfg: DictConfig, rules: Sequence[Rule] = RULES) -> None:
    """Raise UserError for the first key whose value breaks its rule."""
    for key, holds, needed in rules:
        value = OmegaConf.select(cfg, key, default=_ABSENT)
        if value is not _ABSENT and not holds(value):
            choices = needed.removeprefix("one of ").split(", ") if needed.startswith("one of ") else []
            raise UserError(f"{key} must be {needed}, got {value}{did_you_mean(value, choices)}")


def check_sources(configs: Sequence[DictConfig]) -> None:
    """Prepare every data set of a sweep, each once, or raise UserError for the first that is not available."""
    from hydra.utils import instantiate

    sources = [OmegaConf.to_container(cfg.data.source, resolve=True) for cfg in configs]
    for i, source in enumerate(sources):
        if source not in sources[:i]:
            instantiate(source, _convert_="all").prepare()


_ABSENT = object()


def _check_target(cfg: DictConfig) -> None:
    targets = OmegaConf.select(cfg, "data.targets")
    source = OmegaConf.select(cfg, "data.source._target_")
    if targets is None and source is not None:
        from hydra.utils import get_class

        targets = getattr(get_class(source), "targets", None)
    if isinstance(targets, tuple | list) and cfg.data.target not in targets:
        raise UserError(
            f"data={cfg.data.name} has no target {cfg.data.target}: set data.target={targets[0]}"
            + (f" (or {', '.join(targets[1:])})" if len(targets) > 1 else "")
        )
    if cfg.data.target == "bins" and not cfg.data.get("bins"):
        raise UserError("data.target=bins needs the lower edges of the bins in years: data.bins=[18,30,45,60]")
    if cfg.data.target != "bins" and cfg.data.get("bins"):
        # Only a warning, because a sweep over targets may set bins.
        log.warning("data.bins is ignored: it needs data.target=bins, and the target is %s", cfg.data.target)


def _check_monitor(cfg: DictConfig) -> None:
    from agebench.metrics.table import UNITS, monitor_keys

    known = monitor_keys(ordered=cfg.data.target in UNITS, unit=UNITS.get(cfg.data.target, ""))
    for key in ("monitor", "callbacks.checkpoint.monitor", "callbacks.early_stopping.monitor", "scheduler.monitor"):
        monitor = OmegaConf.select(cfg, key, default="auto")
        if monitor is not None and monitor not in ("auto", *known):
            raise UserError(
                f"{key} must be auto or a metric of data.target={cfg.data.target}, got {monitor}"
                f"{did_you_mean(monitor, known)}; known: {', '.join(known)}"
            )


def _check_precision(cfg: DictConfig) -> None:
    precision = str(OmegaConf.select(cfg, "trainer.precision"))
    if not precision.startswith(("16", "bf16")):
        return
    import torch

    accelerator = str(cfg.trainer.accelerator)
    gpu = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
    mps = torch.backends.mps.is_available() and accelerator in ("auto", "gpu", "mps")
    if precision.startswith("16") and not (gpu or mps):
        raise UserError(
            f"trainer.precision={precision} needs a GPU, and this run is on the CPU: "
            "use trainer.precision=bf16-mixed, which CPUs support, or 32-true"
        )
    if precision.startswith("bf16") and gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"trainer.precision={precision} is not supported by this GPU: use trainer.precision=16-mixed")
