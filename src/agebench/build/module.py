"""Build the data module, the head and the LightningModule of a config."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from agebench.augment.mixing import Mixing
from agebench.build.data import LOADED, build_planner, build_training_images, plan_training
from agebench.build.limit import build_age_limit
from agebench.build.model import build_model, build_normalise
from agebench.build.monitor import build_monitor, watched
from agebench.build.nodes import instantiate_node, plain_node
from agebench.build.stamp import make_stamp
from agebench.data.datamodule import ImageDataModule
from agebench.errors import UserError, one_line_message
from agebench.heads.base import Head
from agebench.models.averaging import EpochAverage, WeightAverage
from agebench.models.freeze import backbone_names, first_epochs, freeze_backbone
from agebench.models.normalise import Normalise
from agebench.models.parameter_groups import group_parameters, layer_scales
from agebench.models.statistics import BATCH_NORMS
from agebench.module import ImageModule
from agebench.runs.own_code import own_code

MIXING = ("mixup", "cutmix", "mix_probability")  # keys of conf/augment for agebench.augment.mixing


def build_data(cfg: DictConfig) -> ImageDataModule:
    """Return the data module of a config to train on, with packed images."""
    return ImageDataModule(build_training_images(cfg), seed=cfg.seed, **{key: cfg.data[key] for key in LOADED})


def build_head(cfg: DictConfig, values: Sequence[float], *, ordered: bool) -> Head:
    """Return the head of a config for labels with these values in the target's unit."""
    head: Head = instantiate_node("head", cfg.head, len(values), list(values), ordered=ordered)
    return head


def build_augment(cfg: DictConfig) -> nn.Module:
    """Return the augmentation of single images of a config. Mixing is separate."""
    augment: nn.Module = instantiate_node("augment", plain_node(cfg.augment, without=MIXING))
    return augment


def check_parts(cfg: DictConfig) -> None:
    """Build the parts of a run that do not need an image, to find errors early.

    Raises:
        UserError: If the data, the split, the head or the augmentation is invalid, or they do not fit together.
    """
    target = plan_training(build_planner(cfg)).target
    build_head(cfg, target.values.tolist(), ordered=target.ordered)
    build_augment(cfg)


def build_trained(cfg: DictConfig, stored: dict[str, Any]) -> ImageModule:
    """Return the LightningModule of a run with its weights loaded. The run's data set is not needed.

    Args:
        cfg: The run's config.
        stored: Content of a checkpoint of the run.
    """
    stamp = stored["agebench"]
    cfg = cfg.copy()
    cfg.model.pretrained, cfg.model.checkpoint_path = False, None
    head = build_head(cfg, stamp["values"], ordered=stamp["ordered"])
    head.set_label_counts(torch.ones(head.num_labels, dtype=torch.int64))  # placeholders: the checkpoint has the counts
    channels, size = cfg.data.channels, cfg.data.image_size
    module = ImageModule(
        build_model(cfg, channels=channels, num_outputs=head.num_outputs, image_size=size),
        head,
        normalise=Normalise([0.0] * channels, [1.0] * channels),  # placeholders too
        augment=build_augment(cfg),
        optim=torch.optim.SGD,  # never used
        scheduler=None,
        unit=stamp["unit"],
        channels_last=cfg.channels_last,
        seed=cfg.seed,
        stamp=stamp,
    )
    try:
        module.load_state_dict(stored["state_dict"])
    except RuntimeError as error:
        why = one_line_message(error)[:200]
        if names := ", ".join(own_code({key: cfg[key] for key in ("model", "head") if f"{key}." in why})):
            raise UserError(
                f"the weights do not fit {names}, whose code has changed since the training ({why}): restore that code"
            ) from error
        raise UserError(
            f"the checkpoint does not fit the network of its config ({why}): restore it from a copy"
        ) from error
    return module


def build_module(cfg: DictConfig, data: ImageDataModule, *, kind: type[ImageModule] = ImageModule) -> ImageModule:
    """Return the LightningModule for a data module.

    Args:
        cfg: The composed config.
        data: The data to train on.
        kind: ImageModule, or a subclass with the same arguments.

    Raises:
        UserError: If head, network and data do not fit together, or no batch is left to train on.
    """
    target = data.plan.target
    head = build_head(cfg, target.values.tolist(), ordered=target.ordered)
    augment = build_augment(cfg)
    train = torch.from_numpy(target.labels[data.plan.split.train])
    counts = torch.bincount(train, minlength=target.num_labels)
    head.set_label_counts(counts)
    torch.manual_seed(cfg.seed)  # so that the initial weights depend only on the seed
    channels, size = cfg.data.channels, cfg.data.image_size
    model = build_model(cfg, channels=channels, num_outputs=head.num_outputs, image_size=size, start=head.start(counts))
    if cfg.finetune.mode == "head":
        freeze_backbone(model)
    if data.batch_size == 1 and any(isinstance(layer, BATCH_NORMS) for layer in model.modules()):
        raise UserError("this network has batch norm, which needs two images per step: set data.batch_size=2 or more")
    stamp = make_stamp(cfg, data.images)
    optim = plain_node(cfg.optim, without=("decay_norms", "layer_decay"))
    module = kind(
        model,
        head,
        normalise=build_normalise(cfg, data, model),
        augment=augment,
        optim=partial(_optimizer, instantiate(optim, _convert_="all", **_unfused(cfg))),
        groups=_grouping(cfg.optim, cfg.finetune),
        first_epochs=_first_epochs(model, cfg.finetune),
        mixing=_mixing(cfg.augment),
        averaging=_averaging(cfg),
        on_nan=cfg.on_nan,
        scheduler=build_schedule(cfg, data),
        unit=target.unit,
        channels_last=cfg.channels_last,
        compile=cfg.compile,
        seed=cfg.seed,
        stamp=stamp,
    )
    module.age_limit = build_age_limit(cfg, stamp)
    module.is_unchecked = True
    return module


def training_length(cfg: DictConfig, data: ImageDataModule) -> tuple[float, int]:
    """Return the number of epochs of a training, -1 if it is unlimited, and the optimizer steps of an epoch."""
    steps = math.ceil(
        _limited(data.steps_per_epoch, cfg.trainer.limit_train_batches) / cfg.trainer.accumulate_grad_batches
    )
    limits = (cfg.trainer.max_epochs or -1, cfg.trainer.max_steps / steps)
    return min((limit for limit in limits if limit > 0), default=-1), steps


def build_schedule(cfg: DictConfig, data: ImageDataModule) -> Callable[..., Any]:
    """Return the learning rate schedule, to be called with the optimizer.

    Raises:
        UserError: If no batch is left to train on.
    """
    if data.steps_per_epoch == 0:
        raise UserError("no training batch has two images: give more data, or a smaller data.batch_size")
    batches = _limited(data.steps_per_epoch, cfg.trainer.limit_train_batches)
    if batches == 0:
        raise UserError(
            f"trainer.limit_train_batches={cfg.trainer.limit_train_batches} leaves no batch to train on: raise it"
        )
    interval = cfg.trainer.get("val_check_interval")
    if isinstance(interval, int) and interval > batches and cfg.trainer.check_val_every_n_epoch is not None:
        raise UserError(
            f"trainer.val_check_interval={interval} is more than the {batches} steps of an epoch: lower it, or count "
            "over epochs with trainer.check_val_every_n_epoch=null"
        )
    epochs, steps = training_length(cfg, data)
    monitor, mode = build_monitor(cfg, unit=data.plan.target.unit)
    schedule: Callable[..., Any] = instantiate(
        cfg.scheduler,
        _partial_=True,
        epochs=epochs,
        steps_per_epoch=steps,
        **watched(cfg.scheduler, monitor=monitor, mode=mode, default="auto"),
        val_every_epochs=cfg.trainer.check_val_every_n_epoch or 1,  # null counts steps
    )
    return schedule


def _limited(batches: int, limit: float | None) -> int:
    """Return the batches per epoch with Lightning's limit: an int is a number of batches, a float is a share."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def _mixing(augment: DictConfig) -> Mixing | None:
    if augment.mixup is None and augment.cutmix is None:
        return None
    return Mixing(mixup=augment.mixup, cutmix=augment.cutmix, probability=augment.mix_probability)


def _averaging(cfg: DictConfig) -> Callable[[nn.Module], WeightAverage] | None:
    if cfg.ema.decay is not None:
        return partial(WeightAverage, decay=cfg.ema.decay)
    return None if cfg.swa.start is None else partial(EpochAverage, start=cfg.swa.start)


def _first_epochs(model: nn.Module, finetune: DictConfig) -> dict[str, int]:
    if finetune.mode not in ("head_then_all", "gradual"):
        return {}
    return first_epochs(model, finetune.mode, finetune.epochs)


def _grouping(optim: DictConfig, finetune: DictConfig) -> Callable[[nn.Module, nn.Module], list[dict[str, Any]]] | None:
    """Return a function of network and head that returns parameter groups, or None if one group is enough."""
    decay, layer_decay = optim.get("weight_decay") or 0.0, optim.get("layer_decay")
    decay_norms, ratio = optim.get("decay_norms", False), finetune.get("backbone_lr_ratio")
    if layer_decay is None and ratio is None and (decay_norms or not decay):
        return None

    def grouped(model: nn.Module, head: nn.Module) -> list[dict[str, Any]]:
        scales = {} if ratio is None else dict.fromkeys(backbone_names(model), float(ratio))
        if layer_decay is not None:
            scales = layer_scales(model, layer_decay)
        return group_parameters(model, head, lr=optim.lr, weight_decay=decay, decay_norms=decay_norms, scales=scales)

    return grouped


def _unfused(cfg: DictConfig) -> dict[str, bool]:
    """Return the argument that disables fused kernels for gradient clipping with 16-mixed.

    A fused optimizer unscales the gradients itself, after they were clipped.
    """
    scaled = str(cfg.trainer.precision).startswith("16-mixed") and cfg.trainer.gradient_clip_val
    return {"fused": False} if scaled and cfg.optim.get("fused") else {}


def _optimizer(make: Callable[[Any], torch.optim.Optimizer], parameters: Any) -> torch.optim.Optimizer:
    try:
        return make(list(parameters))
    except (ValueError, TypeError, AssertionError, RuntimeError, KeyError) as error:
        raise UserError(f"optim: {error}") from error
