"""Steps whose loss, gradients or weights are not finite."""

import math
import warnings
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import nn

from agebench.data.loader import BatchSampler, Pixels, TimedLoader
from agebench.errors import FailedError
from agebench.heads.softmax import Softmax
from agebench.models.averaging import WeightAverage
from agebench.models.normalise import Normalise
from agebench.module import ImageModule
from agebench.step_check import MOST_IN_A_ROW, NonFiniteError
from agebench.training.fast_loop import MultiStepModule

LABELS, SIDE, BATCH = 3, 4, 8
KINDS = pytest.mark.parametrize("kind", [ImageModule, MultiStepModule])


class Fragile(nn.Module):
    """A network with batch norm whose outputs, or gradients, are NaN in chosen training steps, counted from 0."""

    def __init__(self, *, losses: tuple[int, ...] = (), gradients: tuple[int, ...] = ()) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.linear, self.norm = nn.Linear(SIDE**2, LABELS), nn.BatchNorm1d(LABELS)
        self.losses, self.gradients, self.steps = losses, gradients, 0

    def forward(self, images):
        outputs = self.linear(images.flatten(1))
        if self.training:
            if self.steps in self.losses:
                outputs = outputs * math.nan
            if self.steps in self.gradients:
                outputs = outputs + (self.linear.bias * 0).sqrt()  # 0, with the gradient infinity * 0
            self.steps += 1
        return self.norm(outputs)


def pixels(count: int) -> Pixels:
    torch.manual_seed(1)
    images = torch.randint(0, 256, (count, 1, SIDE, SIDE), dtype=torch.uint8)
    return Pixels(images, torch.arange(count), torch.randint(0, LABELS, (count,)))


class Norms(DummyLogger):
    """Records the norms of gradients that are logged."""

    def log_metrics(self, metrics, step=None):
        if "train/grad_norm" in metrics:
            NORMS.append(metrics["train/grad_norm"])


NORMS: list[float] = []


def train(
    model: nn.Module, kind: type[ImageModule], *, steps: int, lr: float = 0.1, clip=None, accumulate=1, **changes
) -> ImageModule:
    module = kind(
        model,
        Softmax(LABELS, list(range(LABELS)), ordered=False),
        normalise=Normalise([0.5], [0.25]),
        augment=nn.Identity(),
        optim=lambda parameters: torch.optim.SGD(list(parameters), lr=lr, momentum=0.9),
        scheduler=None,
        unit="",
        channels_last=False,
        seed=0,
        stamp={},
        **changes,
    )
    settings = {"gradient_clip_val": clip, "accumulate_grad_batches": accumulate}
    if kind is MultiStepModule:
        module.clip_val, module.accumulate, settings = clip, accumulate, {}
    data = pixels(steps * BATCH)
    loader = TimedLoader(data, sampler=list(torch.arange(len(data)).split(BATCH)), batch_size=None)
    validation = TimedLoader(data, sampler=BatchSampler(len(data), BATCH, shuffle=False), batch_size=None)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        num_sanity_val_steps=0,
        logger=Norms() if clip else False,
        log_every_n_steps=1,
        **settings,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module.recorded = trainer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader, validation)
    return module


def plain_training(steps: list[int], *, of: int) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Return the weights after plain steps on the batches with these numbers, and the momentum."""
    model, data = Fragile().train(), pixels(of * BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in steps:
        batch = data[torch.arange(step * BATCH, (step + 1) * BATCH)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model((batch.images / 255 - 0.5) / 0.25), batch.target).backward()
        optimizer.step()
    momenta = [optimizer.state[p]["momentum_buffer"] for p in model.parameters()]
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}, momenta


@KINDS
@pytest.mark.parametrize("cause", ["losses", "gradients"])
def test_a_skipped_step_leaves_weights_statistics_and_momentum_as_they_were(kind, cause) -> None:
    module = train(Fragile(**{cause: (2,)}), kind, steps=5, on_nan="skip")

    weights, momenta = plain_training([0, 1, 3, 4], of=5)
    torch.testing.assert_close(dict(module.model.state_dict()), weights, rtol=1e-4, atol=1e-5)
    optimizer = module.recorded.optimizers[0]
    found = [optimizer.state[p]["momentum_buffer"] for p in module.model.parameters()]
    torch.testing.assert_close(found, momenta, rtol=1e-4, atol=1e-6)
    assert module.check.skipped == 1
    assert module.recorded.global_step == 5  # schedules count it


@KINDS
def test_a_skipped_step_is_no_step_of_the_average_and_not_in_the_mean_loss(kind) -> None:
    recorded = []

    class Recording(kind):
        def on_validation_start(self):
            recorded.append(self.average.updates)
            super().on_validation_start()

    module = train(
        Fragile(losses=(0, 3)), Recording, steps=5, on_nan="skip", averaging=partial(WeightAverage, decay=0.9)
    )

    assert recorded == [3]
    assert math.isfinite(module.recorded.callback_metrics["train/loss"])


@KINDS
def test_the_steps_that_were_left_out_are_named_at_the_end_of_the_epoch(kind, caplog) -> None:
    with caplog.at_level("WARNING"):
        train(Fragile(losses=(0, 3)), kind, steps=5, on_nan="skip")

    assert "epoch 1: 2 steps with a loss or gradients that are not finite were left out (steps 1, 4)" in caplog.text


@KINDS
@pytest.mark.parametrize(
    ("cause", "what"), [("losses", "the loss is nan"), ("gradients", "the norm of the gradients is nan")]
)
def test_training_stops_at_the_step_itself_with_the_weights_from_before_it(kind, cause, what) -> None:
    model = Fragile(**{cause: (3,)})

    with pytest.raises(
        FailedError, match=rf"^{what} at step 4 \(epoch 1, rate 0.1\); the last finite losses"
    ) as raised:
        train(model, kind, steps=6)

    weights, _ = plain_training([0, 1, 2], of=6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[name], rtol=1e-4, atol=1e-5)
    assert isinstance(raised.value, NonFiniteError)
    assert [rows.tolist() for rows in raised.value.step.rows] == [list(range(24, 32))]
    assert len(raised.value.last_losses) == 3 + (cause == "gradients")  # its loss is finite
    assert model.steps == 4


@KINDS
def test_too_many_skipped_steps_in_a_row_stop_the_training(kind) -> None:
    model = Fragile(losses=(0, *range(2, 60)))

    with pytest.raises(FailedError, match=rf"at step {2 + MOST_IN_A_ROW} .* the {MOST_IN_A_ROW}th step in a row"):
        train(model, kind, steps=60, on_nan="skip")


@KINDS
@pytest.mark.parametrize("action", ["stop", "skip"])
def test_weights_that_the_last_update_broke_are_not_validated(kind, action) -> None:
    validated = []

    class Recording(kind):
        def validation_step(self, batch, batch_index):
            validated.append(batch)

    with pytest.raises(FailedError, match=r"^weights are not finite at step 1 \(epoch 1, rate inf\)"):
        train(Fragile(), Recording, steps=1, lr=math.inf, on_nan=action)

    assert not validated


@KINDS
def test_gradients_are_accumulated_and_clipped_as_by_plain_pytorch_and_their_norm_is_logged(kind) -> None:
    NORMS.clear()

    module = train(Fragile(), kind, steps=5, clip=0.5, accumulate=2)

    model, data, norms = Fragile().train(), pixels(5 * BATCH), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for window in ([0, 1], [2, 3], [4]):
        optimizer.zero_grad()
        for step in window:
            batch = data[torch.arange(step * BATCH, (step + 1) * BATCH)]
            loss = nn.functional.cross_entropy(model((batch.images / 255 - 0.5) / 0.25), batch.target)
            (loss / 2).backward()
        norms.append(math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters())))
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    assert pytest.approx(norms, rel=1e-4) == NORMS
    assert min(norms) > 0.5
    for name, parameter in module.model.named_parameters():
        torch.testing.assert_close(parameter, dict(model.named_parameters())[name], rtol=1e-4, atol=1e-5)
