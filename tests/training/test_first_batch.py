"""Own networks, heads and augmentations that break their contract end a training before its first step."""

import sys

import pytest

from agebench.build.model import build_model
from agebench.errors import UserError
from agebench.training.fit import fit

CODE = """
import torch
from torch import nn

from agebench.heads.softmax import Softmax


class Net(nn.Module):
    def __init__(self, *, in_chans, num_classes, extra=0):
        super().__init__()
        self.fc = nn.Linear(64 * in_chans, num_classes + extra)

    def forward(self, x):
        return self.fc(x.flatten(1))


class Grid(Net):
    def forward(self, x):
        return super().forward(x)[:, :, None, None]


class Pair(Net):
    def forward(self, x):
        return super().forward(x), x


class PairInTraining(Net):
    def forward(self, x):
        return (super().forward(x), x) if self.training else super().forward(x)


class Labels(Net):
    def forward(self, x):
        return super().forward(x).long()


class Flat(Net):
    def forward(self, x):
        return super().forward(x).squeeze(-1)


class Detached(Net):
    def forward(self, x):
        return super().forward(x).detach()


class Crop(nn.Module):
    def forward(self, images):
        return images[:, :, :-1]


class Bytes(nn.Module):
    def forward(self, images):
        return (images * 255).to(torch.uint8)


class Bright(nn.Module):
    def forward(self, images):
        return images * 3


class Sigmoid(Softmax):
    def posterior(self, outputs):
        return outputs.sigmoid()


class Signed(Softmax):
    def posterior(self, outputs):
        return outputs + (1 - outputs.sum(dim=1, keepdim=True)) / outputs.shape[1]


class Undefined(Softmax):
    def posterior(self, outputs):
        return outputs.softmax(dim=1) * float("nan")


class LossPerImage(Softmax):
    def loss(self, outputs, target):
        return nn.functional.cross_entropy(outputs, target, reduction="none")


class LossWithoutGradient(Softmax):
    def loss(self, outputs, target):
        return super().loss(outputs, target).detach()
"""
GIVEN = {
    "model": {"pretrained": False, "checkpoint_path": None},
    "augment": {"mixup": None, "cutmix": None, "mix_probability": 1.0},
    "head": {"decode": "auto"},
}
SINGLE_STEP = "trainer.val_check_interval=1"  # Lightning's own loop


@pytest.fixture
def config(compose_config, tmp_path, monkeypatch):
    """Return a function that composes a config with a class of the user's file own_first.py."""
    (tmp_path / "own_first.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_first", raising=False)
    monkeypatch.chdir(tmp_path)
    quick = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "callbacks.progress=null", "report=false")

    def compose(key: str, name: str, *overrides: str, **keys):
        cfg = compose_config("data=digits", "model.hidden=[8]", "trainer.limit_train_batches=2", *quick, *overrides)
        cfg[key] = {"_target_": f"own_first.{name}", **GIVEN[key], **keys}
        return cfg

    return compose


@pytest.mark.parametrize(
    ("name", "keys", "classes", "found"),
    [
        ("Net", {"extra": 5}, 10, r"torch.float32 of shape \(2, 15\)"),
        ("Net", {"extra": -1}, 10, r"torch.float32 of shape \(2, 9\)"),
        ("Grid", {}, 10, r"torch.float32 of shape \(2, 10, 1, 1\)"),
        ("Flat", {}, 1, r"torch.float32 of shape \(2,\)"),
        ("Pair", {}, 10, "a tuple"),
        ("Labels", {}, 10, r"torch.int64 of shape \(2, 10\)"),
    ],
    ids=["too many", "too few", "4-D", "1-D", "tuple", "integers"],
)
def test_a_network_with_other_outputs_than_one_per_class_is_refused(config, name, keys, classes, found) -> None:
    expected = (
        rf"^model {name} \(own_first.py\): a backbone must map images \(2, C, S, S\) to outputs \(B, num_classes\) = "
        rf"\(2, {classes}\), float32; got {found}$"
    )

    with pytest.raises(UserError, match=expected):
        build_model(config("model", name, **keys), channels=1, num_outputs=classes, image_size=8)


@pytest.mark.parametrize(
    ("key", "name", "sentence"),
    [
        (
            "model",
            "PairInTraining",
            r"a backbone must map images .* = \(32, 10\), float32; got a tuple",
        ),
        ("model", "Detached", "the outputs of a backbone in training must have a gradient; got none: remove detach"),
        ("augment", "Crop", r"same shape \(32, 1, 8, 8\), float32, from 0 to 1; got torch.float32 of shape .*7, 8\)"),
        ("augment", "Bytes", r"same shape .*, float32, from 0 to 1; got torch.uint8 of shape \(32, 1, 8, 8\)"),
        ("augment", "Bright", "same shape .*, float32, from 0 to 1; got values from 0 to 3"),
        ("head", "Sigmoid", r"return posteriors of shape \(B, R\) = \(32, 10\), .*; got a row that sums to \d"),
        ("head", "Signed", "return posteriors of shape .*; got a value of -"),
        ("head", "Undefined", "return posteriors of shape .*; got a value of nan"),
        ("head", "LossPerImage", r"the loss of a batch of 32 must be one float32 of shape \(\); got .* \(32,\)"),
        ("head", "LossWithoutGradient", "the loss must have a gradient; got none"),
    ],
)
def test_what_the_first_training_batch_shows_is_refused_with_the_class_and_its_file(
    config, tmp_path, key, name, sentence
) -> None:
    with pytest.raises(UserError, match=rf"^{name} \(own_first.py\): .*{sentence}"):
        fit(config(key, name), tmp_path / "run")


@pytest.mark.parametrize(("key", "name"), [("model", "Detached"), ("augment", "Bright")])
def test_the_loop_of_lightning_checks_the_first_batch_too(config, tmp_path, key, name) -> None:
    with pytest.raises(UserError, match=rf"^{name} \(own_first.py\): "):
        fit(config(key, name, SINGLE_STEP), tmp_path / "run")


def test_a_network_of_which_only_the_classifier_is_trained_passes(config, tmp_path) -> None:
    assert fit(config("model", "Net", "finetune=head"), tmp_path / "run") >= 0
