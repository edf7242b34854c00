"""The LightningModule: trains any network with any head and any optimizer."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import islice
from typing import Any, Protocol

import lightning as L
import numpy.typing as npt
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from agebench.augment.mixing import Mixed, Mixing
from agebench.contract import (
    named,
    require,
    require_gradient,
    require_images,
    require_loss,
    require_outputs,
    require_posterior,
)
from agebench.distillation import Teacher
from agebench.epoch_sums import CollectedOutputs, TrainSums
from agebench.heads.base import Head
from agebench.metrics.age_limit import AgeLimit
from agebench.metrics.compute import summarise
from agebench.metrics.predictions import LabelledPredictions, Predictions
from agebench.metrics.table import absolute_values, find
from agebench.models.averaging import WeightAverage
from agebench.models.freeze import keep_frozen_in_eval
from agebench.models.parameter_groups import split_by_epoch
from agebench.models.statistics import fresh_statistics, updated_norms
from agebench.models.weights import hash_tensors
from agebench.step_check import Action, SkippedStepError, StepCheck, gradients_of

log = logging.getLogger(__name__)
Array = npt.NDArray[Any]


class Pace(Protocol):
    """Moves the schedule and ends training, see agebench.training.pace."""

    position: float
    ended: bool

    def after_step(self, trainer: L.Trainer) -> bool:
        """Move the schedule to the next step, and return whether training ends now."""


def _full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context without autocast. One that changes nothing would cost 0.1 ms at each step."""
    is_on = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if is_on else nullcontext()


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


class ImageModule(L.LightningModule):
    """Trains a network with a head.

    Args:
        model: Network, float images (B, C, S, S) -> (B, K).
        head: Defines loss, posterior and point estimate; K is head.num_outputs.
        normalise: Applied to images right before the network.
        augment: Applied to images in [0, 1] during training, unless its attribute `idle` is true. Also applied during
            evaluation if its attribute `at_test` is true.
        optim: Takes the parameters, or groups of them, and returns the optimizer.
        scheduler: Takes the optimizer and returns Lightning's scheduler config, or None for a constant rate.
        unit: The unit of the target, which determines the metrics.
        channels_last: Whether convolutions use NHWC memory, which is faster on most devices.
        seed: Seeds augmentation and dropout at the start of each epoch, so that a resumed run draws the same numbers.
        stamp: Metadata that is stored in each checkpoint as plain data: the config, the protocol, the label names.
        compile: Whether training uses torch.compile, or the mode of it; evaluation does not.
        groups: Takes the network and the head and returns parameter groups; None: one group.
        mixing: Mixes the augmented images of a training batch; None: no mixing.
        averaging: Takes this module and returns an average of its weights, which is evaluated and stored; None: no
            average.
        first_epochs: The epoch, from 0, from which a parameter of the network is trained, by name, unless it is 0.
        on_nan: What happens at a step whose loss or gradients are not finite: `stop` training, or `skip` the step.
    """

    def __init__(
        self,
        model: nn.Module,
        head: Head,
        *,
        normalise: nn.Module,
        augment: nn.Module,
        optim: Callable[[Iterable[Any]], torch.optim.Optimizer],
        scheduler: Callable[[torch.optim.Optimizer], dict[str, Any] | None] | None,
        unit: str,
        channels_last: bool,
        seed: int,
        stamp: dict[str, Any],
        compile: bool | str = False,
        groups: Callable[[nn.Module, nn.Module], list[dict[str, Any]]] | None = None,
        mixing: Mixing | None = None,
        averaging: Callable[[nn.Module], WeightAverage] | None = None,
        first_epochs: Mapping[str, int] | None = None,
        on_nan: Action = "stop",
    ) -> None:
        super().__init__()
        self.model, self.head, self.normalise, self.augment = model, head, normalise, augment
        self.optim, self.scheduler, self.unit, self.seed, self.stamp = optim, scheduler, unit, seed, stamp
        self.groups, self.mixing, self.averaging = groups, mixing, averaging
        self.first_epochs = first_epochs or {}
        self.check = StepCheck(on_nan)
        self.average: WeightAverage | None = None  # since training started
        self._stored_average: dict[str, Any] | None = None
        self.teacher: Teacher | None = None  # not a submodule: it is neither trained nor stored
        self.pace: Pace | None = None  # moves the schedule and ends training, for trainer.max_time
        self._skip_augment = isinstance(augment, nn.Identity) or getattr(augment, "idle", False)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model.to(memory_format=self.memory_format)
        # Compile the method, not the network: a compiled module would register the parameters a second time.
        mode = compile if isinstance(compile, str) else None
        self.compiled = torch.compile(model.forward, mode=mode) if compile else None
        self.collected = CollectedOutputs()
        self.is_unchecked = False  # whether the next training batch shows that own code keeps its contract
        self.predictions: Predictions | None = None
        self.age_limit: AgeLimit | None = None  # of the metrics of decisions
        self.tested_sha = ""  # hash of the weights that the last test used
        self._sums = TrainSums(head)  # of the current epoch
        self._logged_step: int | None = None  # the current step, if it is logged

    @property
    def images_seen(self) -> int:
        """The number of training images of the current epoch so far, on this device."""
        return self._sums.images

    @property
    def skips_augmentation(self) -> bool:
        """Whether training images are not augmented."""
        return self._skip_augment

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's outputs, float32, shape (B, K), for images uint8, shape (B, C, S, S)."""
        return self._outputs(images)

    def _outputs(self, images: Tensor) -> Tensor:
        network = self.compiled if self.training and self.compiled else self.model
        outputs: Tensor = network(self._normalised(images))
        if self.is_unchecked and self.training:
            with named(self.model):
                require_outputs(outputs, (len(images), self.head.num_outputs))
                require_gradient(self.model, outputs)
        # A CUDA graph overwrites its outputs at the next step, and those of several steps are kept.
        return outputs.float() if network is self.model else outputs.float().clone()

    def _normalised(self, images: Tensor) -> Tensor:
        # Set the memory format after augmentation, because resampling always returns contiguous memory.
        normalised: Tensor = self.normalise(images).contiguous(memory_format=self.memory_format)
        return normalised

    def train(self, mode: bool = True) -> "ImageModule":
        """Set the mode and return the module. Frozen layers stay in evaluation mode: their statistics stay fixed."""
        super().train(mode)
        keep_frozen_in_eval(self.model)
        return self

    def on_train_epoch_start(self) -> None:
        """Seed the epoch, reset its sums, freeze what is not trained yet, and enable training mode."""
        for name, parameter in self.model.named_parameters():
            if name in self.first_epochs:  # without a gradient, no optimizer changes it or its own state
                parameter.requires_grad_(self.current_epoch >= self.first_epochs[name])
        self.train()
        seed = (self.seed << 24) + (self.current_epoch << 8) + self.global_rank
        if self.device.type == "cpu":  # torch.manual_seed also prepares the seeds of GPUs, which takes 13 ms
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        self._sums = TrainSums(self.head)
        self.check.start_epoch(self)

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """Return the mean loss of a batch, shape ()."""
        return self.training_loss(batch)

    def training_loss(self, batch: Any) -> Tensor:
        """Return the mean loss of a training batch, shape (), and store it for the metrics of the epoch."""
        self.check.begin(batch.rows)
        loss, outputs = self.batch_loss(batch)
        value = loss.detach()
        self.check.add_loss(value)
        self._sums.add(value, outputs.detach(), batch.target)
        step = self.global_step
        self._logged_step = step if self._is_logged(step) and self.loggers else None
        if self._logged_step is not None:
            self._log_step({"train/loss_step": loss}, step)
        return loss

    def batch_loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the mean loss of a training batch, shape (), and its outputs, shape (B, K)."""
        images, mixed = self._augmented(batch.images, batch.target)
        shown = images if mixed is None else mixed.images
        outputs = self._outputs(shown)
        taught = None if self.teacher is None else self.teacher.log_posterior(shown)
        # Heads need float32: sums over labels, logarithms and thresholds are too inaccurate in half precision.
        with _full_precision(self.device):
            if mixed is None:
                loss = self.head.loss(outputs, batch.target)
            else:
                loss = self.head.mixed_loss(outputs, batch.target, mixed.other, share=mixed.share)
            if self.is_unchecked:
                self._check_head(loss, outputs)
            if self.teacher is not None and taught is not None:
                loss = self.teacher.combine(loss, self.head.log_posterior(outputs), taught)
        self.is_unchecked = False
        return loss, outputs

    @torch.no_grad()
    def _check_head(self, loss: Tensor, outputs: Tensor) -> None:
        with named(self.head):
            require_loss(loss, len(outputs))
            require(loss.requires_grad or not outputs.requires_grad, "the loss must have a gradient", "none")
            if outputs.isfinite().all():  # otherwise the head is not to blame
                require_posterior(self.head.posterior(outputs), (len(outputs), self.head.num_labels))

    def _augmented(self, images: Tensor, target: Tensor) -> tuple[Tensor, Mixed | None]:
        """Return the augmented images of a training batch, and the mixed batch or None."""
        if not self._skip_augment:
            shape = tuple(images.shape)
            images = self.augment(images.float() / 255)
            if self.is_unchecked:
                with named(self.augment):
                    require_images(images, shape)
        if self.mixing is None:
            return images, None
        images = images.float() / 255 if images.dtype == torch.uint8 else images
        return images, self.mixing(images, target)

    def _is_logged(self, step: int) -> bool:
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by its connector
        return every > 0 and step % every == 0

    def _log_step(self, values: Mapping[str, Tensor | float], step: int) -> None:
        for logger in self.loggers:
            logger.log_metrics({name: torch.as_tensor(value).item() for name, value in values.items()}, step=step)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Update the weights, unless the step is left out."""
        with suppress(SkippedStepError):
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Check the step, log the norm of the gradients, and clip them. Called between backward pass and update.

        Lightning's own clipping refuses fused optimizers, also without a GradScaler.
        """
        self.check.before_update(self, optimizer)
        by_norm = bool(gradient_clip_val) and gradient_clip_algorithm != "value"
        if by_norm or self._logged_step is not None:
            norm = get_total_norm(gradients_of(optimizer))
            if self._logged_step is not None:
                self._log_step({"train/grad_norm": norm / self._gradient_scale(optimizer)}, self._logged_step)
            if by_norm:
                clip_grads_with_norm_(_parameters(optimizer), gradient_clip_val, norm)
        if gradient_clip_val and not by_norm:
            clip_grad_value_(_parameters(optimizer), gradient_clip_val)

    def _gradient_scale(self, optimizer: Any) -> float:
        """Return the factor of the gradients: with 16-mixed, a fused optimizer divides them in its step."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return float(scaler.get_scale()) if scaler is not None and optimizer.defaults.get("fused") else 1.0

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the mean loss and accuracy over all images and devices, and the loss of the last step of an epoch.

        The module's epoch-end hook would be too late: it runs after those of the callbacks that use these metrics.
        """
        self.follow_pace()
        stops = 0 <= self.trainer.max_steps <= self.trainer.global_step  # max_steps may end training within an epoch
        stops = stops or (self.pace is not None and self.pace.ended)
        if not (self.trainer.is_last_batch or stops):
            return
        self.check.end_epoch(self)
        self.check.check_weights(self)
        totals, last_loss = self._sums.totals()
        if self.trainer.log_every_n_steps and not self._is_logged(self.global_step - 1):  # type: ignore[attr-defined]  # as above
            self._log_step({"train/loss_step": last_loss}, self.global_step - 1)
        count, known, loss, hits = self.trainer.strategy.reduce(
            totals.float().to(self.device), reduce_op="sum"
        ).tolist()
        means = {"train/loss": loss / known if known else math.nan, "train/accuracy": hits / count}
        self.log_dict(means, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        if self.average is not None and self.average.end_epoch(self._progress()):
            self._recompute_statistics(self.average)

    def follow_pace(self) -> None:
        """Let the clock move the schedule and end training, after a single step."""
        if self.pace is not None:
            self.pace.after_step(self.trainer)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Update a schedule, unless the clock does."""
        if self.pace is None or metric is not None:
            super().lr_scheduler_step(scheduler, metric)

    def _progress(self) -> float:
        """Return the share of the training that is complete at the end of an epoch, by epochs, steps or time."""
        trainer, shares = self.trainer, [0.0 if self.pace is None else self.pace.position]
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            shares.append((self.current_epoch + 1) / trainer.max_epochs)
        if trainer.max_steps > 0:
            shares.append(trainer.global_step / trainer.max_steps)
        return max(shares)

    @torch.no_grad()
    def _recompute_statistics(self, average: WeightAverage) -> None:
        """Compute the statistics of batch norm for the averaged weights, in one pass over the train part.

        The images are augmented and mixed as in training. Every process passes all of them, so that all get the same
        statistics. The random numbers depend only on the seed and the epoch, and training does not notice them.
        """
        norms = updated_norms(self.model)
        if not norms:
            return
        average.exchange(evaluate=True)
        devices = [self.device] if self.device.type == "cuda" else []
        context = self.trainer.precision_plugin.train_step_context()
        with torch.random.fork_rng(devices), fresh_statistics(norms), context:
            torch.manual_seed((self.seed << 24) + (self.current_epoch << 8))
            batches = self.trainer.datamodule.statistics_batches()  # type: ignore[attr-defined]  # set by `fit`
            for batch in islice(batches, int(self.trainer.num_training_batches)):
                images, mixed = self._augmented(batch.images.to(self.device), batch.target.to(self.device))
                shown = images if mixed is None else mixed.images
                if self.check.action == "skip" and not shown.isfinite().all():
                    continue  # the step of such a batch is left out too
                self.model(self._normalised(shown))
        average.exchange(evaluate=False)

    def _evaluation_step(self, batch: Any) -> None:
        images = batch.images
        if getattr(self.augment, "at_test", False):
            images = self.augment(images.float() / 255)
        self.collected.update(self._outputs(images), batch.target, batch.rows)

    def _evaluate(self, part: str) -> tuple[LabelledPredictions, dict[str, float], tuple[Tensor, Tensor, Tensor]]:
        """Log the main metrics of a part. Return its predictions, all metrics, and (outputs, target, rows)."""
        outputs, target, rows = self.collected.compute()
        self.collected.reset()
        # torchmetrics squeezes a tensor of one element.
        target, rows = target.reshape(-1), rows.reshape(-1)
        outputs = outputs.reshape(len(rows), -1)
        with torch.autocast(self.device.type, enabled=False):
            posterior, point = self.head.posterior(outputs), self.head.point(outputs)
            loss = float(self.head.loss(outputs, target))
        predictions = LabelledPredictions(
            posterior=posterior.cpu().numpy(),
            point=point.cpu().numpy(),
            target=target.cpu().numpy(),
            values=self.head.values.cpu().numpy(),
            ordered=self.head.ordered,
            unit=self.unit,
            age_limit=self.age_limit,
        )
        scores = {"loss": loss, **summarise(predictions)}
        logged = {name: value for name, value in scores.items() if find(name).headline}
        if part == "val":
            logged |= absolute_values(logged)
        self.log_dict({f"{part}/{name}": value for name, value in logged.items()}, sync_dist=True)
        return predictions, {f"{part}/{name}": value for name, value in scores.items()}, (outputs, target, rows)

    def _losses(self, outputs: Tensor, target: Tensor) -> Array:
        """Return the head's loss of each image, float64, shape (N,)."""
        with torch.autocast(self.device.type, enabled=False):
            pairs = zip(outputs.split(1), target.split(1), strict=True)
            losses = torch.stack([self.head.loss(*pair) for pair in pairs])
        array: Array = losses.double().cpu().numpy()
        return array

    def on_validation_epoch_start(self) -> None:
        """Seed test-time augmentation, if it is enabled, so that every evaluation uses the same images."""
        if getattr(self.augment, "at_test", False):
            torch.manual_seed(self.seed)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Any, batch_index: int) -> None:
        """Collect the outputs of a batch."""
        self._evaluation_step(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the main metrics of the val part."""
        self._evaluate("val")

    def test_step(self, batch: Any, batch_index: int) -> None:
        """Collect the outputs of a batch."""
        self._evaluation_step(batch)

    def on_test_epoch_end(self) -> None:
        """Log the main metrics of the test part, and store its predictions with all metrics."""
        labelled, scores, (outputs, target, rows) = self._evaluate("test")
        self.tested_sha = hash_tensors(self.state_dict())
        self.predictions = Predictions(
            **vars(labelled),
            rows=rows.cpu().numpy(),
            losses=self._losses(outputs, target),
            weights=self.head.sample_weights(target).double().cpu().numpy(),
            metrics=scores,
        )

    def predict_step(self, images: Tensor, batch_index: int = 0) -> tuple[Tensor, Tensor]:
        """Return posterior, shape (B, R), and point estimate in the target's unit, shape (B,), for uint8 images."""
        outputs = self._outputs(images)
        with torch.autocast(self.device.type, enabled=False):
            return self.head.posterior(outputs), self.head.point(outputs)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the groups of trainable parameters that the optimizer gets."""
        if self.groups is not None:
            groups = self.groups(self.model, self.head)
        else:
            groups = [{"params": [p for p in self.parameters() if p.requires_grad]}]
        named = self.model.named_parameters()
        return split_by_epoch(groups, {id(p): self.first_epochs.get(name, 0) for name, p in named})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer of the trainable parameters, with its scheduler if there is one."""
        optimizer = self.optim(self.parameter_groups())
        if self.averaging is not None:
            self._start_average(optimizer, self.averaging(self))
        schedule = None if self.scheduler is None else self.scheduler(optimizer)
        if schedule is None:
            return optimizer
        config: Any = {"optimizer": optimizer, "lr_scheduler": schedule}
        return config  # type: ignore[no-any-return]  # a plain dict with the keys that Lightning reads

    def _start_average(self, optimizer: torch.optim.Optimizer, average: WeightAverage) -> None:
        """Average the weights during training, from the average of a resumed run if there is one."""
        self.average = average
        if self._stored_average is not None:
            average.restore(self._stored_average)
            self._stored_average = None
        average.follow(optimizer)

    def on_validation_start(self) -> None:
        """Evaluate the average of the weights, if there is one. Broken weights are not evaluated."""
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self.check.check_weights(self)
        if self.average is not None:
            self.average.exchange(evaluate=True)

    def on_validation_end(self) -> None:
        """Train on, with the weights that are trained."""
        if self.average is not None:
            self.average.exchange(evaluate=False)

    def on_fit_end(self) -> None:
        """Hold the average of the weights, if there is one: it is tested."""
        if self.average is not None:
            self.average.exchange(evaluate=True)
            if not self.average.updates and self.trainer.is_global_zero:
                log.warning("%s: training ended before the average started: it is not used", self.average.key)
            self.average = None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the trained weights of a run with an average, not the average, to resume it."""
        if "step_check" in checkpoint:
            self.check.load_state_dict(checkpoint["step_check"])
        if "average" in checkpoint:
            self._stored_average = WeightAverage.from_checkpoint(checkpoint)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the metadata to the checkpoint: plain data only, so that weights_only=True loads it."""
        if self.check.skipped:
            checkpoint["step_check"] = self.check.state_dict()
        if self.average is not None:
            self.average.to_checkpoint(checkpoint)
        # Lightning calls this hook last, so the hash covers weights that callbacks such as weight averaging replaced.
        checkpoint["agebench"] = {**self.stamp, "weights_sha": hash_tensors(checkpoint["state_dict"])}
