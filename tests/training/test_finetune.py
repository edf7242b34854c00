"""Runs that train the classifier first, against plain PyTorch."""

import csv
import json
from pathlib import Path

import pytest
import timm
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from agebench import build
from agebench.data.loader import BatchSampler
from agebench.training import parts
from agebench.training.fit import fit

LINE = (
    "data=digits",
    "data.limit=160",
    "data.batch_size=80",
    "data.image_size=32",
    "model=timm",
    "model.model_name=test_resnet",
    "data.normalise=dataset",
    "optim=momentum",
    "optim.lr=0.002",
    "channels_last=false",
    "trainer.max_epochs=4",
    "trainer.accelerator=cpu",
    "test_checkpoint=last",
    "callbacks.progress=null",
    "report=false",
)  # 160 training images, 2 steps per epoch
EPOCHS, LR = 4, 0.002


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def weights(tmp_path) -> Path:
    torch.manual_seed(5)
    model = timm.create_model("test_resnet", in_chans=1, num_classes=10)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def stage_of(name: str) -> str:
    return name.partition(".")[0]


def plain_training(weights: Path, config, starts: dict[str, int], ratio: float) -> dict[str, torch.Tensor]:
    """Return the weights after SGD with momentum on the network's stages, each from its first epoch on."""
    model = timm.create_model("test_resnet", in_chans=1, num_classes=10)
    model.load_state_dict(torch.load(weights, weights_only=True))
    data = build.build_data(config)
    part = data.part("train")
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in data.images.statistics())
    velocity: dict[str, torch.Tensor] = {}
    decay, momentum = config.optim.weight_decay, config.optim.momentum
    for epoch in range(EPOCHS):
        trained = [name for name, _ in model.named_parameters() if starts.get(stage_of(name), 0) <= epoch]
        model.train()
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d) and f"{name}.weight" not in trained:
                module.eval()
        sampler = BatchSampler(len(part), config.data.batch_size, shuffle=True, seed=config.seed)
        sampler.set_epoch(epoch)
        for rows in sampler:
            batch = part[rows]
            model.zero_grad()
            nn.functional.cross_entropy(model((batch.images / 255 - mean) / std), batch.target).backward()
            with torch.no_grad():
                for name, p in model.named_parameters():
                    if name in trained:
                        gradient = p.grad + (decay * p if p.ndim > 1 else 0)
                        velocity[name] = momentum * velocity[name] + gradient if name in velocity else gradient
                        p -= LR * (1.0 if stage_of(name) == "fc" else ratio) * velocity[name]
    return model.state_dict()


@pytest.mark.parametrize("multi", [True, pytest.param(False, marks=pytest.mark.ci)])
@pytest.mark.parametrize(
    ("mode", "starts", "ratio"),
    [
        ("head_then_all", dict.fromkeys(("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"), 2), 0.5),
        ("gradual", {"layer4": 1, "layer3": 1, "layer2": 2, "layer1": 2, "conv1": 2, "bn1": 2}, 0.5),
        ("all", {}, 0.2),
    ],
)
def test_a_run_is_plain_training_of_the_parts_that_are_not_frozen(
    compose_config, tmp_path, monkeypatch, weights, multi, mode, starts, ratio
) -> None:
    if not multi:
        monkeypatch.setattr(parts, "can_multi_step", lambda *args: False)
    keys = [f"finetune={mode}", f"finetune.backbone_lr_ratio={ratio}", *(["finetune.epochs=2"] if starts else [])]
    config = compose_config(*LINE, *keys, f"model.checkpoint_path={weights}")

    fit(config, tmp_path / "run")

    expected = plain_training(weights, config, starts, ratio)
    stored = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    started = torch.load(weights, weights_only=True)
    for name, tensor in expected.items():
        change, error = (tensor - started[name]).double(), (stored[f"model.{name}"] - tensor).double()
        assert error.norm() <= 0.03 * change.norm() + 1e-6, name  # float32 and eight steps through batch norms
    table = (tmp_path / "run" / "params.csv").read_text(encoding="utf-8-sig").splitlines()
    for row in csv.DictReader(table):
        stage = stage_of(row["name"].removeprefix("model."))
        assert int(row["first_epoch"]) == starts.get(stage, 0)
        assert float(row["lr"]) == pytest.approx(LR * (1.0 if stage == "fc" else ratio))


class Stop(Callback):
    """Interrupts a training at the start of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == self.epoch:
            raise ZeroDivisionError


@pytest.mark.ci
def test_a_run_that_is_resumed_before_as_and_after_the_backbone_starts_is_the_same_to_the_bit(
    compose_config, tmp_path, monkeypatch, weights
) -> None:
    stops = (1, 2, 3)
    config = compose_config(
        *LINE,
        "optim=adam",
        "finetune=head_then_all",
        "finetune.epochs=2",
        "finetune.backbone_lr_ratio=0.1",
        "ema.decay=0.9",
        f"model.checkpoint_path={weights}",
    )
    make = parts.make_trainer
    for epoch in stops:
        with monkeypatch.context() as patch:
            stop = Stop(epoch)
            patch.setattr(parts, "make_trainer", lambda c, d, cb, stop=stop, **m: make(c, d, [*cb, stop], **m))
            with pytest.raises(ZeroDivisionError):
                fit(config, tmp_path / "resumed")
    fit(config, tmp_path / "resumed")

    fit(config, tmp_path / "whole")

    ours, theirs = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("resumed", "whole")
    )
    assert json.loads((tmp_path / "resumed" / "results.json").read_text(encoding="utf-8"))["resumed"] == len(stops)
    for name, tensor in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], tensor)
    torch.testing.assert_close(ours["optimizer_states"], theirs["optimizer_states"], rtol=0, atol=0)
    for name in ("metrics.csv", "predictions.csv"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
