"""Build network, normalisation, schedule and monitor of a run from a config, on scikit-learn's digits."""

import logging
import math

import lightning as L
import numpy as np
import pytest
import timm
import torch
from sklearn.utils.class_weight import compute_class_weight
from timm.data import constants
from torch import nn

from agebench import build
from agebench.build.nodes import find_target
from agebench.data.records import Records
from agebench.data.target import make_target
from agebench.errors import UserError
from agebench.models.mlp import MLP
from agebench.training import trainer

SMALL = (
    "data=digits",
    "data.limit=50",
    "data.batch_size=10",
    "model=mlp",
    "model.hidden=[4]",
    "trainer.accelerator=cpu",
)  # 50 training images, 5 batches per epoch


class Network(nn.Sequential):
    """A network with an argument `pretrained`, which it records."""

    def __init__(self, in_chans: int, *, num_classes: int, pretrained: bool = False) -> None:
        super().__init__(nn.Flatten(), nn.Linear(in_chans * 8 * 8, num_classes))
        self.pretrained = pretrained


def module_of(config):
    """Return the LightningModule of a config and its data."""
    data = build.build_data(config)
    return build.build_module(config, data), data


def statistics(module) -> tuple[list[float], list[float]]:
    return module.normalise.mean.flatten().tolist(), module.normalise.std.flatten().tolist()


def test_the_initial_weights_depend_only_on_the_seed(compose_config) -> None:
    found = []

    for seed, before in ((3, 1), (3, 2), (4, 1)):
        config = compose_config(*SMALL)
        config.seed = seed
        torch.manual_seed(before)
        found.append(module_of(config)[0].model.linear1.weight.detach())

    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_class_that_is_not_found_leaves_the_log_of_hydra_enabled() -> None:
    with pytest.raises(UserError, match=r"model\._target_=torch\.nn\.Liner cannot be imported.*did you mean 'Linear'"):
        find_target("model", "torch.nn.Liner")

    assert not logging.getLogger("hydra.utils").disabled


def test_checking_the_image_size_leaves_batch_norm_unchanged(compose_config) -> None:
    config = compose_config("data=digits", "model=small_cnn")

    model = build.build_model(config, channels=1, num_outputs=10, image_size=8)

    batches = [value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")]
    assert batches
    assert all(int(value) == 0 for value in batches)


def test_a_network_is_returned_in_training_mode(compose_config) -> None:
    model = build.build_model(compose_config(*SMALL), channels=1, num_outputs=10, image_size=8)

    assert all(layer.training for layer in model.modules())


@pytest.mark.parametrize(
    ("mode", "trainable"),
    [
        ("head", {"classifier.weight", "classifier.bias"}),
        ("none", {f"{layer}.{kind}" for layer in ("linear1", "norm1", "classifier") for kind in ("weight", "bias")}),
    ],
)
def test_finetune_decides_which_parameters_train(compose_config, mode, trainable) -> None:
    module, _ = module_of(compose_config(*SMALL, f"finetune={mode}"))

    assert {name for name, each in module.model.named_parameters() if each.requires_grad} == trainable


@pytest.mark.parametrize("from_file", [False, True])
def test_a_checkpoint_file_replaces_the_published_weights(compose_config, tmp_path, from_file) -> None:
    given = Network(1, num_classes=10)
    torch.save(given.state_dict(), tmp_path / "given.pth")
    config = compose_config(*SMALL)
    path = str(tmp_path / "given.pth") if from_file else None
    config.model = {"_target_": f"{__name__}.Network", "pretrained": True, "checkpoint_path": path}

    model = build.build_model(config, channels=1, num_outputs=10, image_size=8)

    assert model.pretrained is not from_file
    assert torch.equal(model[1].weight, given[1].weight) is from_file


def test_the_classifier_of_a_checkpoint_file_is_kept(compose_config, tmp_path) -> None:
    config = compose_config(*SMALL)
    trained = torch.nn.Linear(4, 10)
    model = build.build_model(config, channels=1, num_outputs=10, image_size=8)
    torch.save(
        {**model.state_dict(), "classifier.weight": trained.weight, "classifier.bias": trained.bias}, tmp_path / "w.pth"
    )
    config.model.checkpoint_path = str(tmp_path / "w.pth")

    loaded = build.build_model(config, channels=1, num_outputs=10, image_size=8, start=torch.zeros(10))

    assert torch.equal(loaded.classifier.weight, trained.weight)
    assert torch.equal(loaded.classifier.bias, trained.bias)


def test_published_weights_of_a_network_without_any_raise(compose_config) -> None:
    config = compose_config(*SMALL)
    config.model.pretrained = True

    with pytest.raises(UserError, match=r"MLP has no published weights: set model.pretrained=false"):
        build.build_model(config, channels=1, num_outputs=10, image_size=8)


@pytest.mark.parametrize(
    ("target", "bins", "chosen"),
    [
        ("age", None, ("val/mae", "min")),
        ("bins", [30, 50], ("val/accuracy", "max")),
        ("decade", None, ("val/accuracy", "max")),
        ("class", None, ("val/accuracy", "max")),
    ],
)
def test_auto_monitors_the_mae_for_ages_in_years_and_else_the_accuracy(compose_config, target, bins, chosen) -> None:
    records = Records(np.array(["a", "b", "c"]), {"age": np.array([20, 40, 60]), "class": np.arange(3)}, tuple("xyz"))
    unit = make_target(records, target, bins=bins).unit

    assert build.build_monitor(compose_config(*SMALL), unit=unit) == chosen


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("val/loss", "min"),
        ("train/loss", "min"),
        ("val/mae", "min"),
        ("val/rmse", "min"),
        ("val/nll", "min"),
        ("val/accuracy", "max"),
        ("val/macro_f1", "max"),
        ("val/cs5", "max"),
    ],
)
def test_a_named_metric_is_minimised_if_it_is_an_error(compose_config, monitor, mode) -> None:
    config = compose_config(*SMALL)
    config.monitor = monitor

    for unit in ("", "years"):
        assert build.build_monitor(config, unit=unit) == (monitor, mode)


def test_the_schedule_uses_the_monitored_metric(compose_config) -> None:
    modes = {}

    for monitor in ("auto", "val/loss"):
        module, _ = module_of(compose_config(*SMALL, "scheduler=plateau", f"monitor={monitor}"))
        schedule = module.configure_optimizers()["lr_scheduler"]
        modes[schedule["monitor"]] = schedule["scheduler"].mode

    assert modes == {"val/accuracy": "max", "val/loss": "min"}


@pytest.mark.parametrize("chosen", [("val/mae", "min"), ("val/accuracy", "max")])
def test_the_callbacks_use_the_monitored_metric(compose_config, tmp_path, chosen) -> None:
    config = compose_config(*SMALL, "callbacks.early_stopping.patience=2")

    made = trainer.build_callbacks(config, tmp_path, monitor=chosen[0], mode=chosen[1])

    watching = {type(each).__name__: (each.monitor, each.mode) for each in made if hasattr(each, "monitor")}
    assert watching == {"ModelCheckpoint": chosen, "EarlyStopping": chosen}


def watching(config, folder) -> dict[str, tuple[str, str]]:
    """Return the metric and the mode of each callback of a run that monitors the accuracy."""
    made = trainer.build_callbacks(config, folder, monitor="val/accuracy", mode="max")
    return {type(each).__name__: (each.monitor, each.mode) for each in made if hasattr(each, "monitor")}


@pytest.mark.parametrize(
    ("monitor", "watched"),
    [
        ("val/accuracy", ("val/accuracy", "max")),
        ("val/macro_f1", ("val/macro_f1", "max")),
        ("val/nll", ("val/nll", "min")),
        ("train/loss", ("train/loss", "min")),
        ("val/bias", ("val/abs_bias", "min")),
        ("val/abs_bias", ("val/abs_bias", "min")),
    ],
)
@pytest.mark.parametrize("name", ["checkpoint", "early_stopping"])
def test_a_callback_with_another_metric_gets_the_mode_of_that_metric(
    compose_config, tmp_path, name, monitor, watched
) -> None:
    config = compose_config(*SMALL, "callbacks.early_stopping.patience=2", f"callbacks.{name}.monitor={monitor}")

    found = watching(config, tmp_path)

    own, other = ("ModelCheckpoint", "EarlyStopping")[:: 1 if name == "checkpoint" else -1]
    assert found == {own: watched, other: ("val/accuracy", "max")}


def test_a_mode_that_the_user_sets_is_kept(compose_config, tmp_path) -> None:
    own = ("callbacks.checkpoint.monitor=val/accuracy", "+callbacks.checkpoint.mode=min")

    assert watching(compose_config(*SMALL, *own), tmp_path) == {"ModelCheckpoint": ("val/accuracy", "min")}


def test_a_bias_is_monitored_by_its_absolute_value(compose_config) -> None:
    assert build.build_monitor(compose_config(*SMALL, "monitor=val/bias"), unit="years") == ("val/abs_bias", "min")


@pytest.mark.parametrize(
    ("overrides", "watched"),
    [
        (["monitor=val/bias"], ("val/abs_bias", "min")),
        (["monitor=val/loss", "+scheduler.monitor=val/accuracy"], ("val/accuracy", "max")),
        (["monitor=val/loss", "+scheduler.monitor=val/accuracy", "+scheduler.mode=min"], ("val/accuracy", "min")),
        (["+scheduler.monitor=auto"], ("val/accuracy", "max")),
    ],
)
def test_the_plateau_schedule_uses_the_configured_metric(compose_config, overrides, watched) -> None:
    module, _ = module_of(compose_config(*SMALL, "scheduler=plateau", *overrides))

    schedule = module.configure_optimizers()["lr_scheduler"]

    assert (schedule["monitor"], schedule["scheduler"].mode) == watched


def test_the_plateau_schedule_steps_after_each_validation(compose_config) -> None:
    config = compose_config(*SMALL, "scheduler=plateau", "trainer.check_val_every_n_epoch=3")

    schedule = module_of(config)[0].configure_optimizers()["lr_scheduler"]

    assert (schedule["interval"], schedule["frequency"]) == ("epoch", 3)


class Rates(L.Callback):
    """Records the learning rate of every optimizer step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_epochs": 3}, 15),
        ({"max_epochs": 3, "max_steps": 7}, 7),
        ({"max_epochs": 1, "max_steps": 12}, 5),
        ({"max_epochs": -1, "max_steps": 8}, 8),
        ({"max_epochs": 2, "accumulate_grad_batches": 2}, 6),  # the last step of an epoch has one batch
        ({"max_epochs": 3, "limit_train_batches": 2}, 6),
        ({"max_epochs": 3, "limit_train_batches": 9}, 15),
        ({"max_epochs": 3, "limit_train_batches": 1}, 3),
        ({"max_epochs": 3, "limit_train_batches": 0.5}, 6),
        ({"max_epochs": 3, "limit_train_batches": 1.0}, 15),
        ({"max_epochs": 2, "limit_train_batches": 3, "accumulate_grad_batches": 2}, 4),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value),
)
def test_a_cosine_schedule_ends_with_the_last_step_of_the_training(compose_config, limits, steps) -> None:
    config = compose_config(*SMALL, "scheduler=cosine", "optim.lr=1e-3")
    config.trainer.update(limits)
    module, data = module_of(config)
    rates = Rates()
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)

    L.Trainer(accelerator="cpu", callbacks=[rates], limit_val_batches=0, **limits, **quiet).fit(module, datamodule=data)

    expected = [1e-3 * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    assert rates.seen == pytest.approx(expected, abs=1e-9)


def test_a_limit_that_leaves_no_training_batch_raises(compose_config) -> None:
    config = compose_config(*SMALL)
    config.trainer.limit_train_batches = 0.1  # half a batch of five

    with pytest.raises(UserError, match=r"trainer.limit_train_batches=0.1 leaves no batch"):
        module_of(config)


def test_an_interval_of_validations_that_is_longer_than_an_epoch_raises(compose_config) -> None:
    config = compose_config(*SMALL)
    config.trainer.val_check_interval = 99

    with pytest.raises(UserError, match=r"trainer.val_check_interval=99 is more than the 5 steps of an epoch"):
        module_of(config)


# The values of ImageNet are those of timm, and (0.485 + 0.456 + 0.406) / 3 and so on for grey images.
@pytest.mark.parametrize(
    ("choice", "channels", "mean", "std"),
    [
        ("imagenet", 3, constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD),
        ("imagenet", 1, [0.449], [0.226]),
        ("half", 3, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
        ("half", 1, [0.5], [0.5]),
        ("none", 3, [0, 0, 0], [1, 1, 1]),
        ("none", 1, [0], [1]),
    ],
)
def test_named_statistics_are_the_published_ones_and_their_average_for_grey_images(
    compose_config, choice, channels, mean, std
) -> None:
    config = compose_config(*SMALL)
    config.data.update({"normalise": choice, "channels": channels})

    found = statistics(module_of(config)[0])

    assert found == (pytest.approx(mean, abs=1e-6), pytest.approx(std, abs=1e-6))


@pytest.mark.parametrize("choice", ["auto", "dataset"])
def test_without_weights_the_statistics_are_those_of_the_train_part(compose_config, choice) -> None:
    config = compose_config(*SMALL)
    config.data.normalise = choice

    module, data = module_of(config)

    images = np.stack([np.asarray(data.images.source.open(row)) for row in data.plan.split.train]) / 255
    assert statistics(module) == (pytest.approx([images.mean()], rel=1e-5), pytest.approx([images.std()], rel=1e-5))


def test_unknown_statistics_raise(compose_config) -> None:
    config = compose_config(*SMALL)
    config.data.normalise = "mean"

    with pytest.raises(UserError, match=r"data.normalise=mean is unknown"):
        module_of(config)


def write_own_checkpoint(path, *, channels: int = 1) -> None:
    """Write a checkpoint as a run does: the network below `model.`, the statistics below `normalise.`."""
    network = MLP(8, 1, num_classes=10, hidden=[4])
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    state["normalise.mean"] = torch.full((channels, 1, 1), 0.25)
    state["normalise.std"] = torch.full((channels, 1, 1), 0.75)
    torch.save({"state_dict": state}, path)


@pytest.mark.parametrize(("choice", "mean", "std"), [("auto", 0.25, 0.75), ("half", 0.5, 0.5)])
def test_auto_uses_the_statistics_in_a_checkpoint_of_agebench(compose_config, tmp_path, choice, mean, std) -> None:
    write_own_checkpoint(tmp_path / "best.ckpt")
    config = compose_config(*SMALL)
    config.data.normalise, config.model.checkpoint_path = choice, str(tmp_path / "best.ckpt")

    module, _ = module_of(config)

    assert statistics(module) == ([mean], [std])


def test_stored_statistics_of_another_number_of_channels_are_ignored(compose_config, tmp_path) -> None:
    write_own_checkpoint(tmp_path / "best.ckpt", channels=3)
    config = compose_config(*SMALL)
    config.model.checkpoint_path = str(tmp_path / "best.ckpt")

    module, data = module_of(config)

    images = np.stack([np.asarray(data.images.source.open(row)) for row in data.plan.split.train]) / 255
    assert statistics(module)[0] == pytest.approx([images.mean()], rel=1e-5)


def test_auto_uses_the_published_statistics_if_the_weights_are_from_a_file(compose_config, tmp_path) -> None:
    line = ("data=digits", "data.limit=50", "data.channels=3", "data.image_size=32", "model=timm")
    torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), tmp_path / "published.pth")

    module, _ = module_of(
        compose_config(*line, "model.model_name=test_resnet", f"model.checkpoint_path={tmp_path / 'published.pth'}")
    )

    assert statistics(module) == ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])  # as in timm's model card


def test_a_trained_module_has_the_weights_of_its_checkpoint(compose_config) -> None:
    config = compose_config(*SMALL)
    module, _ = module_of(config)
    stored = {"state_dict": module.state_dict(), "agebench": module.stamp}
    config.seed = 9  # other initial weights

    again = build.build_trained(config, stored)

    assert again.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in module.state_dict().items())


def test_class_weights_are_those_of_the_train_part(compose_config) -> None:
    config = compose_config("data=digits", "model=mlp", "head.class_weight=balanced", "data.per_class=7")
    module, data = module_of(config)

    labels = data.plan.target.labels[data.plan.split.train]

    assert len(labels) == 70 < len(data.plan.target.labels)  # the other parts do not have seven images of each class
    expected = compute_class_weight("balanced", classes=np.arange(10), y=labels)
    np.testing.assert_allclose(module.head.weights.numpy(), expected, rtol=1e-6)


def test_a_trained_network_is_built_without_published_weights(compose_config) -> None:
    config = compose_config(*SMALL)
    config.model = {"_target_": f"{__name__}.Network", "pretrained": False, "checkpoint_path": None}
    module, _ = module_of(config)
    config.model.pretrained = True  # as the run was trained

    again = build.build_trained(config, {"state_dict": module.state_dict(), "agebench": module.stamp})

    assert again.model.pretrained is False


def test_batch_norm_with_one_image_per_step_is_refused(compose_config) -> None:
    with pytest.raises(UserError, match=r"batch norm, which needs two images per step: set data.batch_size=2"):
        module_of(compose_config("data=digits", "model=small_cnn", "data.batch_size=1"))


def test_an_unknown_key_of_the_data_is_refused(compose_config) -> None:
    with pytest.raises(UserError, match=r"data has no key batch_sise \(did you mean 'batch_size'\?\): remove it"):
        build.build_data(compose_config(*SMALL, "+data.batch_sise=8"))


def test_a_label_without_train_images_has_a_class_weight(compose_config) -> None:
    config = compose_config(*SMALL, "head.class_weight=balanced")
    data = build.build_data(config)
    labels = data.plan.target.labels
    labels[labels == 9] = 0

    module = build.build_module(config, data)

    assert module.head.weights.shape == (10,)
