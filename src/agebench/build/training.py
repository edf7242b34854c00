"""From a composed config to its parts: the only file that knows data, models, heads and the module together."""

import inspect
import logging
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from agebench.build.data import LOADED, build_images, build_planner
from agebench.data.datamodule import ImageDataModule
from agebench.errors import UserError, did_you_mean, told
from agebench.heads.base import Head
from agebench.metrics.table import find, main_metric, monitor_mode
from agebench.models.freeze import freeze_backbone
from agebench.models.minimum_size import check_patches, smallest_size
from agebench.models.weights import create_pretrained, load_checkpoint
from agebench.module import ImageModule, Normalise
from agebench.training.checkpoints import LastCheckpoint

log = logging.getLogger(__name__)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

# Of the channels of images in [0, 1].
STATISTICS = {
    "none": (0.0, 0.0, 0.0, 1.0, 1.0, 1.0),
    "half": (0.5, 0.5, 0.5, 0.5, 0.5, 0.5),
    "imagenet": (0.485, 0.456, 0.406, 0.229, 0.224, 0.225),
}


def build_data(cfg: DictConfig) -> ImageDataModule:
    """Return the data module of a config, its images packed."""
    return ImageDataModule(build_images(cfg), seed=cfg.seed, **{key: cfg.data[key] for key in LOADED})


def _plain(node: DictConfig, *, without: tuple[str, ...]) -> dict[str, Any]:
    """Return a config node as plain data, interpolations worked out, less the keys that the builder itself reads."""
    container: Any = OmegaConf.to_container(node, resolve=True)
    return {k: v for k, v in container.items() if k not in without}


def build_model(cfg: DictConfig, *, channels: int, num_outputs: int, image_size: int) -> nn.Module:
    """Return the network, with its weights loaded and its backbone frozen as asked.

    Raises:
        UserError: If it cannot take the image size or batch size, or its weights cannot be had.
    """
    node = _plain(cfg.model, without=("pretrained", "checkpoint_path", "freeze"))
    name = str(cfg.model.get("model_name") or cfg.model._target_.rpartition(".")[2])
    path = cfg.model.checkpoint_path
    pretrained = cfg.model.pretrained and not path  # the file's weights take the place of the published ones
    target = _named("model", cfg.model._target_)
    if "pretrained" in inspect.signature(target).parameters:
        node["pretrained"] = pretrained
    elif pretrained:
        raise UserError(f"there are no published weights of {name}: set model.pretrained=false")

    def create(**changes: Any) -> nn.Module:
        model: nn.Module = instantiate(node, in_chans=channels, num_classes=num_outputs, _convert_="all", **changes)
        return model

    try:
        model = create_pretrained(create, name) if pretrained else create()
        check_patches(model, image_size, name)
        with torch.no_grad():
            model.eval()(torch.zeros(2, channels, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError, InstantiationException) as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise _size_error(create, error, name=name, image_size=image_size, channels=channels, node=node) from error
    model.train()
    if path:
        log.info(load_checkpoint(model, path))
    freeze = cfg.model.get("freeze")
    if freeze not in (None, "backbone"):
        raise UserError(f"model.freeze={freeze} is not known: backbone trains the classifier alone, null trains all")
    if freeze == "backbone":
        freeze_backbone(model)
    return model


def _size_error(
    create: Callable[..., nn.Module],
    error: Exception,
    *,
    name: str,
    image_size: int,
    channels: int,
    node: dict[str, Any],
) -> UserError:
    """Say which size a network would take, if size is what stopped it; nothing is computed on the meta device."""
    sized = next((key for key in ("image_size", "img_size") if key in node), None)

    def build(size: int) -> nn.Module:
        changes = {"pretrained": False} if "pretrained" in node else {}
        return create(**changes, **({sized: size} if sized else {}))

    smallest = smallest_size(build, channels)
    cause = error.__cause__ or error
    reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    if smallest is None:
        return UserError(f"model {name} cannot be built ({reason}): check the keys under model")
    return UserError(
        f"model {name} cannot take {image_size}x{image_size} images ({reason}); "
        f"it takes {smallest}x{smallest}: set data.image_size={smallest}, or another model"
    )


def build_normalise(cfg: DictConfig, data: ImageDataModule, model: nn.Module) -> Normalise:
    """Return the statistics that data.normalise names; `auto` asks the pretrained model, then the data."""
    choice = cfg.data.normalise
    if choice not in (*STATISTICS, "dataset", "auto"):
        raise UserError(f"data.normalise={choice} is not known: use auto, dataset, {', '.join(STATISTICS)}")
    path = cfg.model.checkpoint_path
    if path and choice == "auto" and (stored := _stored_statistics(path, cfg.data.channels)):
        return stored
    weights = cfg.model.pretrained or path
    known = getattr(model, "pretrained_cfg", None) if weights and choice == "auto" else None
    if known and "mean" in known:
        mean, std = list(known["mean"]), list(known["std"])
    elif choice in STATISTICS:
        mean, std = list(STATISTICS[choice][:3]), list(STATISTICS[choice][3:])
    else:
        return Normalise(*data.images.statistics())
    if cfg.data.channels == 1:  # a grey image of a colour statistic: the channels' average
        mean, std = [sum(mean) / 3], [sum(std) / 3]
    return Normalise(mean, std)


def _stored_statistics(path: str, channels: int) -> Normalise | None:
    """Return the statistics in a checkpoint of our own, or None if the file is another's or of other channels."""
    if not str(path).endswith(".ckpt"):
        return None
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("state_dict", {})
    mean, std = (state.get(f"normalise.{name}") for name in ("mean", "std"))
    if mean is None or std is None or mean.numel() != channels:
        return None
    return Normalise(mean.flatten().tolist(), std.flatten().tolist())


def build_head(cfg: DictConfig, values: Sequence[float], *, ordered: bool) -> Head:
    """Return the head for labels of these values in the target's unit."""
    head: Head = _build("head", cfg.head, len(values), list(values), ordered=ordered)
    return head


def _named(key: str, path: str) -> Any:
    """Return what a dotted path names, or say in one sentence why it cannot be had."""
    hydras = logging.getLogger("hydra.utils")  # which tells the same in three lines
    silent, hydras.disabled = hydras.disabled, True
    try:
        return get_object(path)
    except Exception as error:  # importing runs the user's own code, which may raise anything
        module, _, name = path.rpartition(".")
        if module in sys.modules and not hasattr(sys.modules[module], name):
            guess = did_you_mean(name, dir(sys.modules[module]))
            raise UserError(f"{key}._target_={path} cannot be imported: {module} has no {name!r}{guess}") from error
        raise UserError(
            f"{key}._target_={path} cannot be imported ({told(error.__cause__ or error)}): start from the folder that "
            "holds it, or put that folder on PYTHONPATH"
        ) from error
    finally:
        hydras.disabled = silent


def _build(key: str, node: DictConfig, *given: Any, **named: Any) -> Any:
    """Return what a config node names, or say in one sentence why it cannot be had."""
    target = _named(key, node._target_)
    try:
        return instantiate(node, *given, _convert_="all", **named)
    except (TypeError, InstantiationException) as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from error
        if not isinstance(cause, TypeError):
            raise
        raise UserError(f"{key}: {target.__name__} cannot be made ({cause}): check the keys under {key}") from error


def check_parts(cfg: DictConfig) -> None:
    """Build as much of a run as its records and labels decide, opening no image, to find what cannot work.

    Raises:
        UserError: If the data, the split, the head or the augmentation cannot be had together.
    """
    target = build_planner(cfg).plan().target
    build_head(cfg, target.values.tolist(), ordered=target.ordered)
    _build("augment", cfg.augment)


def build_trained(cfg: DictConfig, stored: dict[str, Any]) -> ImageModule:
    """Return the LightningModule of a run with its weights; its data set is not needed.

    Args:
        cfg: The run's config.
        stored: A checkpoint of the run.
    """
    stamp = stored["agebench"]
    if "values" not in stamp:
        raise UserError("these weights were saved by an older agebench, which did not note its labels: train again")
    cfg = cfg.copy()
    cfg.model.pretrained, cfg.model.checkpoint_path = False, None
    head = build_head(cfg, stamp["values"], ordered=stamp["ordered"])
    head.set_label_counts(torch.ones(head.num_labels, dtype=torch.int64))  # the checkpoint has the real ones
    channels, size = cfg.data.channels, cfg.data.image_size
    module = ImageModule(
        build_model(cfg, channels=channels, num_outputs=head.num_outputs, image_size=size),
        head,
        normalise=Normalise([0.0] * channels, [1.0] * channels),  # the statistics are, too
        augment=_build("augment", cfg.augment),
        optim=torch.optim.SGD,  # which nobody asks for
        scheduler=None,
        unit=stamp["unit"],
        channels_last=cfg.channels_last,
        seed=cfg.seed,
        stamp=stamp,
    )
    module.load_state_dict(stored["state_dict"])
    return module


def build_module(cfg: DictConfig, data: ImageDataModule, *, kind: type[ImageModule] = ImageModule) -> ImageModule:
    """Return the LightningModule for data that is set up."""
    plan = data.plan
    target = plan.target
    head = build_head(cfg, target.values.tolist(), ordered=target.ordered)
    augment = _build("augment", cfg.augment)
    train = torch.from_numpy(target.labels[plan.split.train])
    head.set_label_counts(torch.bincount(train, minlength=target.num_labels))
    torch.manual_seed(cfg.seed)  # the weights do not depend on what happened before
    model = build_model(cfg, channels=cfg.data.channels, num_outputs=head.num_outputs, image_size=cfg.data.image_size)
    monitor, mode = build_monitor(cfg, unit=target.unit)
    if data.steps_per_epoch == 0:
        raise UserError("no training batch has two images: give more data, or a smaller data.batch_size")
    batches = _limited(data.steps_per_epoch, cfg.trainer.limit_train_batches)
    if batches == 0:
        raise UserError(
            f"trainer.limit_train_batches={cfg.trainer.limit_train_batches} leaves no batch to train on: raise it"
        )
    steps = math.ceil(batches / cfg.trainer.accumulate_grad_batches)
    limits = (cfg.trainer.max_epochs or -1, cfg.trainer.max_steps / steps)
    epochs = min((limit for limit in limits if limit > 0), default=-1)
    schedule = instantiate(
        cfg.scheduler,
        _partial_=True,
        epochs=epochs,
        steps_per_epoch=steps,
        **watched(cfg.scheduler, monitor=monitor, mode=mode, default="auto"),
        val_every_epochs=cfg.trainer.check_val_every_n_epoch,
    )
    norms = any(isinstance(m, BATCH_NORMS) for m in model.modules())
    if norms and data.batch_size == 1:
        raise UserError("this network has batch norm, which needs two images a step: set data.batch_size=2 or more")
    stamp = {
        "started_in": str(Path.cwd()),
        "config": OmegaConf.to_container(cfg, resolve=True),
        "protocol": plan.protocol,
        "label_names": list(target.label_names),
        "target": target.name,
        "values": target.values.tolist(),
        "unit": target.unit,
        "ordered": target.ordered,
    }
    return kind(
        model,
        head,
        normalise=build_normalise(cfg, data, model),
        augment=augment,
        optim=partial(_optimizer, instantiate(cfg.optim, _convert_="all", **_unfused(cfg))),
        scheduler=schedule,
        unit=target.unit,
        channels_last=cfg.channels_last,
        compile=cfg.get("compile", False),  # runs of an older release do not say
        seed=cfg.seed,
        stamp=stamp,
    )


def _limited(batches: int, limit: float | None) -> int:
    """Return the batches of an epoch under Lightning's limit: a count if whole, a share if a fraction."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def _unfused(cfg: DictConfig) -> dict[str, bool]:
    """Return what keeps an optimizer from the fused kernel: it unscales gradients itself, after clipping was due."""
    scaled = str(cfg.trainer.precision).startswith("16-mixed") and cfg.trainer.gradient_clip_val
    return {"fused": False} if scaled and cfg.optim.get("fused") else {}


def _optimizer(make: Callable[[Any], torch.optim.Optimizer], parameters: Any) -> torch.optim.Optimizer:
    try:
        return make(list(parameters))
    except (ValueError, TypeError, AssertionError, RuntimeError, KeyError) as error:
        raise UserError(f"optim: {error}") from error


def build_monitor(cfg: DictConfig, *, unit: str) -> tuple[str, str]:
    """Return the logged value that chooses the best epoch, and `min` or `max`.

    `auto` is the MAE for ages in years, else the accuracy. `val/bias` is watched as `val/abs_bias`.
    """
    return monitor_mode(f"val/{main_metric(unit)}" if cfg.monitor == "auto" else cfg.monitor)


def watched(node: DictConfig, *, monitor: str, mode: str, default: str | None = None) -> dict[str, Any]:
    """Return what to change in the node of a callback or schedule that watches a metric.

    Args:
        node: With or without the keys `monitor` and `mode`.
        monitor: The run's own metric, for `auto`.
        mode: `min` or `max`, of that metric.
        default: What a node without a monitor watches; None if it watches nothing.
    """
    own = node.get("monitor", default)
    if own == "auto":
        return {"monitor": monitor, "mode": mode}
    if own is None or node.get("mode") is not None or not find(own).known:
        return {}  # the user chose the mode as well, or logs a metric of their own
    return dict(zip(("monitor", "mode"), monitor_mode(own), strict=True))


def build_callbacks(cfg: DictConfig, run_dir: Path, *, monitor: str, mode: str) -> list[Any]:
    """Return the callbacks of conf/callbacks that are on; `monitor: auto` is the monitored metric."""
    made: list[Any] = []
    for name, node in cfg.callbacks.items():
        if node is None or "_target_" not in node:
            continue
        if name == "early_stopping" and node.patience is None:
            continue
        changes = watched(node, monitor=monitor, mode=mode)
        if name == "checkpoint":
            changes |= {"dirpath": str(run_dir / "checkpoints"), "save_last": False}
            if node.get("save_last"):  # ours, between two epochs; it must be the first callback
                made.insert(0, LastCheckpoint(run_dir / "checkpoints" / "last.ckpt"))
        made.append(instantiate(node, _convert_="all", **changes))
    return made


def build_loggers(cfg: DictConfig, run_dir: Path) -> list[Any]:
    """Return the loggers of conf/logger; `save_dir: auto` is the run directory."""
    nodes = [n for n in (cfg.logger or {}).values() if n is not None and "_target_" in n]
    return [instantiate(n, **({"save_dir": str(run_dir)} if n.get("save_dir") == "auto" else {})) for n in nodes]
