"""Checks of a composed config before a command starts: its schema, and which values fit together."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from agebench.accelerators import is_missing, not_available
from agebench.build.keys import LIGHT, TrainKeys, check_nodes
from agebench.build.nodes import find_target, instantiate_node
from agebench.config import flatten
from agebench.data.cache import check_cache
from agebench.data.groups import with_groups
from agebench.errors import UserError, did_you_mean
from agebench.files import near_path
from agebench.runs.members import find_teacher
from agebench.schema import check

log = logging.getLogger(__name__)
MAX_PROCESSES = 32  # on a machine with fewer CPU cores


def check_config(cfg: DictConfig, keys: Any = TrainKeys) -> None:
    """Raise UserError for the first invalid value of a composed config.

    Missing values (`???`) and interpolations of keys that do not exist raise an error too. Models, heads and what else
    needs torch are checked later, see agebench.build.keys.

    Args:
        cfg: The composed config.
        keys: The schema of the command.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UserError(f"{missing[0]} has no default: set {missing[0]}=VALUE")
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    check("", plain, keys)
    _check_processes(cfg)
    _check_accelerator(cfg)
    _check_names(plain)
    _check_loggers(plain)
    if plain.get("data") is not None:
        check_cache(Path(cfg.paths.cache), str(cfg.data.name))
        _check_root(plain["data"])
        check_nodes(plain, LIGHT)
        _check_target(cfg)
        if keys is TrainKeys:  # the other commands take the target of a run
            _check_age_limit(cfg)
            _check_finetune(cfg)
    if "monitor" in plain:
        _check_monitor(cfg)
        _check_plateau(cfg)
        _check_precision(cfg)
        _check_measured(cfg)
        _check_averages(cfg)
        if cfg.teacher.run is not None:
            find_teacher(cfg.teacher.run)


def _check_processes(config: DictConfig) -> None:
    """Raise UserError if a config asks for many more processes than this machine has CPU cores."""
    cores = os.cpu_count() or 1
    most = max(MAX_PROCESSES, cores)
    for key in ("trainer.devices", "devices", "data.num_workers"):
        count = str(OmegaConf.select(config, key, default=1))
        if count.isdecimal() and int(count) > most:
            raise UserError(
                f"{key}={count} starts {count} processes, and this machine has {cores} CPU cores: set {key} to {most} "
                "or less"
            )


def _check_accelerator(config: DictConfig) -> None:
    for key in ("trainer.accelerator", "accelerator"):
        name = str(OmegaConf.select(config, key, default="auto"))
        if is_missing(name):
            raise UserError(not_available(key, name))


def _check_root(data: Mapping[str, Any]) -> None:
    """Raise UserError if a typed data.root does not exist, but a folder or file with a similar name does.

    The source could otherwise create the folder and download the data set into it.
    """
    from hydra.core.hydra_config import HydraConfig

    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    if not any(each.startswith("data.root=") for each in typed) or not data.get("root"):
        return
    root = Path(str(data["root"])).expanduser().absolute()
    if root.exists() or data["name"] == "demo":  # which draws its images into a new folder
        return
    if found := near_path(root):
        raise UserError(
            f"data.root={data['root']} does not exist (did you mean '{found}'?): correct it, or create the folder first"
        )


def check_sources(configs: Sequence[DictConfig]) -> None:
    """Prepare every data set of a sweep, each once, or raise UserError for the first that is not available.

    A data set without the columns of `data.groups` is not available.
    """
    data: list[Any] = [OmegaConf.to_container(cfg.data, resolve=True) for cfg in configs]
    needed = [(each["source"], each.get("groups") or []) for each in data]
    for i, (node, groups) in enumerate(needed):
        if (node, groups) not in needed[:i]:
            source = instantiate_node("data.source", node)
            source.prepare()
            if groups:
                with_groups(source.records(), source, list(map(str, groups)), name=data[i]["name"])


def _check_loggers(config: Mapping[str, Any]) -> None:
    """Raise UserError if a logger of a plain config needs a package that is not installed."""
    from agebench.cli.messages import install_command

    for node in (config.get("logger") or {}).values():
        package = LOGGERS.get(str((node or {}).get("_target_")))
        if package is not None and find_spec(package) is None:
            raise UserError(f"logger={package} needs an extra: {install_command(package)}; see docs/commands.md")


# Keys that name a file or a folder inside the run directory.
LOGGERS = {f"agebench.training.Run{package.title()}": package for package in ("mlflow", "wandb", "trackio", "aim")}
NAMES = re.compile(r"(callbacks|logger)\.[^.]+\.(filename|name|version|sub_dir)|trainer\.profiler\.filename")
FOLDERS = re.compile(r"(callbacks\.[^.]+|trainer\.profiler)\.dirpath")
FIELD = re.compile(r"\{[^{}:]*(:[^{}/\\]*)?\}")  # such as {val/mae:.2f}, which Lightning replaces by a number


def _check_names(config: Mapping[str, Any]) -> None:
    """Raise UserError if a key of a plain config would write outside of the run directory."""
    from hydra.core.hydra_config import HydraConfig

    hydra: Any = HydraConfig.get() if HydraConfig.initialized() else OmegaConf.create()
    run_dir = OmegaConf.select(hydra, "runtime.output_dir", default=".")
    for key, value in flatten(config).items():
        if value is None:
            continue
        if FOLDERS.fullmatch(key) and not _absolute(value).is_relative_to(_absolute(run_dir)):
            raise UserError(
                f"{key} must be a folder inside {run_dir}, such as ${{hydra:runtime.output_dir}}/x, got {value}"
            )
        path = PurePosixPath(FIELD.sub("_", str(value)).replace("\\", "/"))
        if NAMES.fullmatch(key) and (path.is_absolute() or ".." in path.parts or "{" in str(path)):
            raise UserError(f"{key} must be the name of a file inside the run, without .. or a leading /, got {value}")


def _absolute(path: Any) -> Path:
    """Return an absolute path without `..`."""
    return Path(os.path.abspath(str(path)))  # noqa: PTH100  # resolve() would follow links too


def _check_target(cfg: DictConfig) -> None:
    targets = getattr(find_target("data.source", cfg.data.source._target_), "targets", None)
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
    if cfg.data.target not in ("age", "decade") and cfg.data.get("ages"):
        log.warning("data.ages is ignored: it needs data.target=age or decade, and the target is %s", cfg.data.target)


def _check_age_limit(cfg: DictConfig) -> None:
    from agebench.metrics.age_limit import check_age_limit

    check_age_limit(cfg.get("age_limit"), target=cfg.data.target, bins=cfg.data.get("bins"))


def _check_finetune(cfg: DictConfig) -> None:
    mode, model = cfg.finetune.mode, cfg.model
    if model.get("freeze"):
        raise UserError("model.freeze=backbone is now finetune=head: replace it")
    if mode in ("none", "head") and cfg.finetune.get("backbone_lr_ratio"):
        raise UserError(
            f"finetune.backbone_lr_ratio={cfg.finetune.backbone_lr_ratio} has no effect with finetune={mode}: set it "
            "to null, or use finetune=all, head_then_all or gradual"
        )
    if cfg.finetune.get("backbone_lr_ratio") and cfg.optim.get("layer_decay"):
        raise UserError(
            f"optim.layer_decay={cfg.optim.layer_decay} and finetune.backbone_lr_ratio="
            f"{cfg.finetune.backbone_lr_ratio} both lower the rate of the backbone: set one of them to null"
        )
    epochs, most = cfg.finetune.get("epochs"), cfg.trainer.max_epochs
    if epochs and most and 0 < most <= epochs:
        raise UserError(
            f"finetune.epochs={epochs} leaves no epoch that trains all parameters: set it to less than "
            f"trainer.max_epochs={most}, or use finetune=head"
        )
    if mode not in ("none", "all") and not (model.get("pretrained") or model.get("checkpoint_path")):
        log.warning("finetune=%s freezes random weights: set model.pretrained=true or model.checkpoint_path", mode)


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


def _check_plateau(cfg: DictConfig) -> None:
    """Raise UserError if the metric of a plateau schedule does not exist when an epoch ends."""
    monitor, trainer = cfg.scheduler.get("monitor"), cfg.trainer
    of_val = not str(cfg.monitor if monitor in (None, "auto") else monitor).startswith("train/")
    if not (of_val and str(cfg.scheduler._target_).endswith(".plateau")):
        return
    for key, value in (("limit_val_batches", 0), ("check_val_every_n_epoch", None)):
        if trainer.get(key, 1) == value:
            raise UserError(
                f"scheduler=plateau needs a metric of val at the end of an epoch, and trainer.{key}="
                f"{'null' if value is None else value} computes none: remove it, or set +scheduler.monitor=train/loss"
            )


def _check_measured(cfg: DictConfig) -> None:
    """Raise UserError if a rate, a batch size or a schedule is to be measured where that is not possible."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    sweeps = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    devices = cfg.trainer.devices
    one_device = len(devices) == 1 if OmegaConf.is_list(devices) else str(devices) == "1"
    alone = one_device and cfg.trainer.get("num_nodes", 1) == 1
    auto = cfg.data.batch_size == "auto"
    if cfg.lr_find and sweeps:
        raise UserError("lr_find=true finds the rate of one config: remove -m, and call it once per config")
    if cfg.lr_find and not alone:
        raise UserError("lr_find=true runs on one device: set trainer.devices=1 and trainer.num_nodes=1")
    if cfg.lr_find and cfg.resume not in ("auto", False):
        raise UserError("lr_find=true starts a new network, and resume=FOLDER continues a run: remove one of them")
    if cfg.lr_find and auto:
        raise UserError("lr_find=true needs a batch size: find it first with data.batch_size=auto lr_find=false")
    if auto and sweeps:
        raise UserError(
            "data.batch_size=auto in a sweep could give its points different batch sizes: train once with it, and set "
            "data.batch_size to the size that it chooses"
        )
    if cfg.trainer.max_time is not None and (cfg.trainer.get("min_epochs") or cfg.trainer.get("min_steps")):
        raise UserError(
            "trainer.max_time ends training in time, and trainer.min_epochs or trainer.min_steps could exceed it: "
            "remove one of them"
        )
    if auto and not alone:
        raise UserError("data.batch_size=auto measures one device: set data.batch_size to a number for several devices")


def _check_averages(cfg: DictConfig) -> None:
    if cfg.swa.start is None:
        return
    if cfg.ema.decay is not None:
        raise UserError("ema.decay and swa.start both average the weights: set one of them to null")
    trainer = cfg.trainer
    if (trainer.max_epochs or -1) < 0 and trainer.max_steps < 0 and trainer.max_time is None:
        raise UserError("swa.start needs the length of the training: set trainer.max_epochs, max_steps or max_time")


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
