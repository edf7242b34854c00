"""The one LightningModule: any network, any head, any optimizer."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy.typing as npt
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric

from agebench.errors import FailedError
from agebench.heads.base import Head
from agebench.metrics.answers import Answers
from agebench.metrics.compute import summarise
from agebench.metrics.table import absolute_values, headline
from agebench.models.freeze import keep_frozen_in_eval
from agebench.models.weights import hash_tensors

log = logging.getLogger(__name__)
Array = npt.NDArray[Any]
# Whose hits are counted together, unless the head has something that may change from one to the next.
STEPS_AT_ONCE = 32


class Normalise(nn.Module):
    """Brings images from [0, 1] to mean 0 and standard deviation 1 of each channel; saved with the weights.

    Args:
        mean: Of each channel in [0, 1], length C.
        std: Of each channel, length C.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor  # for bytes
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("scale", None, persistent=False)
        self.register_buffer("shift", None, persistent=False)
        _derive(self)
        self.register_load_state_dict_post_hook(_derive)  # type: ignore[no-untyped-call]  # torch has no types for it

    def forward(self, images: Tensor) -> Tensor:
        """Return (images - mean) / std, shape (B, C, S, S), for images in [0, 1], or as bytes that stand for them."""
        if images.dtype != torch.uint8:
            return (images - self.mean).div_(self.std).to(self.mean.dtype)
        # Bytes times floats would be a slow loop on a CPU, and so would channels that stand innermost.
        return images.to(self.mean.dtype).mul_(self.scale).sub_(self.shift)


def _derive(normalise: Normalise, *_: Any) -> None:
    """Work out what follows from mean and standard deviation, also from those of a checkpoint."""
    normalise.scale, normalise.shift = 1 / (255 * normalise.std), normalise.mean / normalise.std


class Collected(Metric):
    """Keeps the outputs of a whole part, over all processes, each image once.

    Every metric is then worked out from all of them together: nothing is averaged over batches or devices.
    """

    full_state_update = False
    outputs: list[Tensor]
    target: list[Tensor]
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("outputs", "target", "rows"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, outputs: Tensor, target: Tensor, rows: Tensor) -> None:
        """Add outputs (B, K), label indices (B,) and row numbers (B,)."""
        self.outputs.append(outputs)
        self.target.append(target)
        self.rows.append(rows)

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs (N, K), label indices (N,) and rows (N,), in the order of rows."""
        outputs, target, rows = (
            torch.cat(state) if isinstance(state, list) else state for state in (self.outputs, self.target, self.rows)
        )
        order = rows.argsort()
        return outputs[order], target[order], rows[order]


@dataclass(frozen=True)
class Predictions(Answers):
    """What a model says of the images of a part, in the part's order, and how good that is."""

    rows: Array  # (N,) int64, rows of the part; all of them unless a trainer limit cut the test short
    losses: Array  # (N,) float64, the head's loss of each image alone
    weights: Array  # (N,) float64, what each of them weighs in the loss of all
    metrics: dict[str, float]


class ImageModule(L.LightningModule):
    """Trains a network under a head.

    Args:
        model: Network, float images (B, C, S, S) -> (B, K).
        head: Its loss, posterior and point estimate; K is head.num_outputs.
        normalise: Applied to images in [0, 1] right before the network.
        augment: Applied to images in [0, 1] while training, unless its attribute `idle` is true; at evaluation too if
            `at_test` is.
        optim: Takes the parameters and returns the optimizer.
        scheduler: Takes the optimizer and returns Lightning's scheduler config, or None for a constant rate.
        unit: The target's unit, which decides the metrics.
        channels_last: Whether the network's convolutions work on NHWC memory, which most devices are faster at.
        seed: Decides augmentation and dropout, anew each epoch, so that a resumed run draws what an unbroken one draws.
        stamp: Plain data that travels with every checkpoint: the config, the protocol, the label names.
        compile: Whether torch.compile makes the network's training step; evaluation does without.
    """

    def __init__(
        self,
        model: nn.Module,
        head: Head,
        *,
        normalise: Normalise,
        augment: nn.Module,
        optim: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        scheduler: Callable[[torch.optim.Optimizer], dict[str, Any] | None] | None,
        unit: str,
        channels_last: bool,
        seed: int,
        stamp: dict[str, Any],
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.head, self.normalise, self.augment = model, head, normalise, augment
        self.optim, self.scheduler, self.unit, self.seed, self.stamp = optim, scheduler, unit, seed, stamp
        self._idle = isinstance(augment, nn.Identity) or getattr(augment, "idle", False)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)
        # The method and not the network, whose parameters would else be there twice.
        self._compiled = torch.compile(model.forward) if compile else None
        self.collected = Collected()
        self.predictions: Predictions | None = None
        self.tested_sha = ""  # of the weights that the last test really used
        # Of the epoch so far: images and mean loss of each step, hits, and the outputs that are yet to be counted.
        self._seen: list[tuple[int, Tensor]] = []
        self._hits: list[Tensor] = []
        self._uncounted: list[tuple[Tensor, Tensor]] = []
        self._at_once = 1 if head.state_dict() else STEPS_AT_ONCE
        self.images_seen = 0

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's outputs, float32, shape (B, K), for images uint8, shape (B, C, S, S)."""
        return self._outputs(images)

    def _outputs(self, images: Tensor) -> Tensor:
        # After augmentation, whose resampling returns contiguous memory whatever it is given.
        images = self.normalise(images).contiguous(memory_format=self.memory_format)
        network = self._compiled if self.training and self._compiled else self.model
        outputs: Tensor = network(images)
        return outputs.float()

    def train(self, mode: bool = True) -> "ImageModule":
        """Switch to training mode; a frozen part stays in evaluation mode, for its batch norms must not drift."""
        super().train(mode)
        keep_frozen_in_eval(self.model)
        return self

    def on_train_epoch_start(self) -> None:
        """Seed the epoch, forget the last one's sums, and set every part's mode: Lightning leaves modes as they are."""
        self.train()
        torch.manual_seed((self.seed << 24) + (self.current_epoch << 8) + self.global_rank)
        self._seen, self._hits, self._uncounted, self.images_seen = [], [], [], 0

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """Return the mean loss of a batch, shape ()."""
        return self.loss_of(batch)

    def loss_of(self, batch: Any) -> Tensor:
        """Return the mean loss of a training batch, shape (), and note it for the epoch's figures."""
        images = batch.images
        if not self._idle:
            images = self.augment(images.float() / 255)
        outputs = self._outputs(images)
        # A head works in float32: sums over labels, logarithms and thresholds are no place for half precision.
        with torch.autocast(self.device.type, enabled=False):
            loss = self.head.loss(outputs, batch.target)
        # Kept as they are: reading a number here would make the GPU wait at every step.
        self._seen.append((len(batch.target), loss.detach()))
        self._uncounted.append((outputs.detach(), batch.target))
        if len(self._uncounted) == self._at_once:
            self._count_hits()
        self.images_seen += len(batch.target)
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by its connector
        if every and self.global_step % every == 0:
            for logger in self.loggers:
                logger.log_metrics({"train/loss_step": loss.item()}, step=self.global_step)
        return loss

    def _count_hits(self) -> None:
        """Count the likeliest labels that are right, of several steps at once: it costs as much for one."""
        if self._uncounted:
            outputs, target = map(torch.cat, zip(*self._uncounted, strict=True))
            self._uncounted = []
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                self._hits.append((self.head.posterior(outputs).argmax(1) == target).sum())

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After the epoch's last step log its mean loss and accuracy over all images and devices.

        Lightning calls this module's own epoch-end hook only after those of the callbacks that show the figures.
        """
        stops = 0 <= self.trainer.max_steps <= self.trainer.global_step  # within an epoch
        if not (self.trainer.is_last_batch or stops):
            return
        self._count_hits()
        counts, losses = zip(*self._seen, strict=True)
        each = torch.tensor(counts, dtype=torch.float64, device="cpu")
        # On the CPU, where float64 is to be had on every machine.
        mean, right = torch.stack(losses).cpu().double(), torch.stack(self._hits).cpu().sum()
        sums = torch.stack([each.sum(), (mean * each).sum(), right]).float().to(self.device)
        count, loss, hits = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        means = {"train/loss": loss / count, "train/accuracy": hits / count}
        if not math.isfinite(loss):  # on every device alike, for the sums are reduced
            raise FailedError(
                f"the training loss of epoch {self.current_epoch + 1} is {loss / count}: training has diverged. The "
                "epochs before it are kept; try a lower optim.lr, scheduler.warmup_epochs or trainer.gradient_clip_val"
            )
        self.log_dict(means, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)

    def _evaluation_step(self, batch: Any) -> None:
        images = batch.images
        if getattr(self.augment, "at_test", False):
            images = self.augment(images.float() / 255)
        self.collected.update(self._outputs(images), batch.target, batch.rows)

    def _evaluate(self, part: str) -> tuple[Answers, dict[str, float], tuple[Tensor, Tensor, Tensor]]:
        """Log the headline of a part; return its answers, all of its metrics, and its outputs, target and rows."""
        outputs, target, rows = self.collected.compute()
        self.collected.reset()
        # torchmetrics hands over a tensor of one element without its dimensions.
        target, rows = target.reshape(-1), rows.reshape(-1)
        outputs = outputs.reshape(len(rows), -1)
        with torch.autocast(self.device.type, enabled=False):
            posterior, point = self.head.posterior(outputs), self.head.point(outputs)
            loss = float(self.head.loss(outputs, target))
        answers = Answers(
            posterior=posterior.cpu().numpy(),
            point=point.cpu().numpy(),
            target=target.cpu().numpy(),
            values=self.head.values.cpu().numpy(),
            ordered=self.head.ordered,
            unit=self.unit,
        )
        scores = {"loss": loss, **summarise(answers)}
        few = {name: scores[name] for name in headline(ordered=answers.ordered, unit=answers.unit)}
        if part == "val":
            few |= absolute_values(few)
        self.log_dict({f"{part}/{name}": value for name, value in few.items()}, sync_dist=True)
        return answers, {f"{part}/{name}": value for name, value in scores.items()}, (outputs, target, rows)

    def _losses(self, outputs: Tensor, target: Tensor) -> Array:
        """Return the head's loss of each image alone, float64, shape (N,)."""
        with torch.autocast(self.device.type, enabled=False):
            pairs = zip(outputs.split(1), target.split(1), strict=True)
            losses = torch.stack([self.head.loss(*pair) for pair in pairs])
        found: Array = losses.double().cpu().numpy()
        return found

    def on_validation_epoch_start(self) -> None:
        """Seed augmentation at evaluation, where it is asked for, so that every epoch sees the same images."""
        if getattr(self.augment, "at_test", False):
            torch.manual_seed(self.seed)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Collect the outputs of a batch."""
        self._evaluation_step(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the headline metrics of the val part."""
        self._evaluate("val")

    def test_step(self, batch: Any, batch_index: int) -> None:
        """Collect the outputs of a batch."""
        self._evaluation_step(batch)

    def on_test_epoch_end(self) -> None:
        """Log the headline metrics of the test part; keep its predictions with all of its metrics."""
        answers, scores, (outputs, target, rows) = self._evaluate("test")
        self.tested_sha = hash_tensors(self.state_dict())
        self.predictions = Predictions(
            **vars(answers),
            rows=rows.cpu().numpy(),
            losses=self._losses(outputs, target),
            weights=self.head.weigh(target).double().cpu().numpy(),
            metrics=scores,
        )

    def predict_step(self, images: Tensor, batch_index: int = 0) -> tuple[Tensor, Tensor]:
        """Return the posterior, shape (B, R), and the point in the target's unit, shape (B,), of uint8 images."""
        outputs = self._outputs(images)
        with torch.autocast(self.device.type, enabled=False):
            return self.head.posterior(outputs), self.head.point(outputs)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer of the parameters that train, and its scheduler."""
        optimizer = self.optim(p for p in self.parameters() if p.requires_grad)
        schedule = None if self.scheduler is None else self.scheduler(optimizer)
        if schedule is None:
            return optimizer
        config: Any = {"optimizer": optimizer, "lr_scheduler": schedule}
        return config  # type: ignore[no-any-return]  # a plain dict of the keys Lightning reads

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stamp the checkpoint; plain data only, so that weights_only=True loads it."""
        # Lightning calls this hook last: what callbacks such as weight averaging put into the state dict is hashed.
        checkpoint["agebench"] = {**self.stamp, "weights_sha": hash_tensors(checkpoint["state_dict"])}
