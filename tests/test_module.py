"""The LightningModule: training, frozen parts, seeds, and metrics against independent computations."""

import re
import warnings

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score
from torch import nn

from agebench.data.loader import BatchSampler, Pixels, TimedLoader
from agebench.epoch_sums import CollectedOutputs
from agebench.errors import FailedError
from agebench.heads.binary import Binary
from agebench.heads.softmax import Softmax
from agebench.models.freeze import freeze_backbone
from agebench.models.normalise import Normalise
from agebench.models.small_cnn import SmallCNN
from agebench.module import ImageModule
from agebench.training.callbacks import EpochTable

LABELS, SIDE = 3, 4


class Noise(nn.Module):
    """An augmentation with a visible effect: adds a random number to each pixel."""

    def __init__(self, *, at_test: bool = False) -> None:
        super().__init__()
        self.at_test = at_test

    def forward(self, images):
        return images + torch.rand_like(images)


def linear(outputs: int = LABELS) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, outputs))


def make_module(model: nn.Module | None = None, **changes) -> ImageModule:
    settings = {
        "normalise": Normalise([0.5], [0.25]),
        "augment": nn.Identity(),
        "optim": lambda parameters: torch.optim.SGD(list(parameters), lr=0.1),
        "scheduler": None,
        "unit": "",
        "channels_last": False,
        "seed": 0,
        "stamp": {"protocol": "drawn/random/class", "label_names": ["a", "b", "c"]},
    }
    head = changes.pop("head", None) or Softmax(LABELS, [0, 1, 2], ordered=False)
    kind = changes.pop("kind", ImageModule)
    return kind(model or linear(), head, **(settings | changes))


def pixels(count: int, *, seed: int = 0, side: int = SIDE, labels: int = LABELS) -> Pixels:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, size=(count, 1, side, side), dtype=np.uint8)
    target = rng.integers(0, labels, size=count)
    return Pixels(torch.from_numpy(images), torch.arange(count), torch.from_numpy(target))


def loader(data: Pixels, batch_size: int, *, shuffle: bool = False) -> TimedLoader:
    return TimedLoader(data, sampler=BatchSampler(len(data), batch_size, shuffle=shuffle), batch_size=None)


def batches_of(data: Pixels, sizes: list[int]) -> TimedLoader:
    """Return a loader of batches with these sizes, in order."""
    sampler = list(torch.arange(len(data)).split(sizes))
    return TimedLoader(data, sampler=sampler, batch_size=None)


def make_trainer(epochs: int = 1, **settings) -> L.Trainer:
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **(off | settings),
    )


@pytest.fixture(autouse=True)
def _without_lightnings_warnings():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning|torchmetrics")
        yield


def probabilities(module: ImageModule, data: Pixels) -> np.ndarray:
    """Return the probabilities of a linear softmax model, computed with float64 NumPy."""
    weight, bias = (p.detach().double().numpy() for p in module.model[1].parameters())
    images = (data.store.double().numpy() / 255 - 0.5) / 0.25
    outputs = images.reshape(len(images), -1) @ weight.T + bias
    powers = np.exp(outputs - outputs.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def cross_entropy(posterior: np.ndarray, target: np.ndarray) -> float:
    return float(-np.log(posterior[np.arange(len(target)), target]).mean())


def test_normalise_subtracts_the_mean_and_divides_by_the_standard_deviation_of_each_channel() -> None:
    normalise = Normalise([0.5, 0.25], [0.25, 0.5])

    found = normalise(torch.full((1, 2, 2, 2), 0.75))

    assert found[0, 0].unique().tolist() == [1.0]
    assert found[0, 1].unique().tolist() == [1.0]
    assert set(normalise.state_dict()) == {"mean", "std"}


def test_outputs_are_computed_from_normalised_images_in_0_to_1() -> None:
    module, data = make_module(), pixels(6)

    outputs = module(data.store)

    assert outputs.dtype == torch.float32
    np.testing.assert_allclose(outputs.softmax(1).detach().numpy(), probabilities(module, data), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("images", [torch.tensor([0, 51, 255], dtype=torch.uint8), torch.tensor([0.0, 0.2, 1.0])])
def test_normalised_images_have_the_precision_of_the_weights(dtype: torch.dtype, images: torch.Tensor) -> None:
    normalise = Normalise([0.5], [0.25]).to(dtype)

    found = normalise(images.view(1, 1, 1, 3))

    assert found.dtype == dtype
    assert found.flatten().tolist() == pytest.approx([-2.0, -1.2, 2.0], abs=0.02 if dtype == torch.bfloat16 else 1e-6)


class ChangingHead(Softmax):
    """A head whose posterior changes with each batch, like that of a head with parameters."""

    def __init__(self) -> None:
        super().__init__(LABELS, list(range(LABELS)), ordered=False)
        self.register_buffer("shift", torch.zeros((), dtype=torch.int64))

    def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.shift += 1
        return super().loss(outputs, target)

    def posterior(self, outputs: torch.Tensor) -> torch.Tensor:
        return super().posterior(outputs).roll(int(self.shift), dims=1)


@pytest.mark.parametrize("head", [Softmax(LABELS, list(range(LABELS)), ordered=False), ChangingHead()])
def test_the_accuracy_of_an_epoch_is_the_mean_over_the_outputs_of_its_steps(head) -> None:
    class RecordingModule(ImageModule):
        def training_loss(self, batch):
            loss = super().training_loss(batch)
            with torch.no_grad():
                correct.append(
                    (self.head.posterior(self._outputs(batch.images)).argmax(1) == batch.target).sum().item()
                )
            return loss

    correct: list[int] = []
    table, data = EpochTable(), pixels(70)

    make_trainer(1, callbacks=[table]).fit(make_module(head=head, kind=RecordingModule), loader(data, 2))

    assert len(correct) == 35  # more steps than are counted together, and not a multiple
    assert table.rows[0]["train/accuracy"] == pytest.approx(sum(correct) / 70)


def test_training_lowers_the_loss_on_a_fixed_batch() -> None:
    table, data = EpochTable(), pixels(12)

    make_trainer(30, callbacks=[table]).fit(make_module(), loader(data, 12))

    losses = [row["train/loss"] for row in table.rows]
    assert losses[-1] < 0.5 * losses[0]


def test_the_train_loss_is_the_mean_over_images_and_not_over_batches() -> None:
    module, data = make_module(optim=lambda p: torch.optim.SGD(list(p), lr=0.0)), pixels(9)
    expected = probabilities(module, data)
    trainer = make_trainer()

    trainer.fit(module, batches_of(data, [4, 4, 1]))

    target = data.target.numpy()
    parts = np.split(np.arange(9), [4, 8])
    over_batches = np.mean([cross_entropy(expected[rows], target[rows]) for rows in parts])
    assert abs(over_batches - cross_entropy(expected, target)) > 0.01  # the two means differ
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(cross_entropy(expected, target), rel=1e-5)
    assert float(trainer.callback_metrics["train/accuracy"]) == pytest.approx(
        accuracy_score(target, expected.argmax(1)), rel=1e-6
    )


def test_a_training_that_ends_within_an_epoch_logs_the_steps_of_that_epoch() -> None:
    table = EpochTable()
    module, data = make_module(optim=lambda p: torch.optim.SGD(list(p), lr=0.0)), pixels(8)

    make_trainer(5, callbacks=[table], max_steps=5).fit(module, batches_of(data, [2, 2, 2, 2]))

    expected = probabilities(module, data)[:2]
    assert [row["step"] for row in table.rows] == [4, 5]
    assert table.rows[1]["train/loss"] == pytest.approx(cross_entropy(expected, data.target.numpy()[:2]), rel=1e-5)


def test_val_metrics_are_computed_over_all_images_and_not_averaged_over_batches() -> None:
    head = Softmax(LABELS, [2, 3, 4], ordered=True)
    module, data = make_module(head=head, unit="decades"), pixels(11, seed=3)
    expected, target = probabilities(module, data), data.target.numpy()
    trainer = make_trainer()

    trainer.validate(module, batches_of(data, [5, 5, 1]), verbose=False)

    found = {key: float(value) for key, value in trainer.callback_metrics.items()}
    predicted = expected.argmax(1)
    assert found["val/loss"] == pytest.approx(cross_entropy(expected, target), rel=1e-5)
    assert found["val/accuracy"] == pytest.approx(accuracy_score(target, predicted))
    assert found["val/macro_f1"] == pytest.approx(f1_score(target, predicted, average="macro"))
    assert found["val/qwk"] == pytest.approx(cohen_kappa_score(target, predicted, weights="quadratic"))
    median = (expected.cumsum(1) < 0.5).sum(1)
    assert found["val/mae"] == pytest.approx(np.abs(median - target).mean())
    assert found["val/within_1"] == pytest.approx((np.abs(median - target) <= 1).mean())


def test_predictions_are_in_the_order_of_the_part_with_the_loss_of_each_image() -> None:
    module, data = make_module(), pixels(9)
    shuffled = TimedLoader(data, sampler=[torch.tensor([8, 3, 1]), torch.tensor([0, 2, 4, 5, 7, 6])], batch_size=None)

    make_trainer().test(module, shuffled, verbose=False)

    predictions, expected = module.predictions, probabilities(module, data)
    assert predictions.rows.tolist() == list(range(9))
    assert predictions.target.tolist() == data.target.tolist()
    np.testing.assert_allclose(predictions.posterior, expected, rtol=1e-5)
    assert predictions.point.tolist() == expected.argmax(1).tolist()
    correct = (expected.argmax(1) == data.target.numpy()).astype(float)
    assert predictions.metrics["test/accuracy"] == pytest.approx(correct.mean())
    likelihood = expected[np.arange(9), data.target.numpy()]
    np.testing.assert_allclose(predictions.losses, -np.log(likelihood), rtol=1e-5)
    assert predictions.metrics["test/nll"] == pytest.approx(-np.log(likelihood).mean(), rel=1e-5)


def test_a_test_stores_all_metrics_and_logs_only_the_main_ones() -> None:
    head = Softmax(LABELS, [20, 30, 31], ordered=True)
    module, trainer = make_module(head=head, unit="years"), make_trainer()

    trainer.test(module, loader(pixels(9), 4), verbose=False)

    stored = module.predictions.metrics
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert set(logged) == {
        f"test/{name}" for name in ("loss", "accuracy", "macro_f1", "nll", "mae", "bias", "cs5", "qwk")
    }
    assert logged == pytest.approx({name: stored[name] for name in logged}, rel=1e-6)
    assert {"test/rmse", "test/median_error", "test/cs0", "test/cs10", "test/balanced_mae", "test/ece"} <= set(stored)


def test_metrics_are_nan_if_the_outputs_are_nan() -> None:
    model = linear()
    model[1].weight.data.fill_(torch.nan)
    module = make_module(model, head=Softmax(LABELS, [0, 1, 2], ordered=True), unit="bins")

    make_trainer().test(module, loader(pixels(5), 5), verbose=False)

    assert all(np.isnan(value) for value in module.predictions.metrics.values())


def test_collected_outputs_are_sorted_by_row_and_empty_after_a_reset() -> None:
    collected = CollectedOutputs()

    collected.update(torch.tensor([[30.0], [10.0]]), torch.tensor([3, 1]), torch.tensor([3, 1]))
    collected.update(torch.tensor([[20.0], [0.0]]), torch.tensor([2, 0]), torch.tensor([2, 0]))
    outputs, target, rows = collected.compute()

    assert outputs.tolist() == [[0.0], [10.0], [20.0], [30.0]]
    assert target.tolist() == rows.tolist() == [0, 1, 2, 3]
    collected.reset()
    collected.update(torch.zeros(2, 1), torch.tensor([7, 8]), torch.tensor([1, 0]))
    assert collected.compute()[1].tolist() == [8, 7]


@pytest.mark.parametrize("head", [Softmax(LABELS, [0, 1, 2], ordered=True), Binary(2, [0, 1], ordered=False)])
def test_a_part_with_one_image_is_evaluated(head) -> None:
    module = make_module(linear(head.num_outputs), head=head)

    make_trainer().test(module, loader(pixels(1, labels=2), 1), verbose=False)

    assert module.predictions.posterior.shape == (1, head.num_labels)
    assert module.predictions.metrics["test/accuracy"] in (0, 1)


def test_a_frozen_backbone_keeps_its_weights_and_batch_norm_statistics() -> None:
    torch.manual_seed(0)
    model, data = SmallCNN(8, 1, num_classes=LABELS), pixels(12, side=8)
    freeze_backbone(model)
    module = make_module(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    make_trainer(2).fit(module, loader(data, 4), loader(data, 4))

    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_the_compiled_network_is_used_for_training_only() -> None:
    module = make_module()
    module.compiled = lambda images: torch.full((len(images), LABELS), 7.0)  # stands for torch.compile's
    images = pixels(2).store

    trained, evaluated = module.train()(images), module.eval()(images)

    assert torch.equal(trained, torch.full((2, LABELS), 7.0))
    assert not torch.equal(evaluated, trained)


def test_the_images_of_an_epoch_are_counted() -> None:
    module, data = make_module(), pixels(7)

    make_trainer(2).fit(module, batches_of(data, [4, 3]), loader(data, 7))

    assert module.images_seen == 7


def test_training_uses_training_mode_even_after_an_evaluation() -> None:
    class Modes(L.Callback):
        seen: list[bool]

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            self.seen = [*getattr(self, "seen", []), module.model.training]

    modes, module, data = Modes(), make_module(), pixels(6)
    module.eval()  # like feature extraction

    make_trainer(2, callbacks=[modes]).fit(module, loader(data, 3), loader(data, 3))

    assert modes.seen == [True] * 4


def test_with_bf16_the_network_computes_in_bf16_and_the_head_in_float32() -> None:
    class RecordingHead(Softmax):
        def loss(self, outputs, target):
            self.dtype = outputs.dtype
            return super().loss(outputs, target)

    head, model, seen = RecordingHead(LABELS, [0, 1, 2], ordered=False), linear(), []
    model[1].register_forward_hook(lambda _module, _inputs, outputs: seen.append(outputs.dtype))

    make_trainer(precision="bf16-mixed").fit(make_module(model, head=head), loader(pixels(4), 4))

    assert seen == [torch.bfloat16]
    assert head.dtype == torch.float32


def test_a_loss_of_nan_stops_the_training_with_an_error() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images):
            return torch.full((len(images), LABELS), torch.nan) * self.weight

    trainer, data = make_trainer(5), pixels(4)

    with pytest.raises(FailedError, match=r"^the loss is nan at step 1 \(epoch 1"):
        trainer.fit(make_module(Broken()), loader(data, 2))

    assert trainer.current_epoch == 0


def trained(seed: int, *, random_state: int = 0) -> list[torch.Tensor]:
    """Return the weights after two epochs with random augmentation and dropout."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 8), nn.Dropout(0.5), nn.Linear(8, LABELS))
    module = make_module(model, augment=Noise(), seed=seed)
    torch.manual_seed(random_state)  # earlier random state must not matter
    make_trainer(2).fit(module, loader(pixels(12), 4))
    return [p.detach().clone() for p in module.model.parameters()]


def test_augmentation_and_dropout_are_determined_by_the_seed() -> None:
    for seed in (0, 5):
        assert all(map(torch.equal, trained(seed), trained(seed, random_state=99)))


def test_different_seeds_give_different_weights() -> None:
    weights = {seed: trained(seed)[0] for seed in (0, 1, 2)}

    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[1], weights[2])


def test_each_epoch_draws_different_random_numbers() -> None:
    class Draws(Noise):
        def forward(self, images):
            self.seen = [*getattr(self, "seen", []), torch.rand(1).item()]
            return images

    augment = Draws()

    make_trainer(3).fit(make_module(augment=augment), loader(pixels(4), 4))

    assert len(set(augment.seen)) == 3


def test_augmentation_is_not_applied_during_evaluation() -> None:
    module, data = make_module(augment=Noise()), pixels(9)

    make_trainer().test(module, loader(data, 4), verbose=False)

    np.testing.assert_allclose(module.predictions.posterior, probabilities(module, data), rtol=1e-5)


def test_augmentation_at_test_time_is_the_same_in_each_evaluation() -> None:
    module, data = make_module(augment=Noise(at_test=True)), pixels(9)
    trainer, found = make_trainer(), []

    for before in (0, 1):
        torch.manual_seed(before)
        trainer.test(module, loader(data, 4), verbose=False)
        found.append(module.predictions.posterior)

    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - probabilities(module, data)).max() > 0.01


def test_a_checkpoint_is_plain_data_and_contains_the_stamp(tmp_path) -> None:
    module, data = make_module(), pixels(8)
    trainer = make_trainer(callbacks=[EpochTable()])
    trainer.fit(module, loader(data, 4), loader(data, 4))
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)

    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)

    assert re.fullmatch("[0-9a-f]{16}", stored["agebench"].pop("weights_sha"))
    assert stored["agebench"] == {"protocol": "drawn/random/class", "label_names": ["a", "b", "c"]}
    assert {"normalise.mean", "normalise.std", "model.1.weight", "model.1.bias"} == set(stored["state_dict"])
    again = make_module(nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, LABELS)), normalise=Normalise([0], [1]))
    again.load_state_dict(stored["state_dict"])
    assert torch.equal(again(data.store), module(data.store))


@pytest.mark.parametrize(("every", "steps"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4, 5]), (50, [0, 2, 5]), (0, [])])
def test_the_loss_of_a_step_is_logged_every_n_steps_and_at_the_end_of_an_epoch(every, steps) -> None:
    class RecordingLogger(DummyLogger):
        def log_metrics(self, metrics, step=None):
            if "train/loss_step" in metrics:
                logged.append(step)

    logged: list[int] = []

    make_trainer(2, logger=RecordingLogger(), log_every_n_steps=every).fit(make_module(), loader(pixels(6), 2))

    assert logged == steps


def test_the_optimizer_gets_only_trainable_parameters_and_the_schedule_is_passed_to_lightning() -> None:
    model = linear()
    model[1].bias.requires_grad_(False)
    received = []

    def optim(groups):
        received.extend(p for group in groups for p in group["params"])
        return torch.optim.SGD(received, lr=0.1)

    module = make_module(model, optim=optim, scheduler=lambda optimizer: {"scheduler": optimizer, "interval": "step"})
    configured = module.configure_optimizers()

    assert [p.shape for p in received] == [(LABELS, SIDE**2)]
    assert configured["lr_scheduler"] == {"scheduler": configured["optimizer"], "interval": "step"}


def test_channels_last_changes_the_memory_layout_and_not_the_outputs() -> None:
    data, outputs = pixels(4, side=8), []
    for channels_last in (False, True):
        torch.manual_seed(0)
        module = make_module(SmallCNN(8, 1, num_classes=LABELS), channels_last=channels_last)
        weight = next(p for p in module.model.parameters() if p.dim() == 4 and p.shape[1] > 1)
        assert weight.is_contiguous(memory_format=torch.channels_last) is channels_last
        outputs.append(module.eval()(data.store).detach())

    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
